"""The most elements that are live at once in a run of a torch module, counted by hooks."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from witness import Shuffle


def peak_by_hooks(module: nn.Module, *inputs: Tensor) -> int:
    """The peak of storages between the first and the last call of a leaf module that touches them.

    The result of the module is live to the end. Views and work in place share a storage; a channel
    shuffle, which torch copies, is an index here. The module does nothing outside its leaves.
    """
    calls: list[list[int]] = []
    sizes: dict[int, int] = {}
    names: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no address is used twice

    def name_of(value: Tensor) -> int:
        kept.append(value)
        storage = value.untyped_storage()
        name = names.setdefault(storage.data_ptr(), storage.data_ptr())
        sizes.setdefault(name, storage.nbytes() // value.element_size())
        return name

    def hook(leaf: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        read = [name_of(value) for value in arguments]
        if isinstance(leaf, nn.ChannelShuffle | Shuffle):
            names[output.untyped_storage().data_ptr()] = read[0]
        calls.append([*read, name_of(output)])

    leaves = [leaf for leaf in module.modules() if not list(leaf.children())]
    handles = [leaf.register_forward_hook(hook) for leaf in leaves]
    with torch.no_grad():
        calls.append([name_of(value) for value in inputs])
        calls.append([name_of(module(*inputs))])
    for handle in handles:
        handle.remove()
    first = {name: index for index, call in reversed([*enumerate(calls)]) for name in call}
    last = {name: index for index, call in enumerate(calls) for name in call}
    return max(
        sum(size for name, size in sizes.items() if first[name] <= index <= last[name])
        for index in range(len(calls))
    )


class _Log(TorchDispatchMode):
    """Keeps the storages that each operator reads and writes, and how large they are."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[set[int]] = []
        self.sizes: dict[int, int] = {}
        self.kept: list[Any] = []  # so that no storage's name is used twice

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        values = tree_leaves((args, kwargs, result))
        # Not the indices that a pooling returns to its derivative.
        tensors = [x for x in values if isinstance(x, Tensor) and x.is_floating_point()]
        self.calls.append({self.name_of(tensor) for tensor in tensors})
        return result

    def name_of(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        self.kept.append(tensor)
        self.sizes.setdefault(storage._cdata, storage.nbytes() // tensor.element_size())
        return storage._cdata


def peak_by_operators(module: nn.Module, x: Tensor) -> int:
    """The peak of storages between the first and the last operator of torch that touches them.

    Weights are not counted. Everything is as torch runs it: nothing is put in place.
    """
    weights = [*module.parameters(), *module.buffers()]
    with torch.no_grad(), _Log() as log:
        names = {log.name_of(weight) for weight in weights}
        output = log.name_of(module(x))
    calls = [{log.name_of(x)}, *log.calls, {output}]
    first = {name: index for index, call in reversed([*enumerate(calls)]) for name in call}
    last = {name: index for index, call in enumerate(calls) for name in call}
    return max(
        sum(log.sizes[name] for name in first.keys() - names if first[name] <= i <= last[name])
        for i in range(len(calls))
    )


class Sum(nn.Module):
    """A sum of two feature maps, written over the first."""

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        y += x
        return y
