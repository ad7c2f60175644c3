"""A launch of a Triton kernel once more, with other tensors that look the same.

To put a launch together, and to find what Triton has compiled for it, takes the host longer than a
small layer takes a card. What follows from the looks of the tensors is kept after the first launch:
the next one passes pointers.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from ifspace.kernels.launch import Config, Launch, Tensors, interprets, on_device

# So many launches are kept; then all are put together anew.
_MOST: Final = 4096
# Triton compiles another kernel for a pointer that is no multiple of this.
_ALIGNED_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Call:
    """All of a launch: the kernel, its programs, its arguments by name, options of the compiler."""

    function: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    options: Mapping[str, int]

    @classmethod
    def of(cls, launch: Launch, name: str | None) -> "Call":
        """Return a launch under a configuration by name, or the fastest.

        It is one that neither adds to its results nor has sums of its own.
        """
        assert not launch.sums
        assert not launch.added_to
        config: Config = launch.choose(name)
        return cls(launch.function, *launch.everything(config), config.options())

    def run(self) -> Any:
        """Run it, and return what Triton compiled."""
        return self.function[self.grid](**self.arguments, **self.options)


@dataclass(frozen=True, slots=True)
class Repeated:
    """A launch that has run: the compiled kernel, its grid, and its arguments in order.

    `places`: where among the arguments the tensors stand, which are not kept.
    """

    compiled: Any
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, call: Call, tensors: Tensors) -> "Repeated":
        """Run a launch and return it."""
        names = call.function.arg_names
        kept = tuple(None if name in tensors else call.arguments[name] for name in names)
        first, second, third = (*call.grid, 1, 1)[:3]
        return cls(call.run(), (first, second, third), kept, tuple(map(names.index, tensors)))

    def run(self, tensors: Tensors) -> None:
        """Run it with other tensors, in the same order, on the current stream."""
        arguments = list(self.arguments)
        for place, tensor in zip(self.places, tensors.values(), strict=True):
            arguments[place] = tensor
        self.compiled[self.grid](*arguments)


_repeated: dict[Hashable, Repeated] = {}


def run(
    kernel: str, tensors: Tensors, others: tuple[Hashable, ...], make: Callable[[], Call]
) -> None:
    """Run a launch with some tensors, arguments of the kernel by name.

    `make` returns it; what it depends on beside the tensors is in `others`.
    """
    with on_device(*tensors.values()):
        if interprets():
            make().run()
            return
        deterministic = torch.are_deterministic_algorithms_enabled()
        key = (kernel, deterministic, *others, *map(_look, tensors.values()))
        repeated = _repeated.get(key)
        if repeated is not None:
            repeated.run(tensors)
            return
        repeated = Repeated.of(make(), tensors)
        # In a graph the fastest configuration may not be known yet.
        if not torch.cuda.is_current_stream_capturing():
            if len(_repeated) >= _MOST:
                _repeated.clear()
            _repeated[key] = repeated


def _look(tensor: Tensor | None) -> Hashable:
    """Return all of a tensor that its launch depends on."""
    if tensor is None:
        return None
    aligned = tensor.data_ptr() % _ALIGNED_BYTES == 0
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, aligned
