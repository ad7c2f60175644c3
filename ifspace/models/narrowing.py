"""Remove channels from the modules of a network in place: one step, which files can hold.

The step says which elements of every parameter and buffer stay along each axis, and what the
modules count anew. It needs no trace, so a network is made again from its file at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ifspace.block import Block, SizedBlock, SizedLayer
from ifspace.errors import SettingError
from ifspace.models.surgery import PlainStep
from ifspace.nn.block import BlockModule
from ifspace.nn.layers import RollingPointwiseConv2d

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Kept:
    """Which of a number of elements stay: `size` elements, and a bit for each of them, in hex.

    >>> Kept.of(np.array([True, False, True, True]))
    Kept(size=4, bits='d')
    >>> Kept(4, "d").mask.tolist()
    [True, False, True, True]
    """

    size: int
    bits: str

    @classmethod
    def of(cls, mask: Mask) -> Self:
        """Return the elements where a mask is true."""
        number = sum(1 << int(place) for place in np.flatnonzero(mask))
        return cls(len(mask), f"{number:x}")

    @property
    def mask(self) -> Mask:
        """Whether each element stays."""
        number = int(self.bits, 16)
        return np.array([bool(number >> place & 1) for place in range(self.size)], dtype=bool)


@dataclass(frozen=True, slots=True)
class NarrowedTensor:
    """A parameter or buffer by its full name, an axis, and the index of what stays along it."""

    name: str
    axis: int
    kept: int


@dataclass(frozen=True, slots=True)
class ChangedNumber:
    """A number that a module holds, such as the groups of a convolution, and its new value."""

    module: str
    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Narrow(PlainStep):
    """Remove channels: `tensors` lose elements along axes, `numbers` of modules change.

    `kept`: what stays along an axis, each once; tensors name it by its index.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    >>> names = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    >>> Narrow((Kept(4, "d"),), tuple(NarrowedTensor(name, 0, 0) for name in names)).apply(model)
    >>> model
    Sequential(
      (0): Conv2d(3, 3, kernel_size=(1, 1), stride=(1, 1))
      (1): BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, ...)
    )
    """

    step: ClassVar[str] = "narrow"

    kept: tuple[Kept, ...]
    tensors: tuple[NarrowedTensor, ...]
    numbers: tuple[ChangedNumber, ...] = ()

    @classmethod
    def of(
        cls, masks: Sequence[tuple[str, int, Mask]], numbers: Sequence[ChangedNumber] = ()
    ) -> Self:
        """Return the step for masks of tensors along axes; those that keep all are left out."""
        kept: dict[Kept, int] = {}
        tensors = []
        for name, axis, mask in masks:
            if not mask.all():
                index = kept.setdefault(Kept.of(mask), len(kept))
                tensors.append(NarrowedTensor(name, axis, index))
        return cls(tuple(kept), tuple(tensors), tuple(numbers))

    def apply(self, model: nn.Module) -> None:
        """Remove the channels from the model in place; parameters stay the same objects.

        Raises: SettingError for a network that the step was not made for.
        """
        tensors, masks = tensors_of(model), [entry.mask for entry in self.kept]
        for part in self.tensors:
            size = len(masks[part.kept]) if part.kept < len(masks) else None
            check_size(tensors, part.name, part.axis, size)
        for part in self.tensors:
            _narrow(tensors[part.name], part.axis, masks[part.kept])
        count_anew(model, {part.name for part in self.tensors}, self.numbers)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a model under all of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def check_size(tensors: Mapping[str, Tensor], name: str, axis: int, size: int | None) -> None:
    """Check that a tensor has so many elements along an axis. Raises: SettingError."""
    tensor = tensors.get(name)
    sizes = () if tensor is None else tuple(tensor.shape)
    if size is None or size != dict(enumerate(sizes)).get(axis):
        raise SettingError.because(
            "a step that does not fit the network",
            got=f"{name} {'missing' if tensor is None else list(sizes)}",
            allowed="the shapes that it was planned for",
            remedy="take the network that the step was planned for",
            argument="model",
        )


def count_anew(model: nn.Module, names: Iterable[str], numbers: Iterable[ChangedNumber]) -> None:
    """Give modules the numbers of channels that their tensors have, and the `numbers`.

    `names`: of the parameters and buffers that have another size.
    """
    modules = [model.get_submodule(name.rpartition(".")[0]) for name in names]
    owners = {id(module): module for module in modules}
    for number in numbers:
        module = model.get_submodule(number.module)
        is_tuple = isinstance(getattr(module, number.name), tuple)
        setattr(module, number.name, (number.value,) if is_tuple else number.value)
    for module in owners.values():
        _count_anew(module)
    for module in reversed(list(model.modules())):  # a layer of a block may be one itself
        if isinstance(module, BlockModule) and owners.keys() & set(map(id, module.modules())):
            module.sized = _sized_anew(module)


def _narrow(tensor: Tensor, axis: int, mask: Mask) -> None:
    """Keep some elements of a tensor along an axis; the tensor stays the same object."""
    places = torch.from_numpy(np.flatnonzero(mask)).to(tensor.device)
    with torch.no_grad():
        tensor.data = tensor.data.index_select(axis, places)
    tensor.grad = None


def _count_anew(module: nn.Module) -> None:
    """Give a module the numbers of channels that its weights have."""
    weight = getattr(module, "weight", None)
    first = weight if isinstance(weight, Tensor) else getattr(module, "running_mean", None)
    if not isinstance(first, Tensor):
        return
    if isinstance(module, nn.modules.conv._ConvNd):
        out, per_group = first.shape[:2]
        module.out_channels, module.in_channels = out, per_group * module.groups
        if module.transposed:
            module.in_channels, module.out_channels = out, per_group * module.groups
    elif isinstance(module, RollingPointwiseConv2d):
        # Windows keep their number: all of them lose as many channels, at equal places.
        width = first.shape[1]
        module.step = module.step * width * module.groups // module.in_channels
        module.overlap = Fraction(width - module.step, width)
        module.in_channels, module.out_channels = width * module.groups, first.shape[0]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = first.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = first.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = first.shape[0]


def _sized_anew(block: BlockModule) -> SizedBlock:
    """Return the block that the layers of a module are, at the widths that they have."""
    old, layers = block.sized, []
    modules: list[Any] = [block.get_submodule(f"layer{n}") for n in range(len(old.layers))]
    reads = (ends[0] for ends in map(_ends, modules) if ends is not None)
    width = first = next(reads, old.channels)
    for sized, module in zip(old.layers, modules, strict=True):
        layer, (_, end) = sized.layer, _ends(module) or (width, width)
        if layer.groups is not None and hasattr(module, "in_channels"):
            layer = replace(layer, groups=module.groups)
        if isinstance(module, RollingPointwiseConv2d):
            layer = replace(layer, overlap=module.overlap)
        layers.append(SizedLayer(layer, width, end, old.dims))
        width = end
    count = len(old.block)
    copies = [{x.layer for x in layers[n::count]} for n in range(count)]
    if all(len(same) == 1 for same in copies):
        again = Block(tuple(x.layer for x in layers[:count]), old.block.repeats)
    else:
        again = Block(tuple(x.layer for x in layers))
    return SizedBlock(again, first, width, None, old.dims, tuple(layers))


def _ends(module: Any) -> tuple[int, int] | None:
    """Return how many channels a layer of a block reads and writes; None of a shuffle."""
    if isinstance(module, BlockModule):
        return module.sized.channels, module.sized.out_channels
    if hasattr(module, "in_channels"):
        return module.in_channels, module.out_channels
    return None
