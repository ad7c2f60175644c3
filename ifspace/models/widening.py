"""Add channels to the modules of a network in place, so that it computes the same at first.

A new channel is a copy of one of its group: of the filters, norms and scales that write it. What
layers read of it begins with weights of zero, so that outputs stay what they were, and the copies
part in training, as their gradients are not those of the channels that they copy. Where channels
stand, behind concatenations and shuffles too, the widened network itself says: one of the new sizes
is traced, and any of its channels that are as many as there were before make the network before.

Reference: Chen et al., Net2Net, section 2.3, whose copies share the weights behind them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ifspace.errors import SettingError
from ifspace.models.channel_groups import Axis, ChannelGroup, Channels
from ifspace.models.narrowing import ChangedNumber, check_size, count_anew, tensors_of
from ifspace.models.surgery import PlainStep, copy_of_network
from ifspace.nn.checks import evaluated

Ints = npt.NDArray[np.int64]
# How far the outputs of a widened network may be from those before, over the greatest of them.
_EXACT: Final = 1e-3


@dataclass(frozen=True, slots=True)
class WidenedTensor:
    """A parameter or buffer, an axis, and the index of the sources of its elements along it.

    `is_read`: whether copies begin as zeros, since a layer reads channels along the axis.
    """

    name: str
    axis: int
    source: int
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class Widen(PlainStep):
    """Add channels: `tensors` get more elements along axes, `numbers` of modules change.

    `sources`: along an axis which element stands where, or -1 - n for a copy of element n. Tensors
    name them by index.

    >>> model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 1))
    >>> x = torch.randn(1, 3, 2, 2)
    >>> y = model(x)
    >>> names = WidenedTensor("0.weight", 0, 0), WidenedTensor("0.bias", 0, 0)
    >>> Widen(((0, -1, 1),), (*names, WidenedTensor("2.weight", 1, 0, True))).apply(model)
    >>> model[2], torch.allclose(model(x), y, atol=1e-6)
    (Conv2d(3, 4, kernel_size=(1, 1), stride=(1, 1)), True)
    """

    step: ClassVar[str] = "widen"

    sources: tuple[tuple[int, ...], ...]
    tensors: tuple[WidenedTensor, ...]
    numbers: tuple[ChangedNumber, ...] = ()

    @classmethod
    def of(
        cls, sources: Mapping[Axis, Ints], read: Mapping[str, int], numbers: Sequence[ChangedNumber]
    ) -> Self:
        """Return the step for the sources of tensors along axes, of which layers `read` some."""
        kept: dict[tuple[int, ...], int] = {}
        tensors = []
        for (name, axis), own in sources.items():
            indices = tuple(own.tolist())
            index = kept.setdefault(indices, len(kept))
            tensors.append(WidenedTensor(name, axis, index, read.get(name) == axis))
        return cls(tuple(kept), tuple(tensors), tuple(numbers))

    def apply(self, model: nn.Module) -> None:
        """Add the channels to the model in place; parameters stay the same objects.

        Raises: SettingError for a network that the step was not made for.
        """
        tensors = tensors_of(model)
        for part in self.tensors:
            check_size(tensors, part.name, part.axis, self._size(part.source))
        for part in self.tensors:
            _widen(tensors[part.name], part.axis, self.sources[part.source], part.is_read)
        count_anew(model, {part.name for part in self.tensors}, self.numbers)

    def _size(self, source: int) -> int | None:
        """Return how many elements sources name; None where they are not those of an axis."""
        if not source < len(self.sources):
            return None
        kept = [place for place in self.sources[source] if place >= 0]
        copied = all(-1 - place < len(kept) for place in self.sources[source] if place < 0)
        return len(kept) if copied and kept == list(range(len(kept))) else None


def _widen(tensor: Tensor, axis: int, sources: Sequence[int], is_read: bool) -> None:
    """Give a tensor the elements of the sources along an axis; it stays the same object."""
    order = np.array(sources)
    is_new = order < 0
    places, new = (
        torch.from_numpy(numbers).to(tensor.device)
        for numbers in (np.where(is_new, -1 - order, order), np.flatnonzero(is_new))
    )
    with torch.no_grad():
        widened = tensor.data.index_select(axis, places)
        if is_read:
            widened.index_fill_(axis, new, 0)
        tensor.data = widened
    tensor.grad = None


def widen_copy(
    channels: Channels, copy: nn.Module, counts: Sequence[int], strengths: npt.NDArray[np.float64]
) -> tuple[Widen | None, frozenset[str]]:
    """Widen a copy of a network in place, to so many classes of each group of its `channels`.

    Counts that are not above those there are change nothing. `strengths` of classes: the strongest
    are copied first. Return the step, None if nothing is wider, and the names of groups that cannot
    be wider; the copy is of use where there are none.
    """
    pairs = list(zip(channels.groups, counts, strict=True))
    wider = {group.key: count for group, count in pairs if count > len(group.classes)}
    groups = [group for group in channels.groups if group.key in wider]
    if not groups:
        return None, frozenset()
    draft = _draft(channels, copy, wider)
    try:
        widened = Channels(draft, channels.image)
    except SettingError:
        return None, _culprits(channels, copy, wider)
    own = {group.key: group for group in widened.groups}
    blamed = [x for x in groups if x.key not in own or len(own[x.key].classes) != wider[x.key]]
    if blamed:
        return None, _names(blamed)
    # Any of the classes could be the new ones.
    added = {n: own[x.key].classes[len(x.classes) :] for n, x in enumerate(groups)}
    wrong = widened.mismatch(channels, np.concatenate(list(added.values())).tolist())
    if wrong:
        node = channels.nodes[min(wrong[0], len(channels.nodes) - 1)]
        nodes = (node.index, *node.parents)
        classes = np.concatenate([channels.class_of[channels.ids_of(n)] for n in nodes])
        blamed = [group for group in groups if np.isin(group.classes, classes).any()]
        return None, _names(blamed or groups)
    templates: dict[int, int] = {}
    for number, group in enumerate(groups):
        order = group.classes[np.argsort(-strengths[group.classes], kind="stable")]
        copied = order[np.arange(len(added[number])) % len(order)]
        templates |= dict(zip(added[number].tolist(), copied.tolist(), strict=True))
    step = Widen.of(
        _sources(channels, widened, templates), channels.walk.read_axes, _numbers(channels, wider)
    )
    before = _outputs(copy, channels.image)
    step.apply(copy)
    outputs = zip(before, _outputs(copy, channels.image), strict=True)
    same = all(float((y - z).abs().max()) <= _EXACT * float(y.abs().max()) for y, z in outputs)
    return (step, frozenset()) if same else (None, _names(groups))


def _names(groups: Iterable[ChannelGroup]) -> frozenset[str]:
    return frozenset(group.name for group in groups)


def _more(channels: Channels, counts: Mapping[Any, int], ids: Ints) -> int:
    """Return how many channels more there are among ids, with so many classes of some groups."""
    return sum(
        int(np.isin(channels.class_of[ids], group.classes).sum())
        * (counts[group.key] - len(group.classes))
        // len(group.classes)
        for group in channels.groups
        if group.key in counts
    )


def _numbers(channels: Channels, counts: Mapping[Any, int]) -> list[ChangedNumber]:
    """Return the numbers of modules that change with so many classes of some groups."""
    numbers = []
    for attribute in channels.walk.attributes:
        count = len(attribute.ids)
        whole = count + _more(channels, counts, attribute.ids)
        if whole != count:
            value = whole if attribute.groups is None else attribute.groups * whole // count
            numbers.append(ChangedNumber(attribute.module, attribute.name, value))
    return numbers


def _draft(channels: Channels, model: nn.Module, counts: Mapping[Any, int]) -> nn.Module:
    """Return a copy of a model of the sizes with so many classes of some groups."""
    sources = {}
    for axis, ids in channels.walk.axes.items():
        more = _more(channels, counts, ids)
        if more:
            sources[axis] = np.concatenate([np.arange(len(ids)), np.full(more, -1)])
    draft = copy_of_network(model)
    Widen.of(sources, channels.walk.read_axes, _numbers(channels, counts)).apply(draft)
    return draft


def _sources(
    channels: Channels, widened: Channels, templates: Mapping[int, int]
) -> dict[Axis, Ints]:
    """Return the sources along each axis that gets longer.

    `templates`: the class that each new class of the widened network copies.
    """
    sources = {}
    for axis, ids in channels.walk.axes.items():
        classes = widened.class_of[widened.walk.axes[axis]]
        if len(classes) == len(ids):
            continue
        places: dict[int, list[int]] = {}
        for place, number in enumerate(channels.class_of[ids].tolist()):
            places.setdefault(number, []).append(place)
        kept, seen, order = iter(range(len(ids))), Counter[int](), []
        for number in classes.tolist():
            if number in templates:
                order.append(-1 - places[templates[number]][seen[number]])
                seen[number] += 1
            else:
                order.append(next(kept))
        sources[axis] = np.array(order, np.int64)
    return sources


def _culprits(channels: Channels, model: nn.Module, counts: Mapping[Any, int]) -> frozenset[str]:
    """Return the groups with which alone a network does not run; all where it does with each."""
    groups = [group for group in channels.groups if group.key in counts]
    blamed = []
    for group in groups:
        draft = _draft(channels, model, {group.key: counts[group.key]})
        try:
            with evaluated(draft):
                draft(channels.image)
        except Exception:
            blamed.append(group)
    return _names(blamed or groups)


def _outputs(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Return what a network computes of an image; nothing of one without values."""
    if any(tensor.is_meta for tensor in model.parameters()):
        return []
    pixels = torch.linspace(-1, 1, image.numel(), dtype=image.dtype, device=image.device)
    with evaluated(model):
        outputs = tree_leaves(model(pixels.reshape(image.shape)))
    return [y for y in outputs if isinstance(y, Tensor) and y.is_floating_point()]
