"""The step that gives the place of one convolution of a network to a block."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from torch import nn

from ifspace.block import SizedBlock
from ifspace.errors import SettingError
from ifspace.nn.blocks import PLAIN, BlockModule, Style, last_writer
from ifspace.stages.layout import (
    MAX_SIDE,
    block_from_json,
    block_json,
)
from ifspace.values import whole_number

Side = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Replace:
    """The convolution at a path, of a stride in pixels, gives its place to a block in a style.

    >>> from ifspace.block import Block
    >>> model = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1))
    >>> Replace("0", Block.parse("DW+PW").at(16, 32), 2).apply(model)
    >>> model[0].layer0
    DepthwiseConv2d(16, 16, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), groups=16, ...)
    """

    step: ClassVar[str] = "replace"

    name: str
    sized: SizedBlock
    stride: int = 1
    style: Style = PLAIN

    def apply(self, model: nn.Module) -> None:
        """Put the block, with fresh weights, in place of the convolution in the model itself.

        Device, type and mode stay; so do all names by which the convolution is known.

        Raises: SettingError when no such convolution is there.
        """
        old = found_at(model, self.name)
        wanted = (self.sized.channels, self.sized.out_channels, (self.stride,) * 2)
        if not isinstance(old, nn.Conv2d) or wanted != (
            old.in_channels,
            old.out_channels,
            old.stride,
        ):
            raise SettingError.because(
                "a step that does not fit the network",
                got=f"{self.name}: {old}",
                allowed=f"a convolution from {wanted[0]} to {wanted[1]} channels, stride "
                f"{self.stride}",
                remedy="take the network that the step was planned for",
                argument="model",
            )
        made = BlockModule(
            self.sized, self.stride, self.style, old.weight.device, old.weight.dtype
        ).train(old.training)
        for name, module in list(model.named_modules(remove_duplicate=False)):
            if module is old:
                model.set_submodule(name, made)

    def to_json(self) -> dict[str, Any]:
        """Return the step as values that JSON has."""
        return {
            "name": self.name,
            "block": block_json(self.sized),
            "stride": self.stride,
            "style": asdict(self.style),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the step that `to_json` wrote.

        Raises: an IfspaceError, KeyError, TypeError or ValueError for anything else.
        """
        style = Style(**values["style"])
        if not all(type(each) is bool for each in (style.batch_norm, style.bias)):
            raise ValueError(f"style {values['style']}")
        return cls(
            str(values["name"]),
            block_from_json(values["block"]),
            whole_number(values["stride"], "stride", 1, MAX_SIDE),
            style,
        )

    @property
    def params(self) -> int:
        """The number of weights, biases and numbers of batch norm that the block has.

        >>> from ifspace.block import Block
        >>> Replace("0", Block.parse("DW+PW").at(16, 32), style=Style()).params
        752
        """
        style, sized = self.style, self.sized
        layers, last = sized.layers, last_writer(sized)
        writers = [each.c_out for each in layers if each.conv.writes]
        end = layers[last].c_out if last >= 0 else 0
        projects = self._projects
        total = sized.params + projects * sized.channels * sized.out_channels
        if style.batch_norm:
            every = style.batch_norm_where == "each"
            total += 2 * (sum(writers) - (not every) * end)
            total += 2 * (projects and every) * sized.out_channels
        if style.bias:
            every = style.bias_where == "each"
            total += sum(writers) if every else end
            total += (projects and every) * sized.out_channels
        return total

    def macs(self, side_in: Side, side_out: Side) -> int:
        """Return the multiply-accumulates of one image, from maps of a side to those of another.

        Layers before the one with the stride run on the larger maps: at odd sides these are not
        stride x stride times the smaller ones.
        """
        before, after = side_in[0] * side_in[1], side_out[0] * side_out[1]
        layers = self.sized.layers
        first = next((n for n, each in enumerate(layers) if each.conv.spatial), 0)
        total = sum(
            layer.params * (before if place < first else after)
            for place, layer in enumerate(layers)
        )
        return total + self._projects * self.sized.channels * self.sized.out_channels * after

    @property
    def _projects(self) -> bool:
        same = self.sized.channels == self.sized.out_channels and self.stride == 1
        return self.style.shortcut == "projection" or (self.style.shortcut == "auto" and not same)


def found_at(model: nn.Module, name: str) -> nn.Module:
    """Return the module at a path.

    Raises: SettingError when there is none, or the path is that of the network itself.
    """
    try:
        if name:
            return model.get_submodule(name)
    except AttributeError:
        pass
    raise SettingError.because(
        "no such module in the network",
        got=repr(name),
        allowed="paths such as features.0",
        remedy="`ifspace analyze` lists the layers with their names",
        argument="names",
    )
