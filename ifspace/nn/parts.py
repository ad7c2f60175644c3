"""The parts of a network: stem, stages with their shortcuts, pooling, classifier."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import nn

from ifspace.block import Block, SizedBlock
from ifspace.errors import SettingError
from ifspace.nn.blocks import ACTIVATIONS, Style, build
from ifspace.nn.joins import StageJoin, head_side
from ifspace.nn.layers import layer_module
from ifspace.nn.shortcuts import FreeShortcut, Residual
from ifspace.nn.styles import NetworkStyle
from ifspace.stages.layout import Frame, Layout

_NORMS: Final[dict[int, type[nn.Module]]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
_MAX_POOLS: Final[dict[int, type[nn.Module]]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
_ADAPTIVE: Final[dict[tuple[str, int], type[nn.Module]]] = {
    ("max", 1): nn.AdaptiveMaxPool1d,
    ("max", 2): nn.AdaptiveMaxPool2d,
    ("average", 1): nn.AdaptiveAvgPool1d,
    ("average", 2): nn.AdaptiveAvgPool2d,
}


@dataclass(frozen=True, slots=True)
class Parts:
    """Makes the parts of one layout in one style, all on one device and of one type."""

    layout: Layout
    style: NetworkStyle
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    @property
    def frame(self) -> Frame:
        """What the layout counts beside its blocks."""
        return self.layout.frame

    @property
    def dims(self) -> int:
        """Spatial dimensions of the maps."""
        return self.layout.stages[0].first.dims

    def stem(self, strides: Sequence[int]) -> nn.Sequential:
        """Return the layers before the stages, each with its batch norm and activation."""
        layers: list[nn.Module] = []
        for each, stride in zip(self.frame.stem, strides, strict=True):
            layers.append(
                layer_module(each.layer, stride, self.frame.bias, self.device, self.dtype)
            )
            if each.layer.conv.writes:  # a shuffle writes nothing
                layers += [self._norm(each.layer.c_out)] if self.frame.batch_norm else []
                layers.append(self._activation())
        return nn.Sequential(*layers)

    def stage(self, join: StageJoin) -> nn.Sequential:
        """Return the units of a stage, with pooling before them where the maps are too large.

        Raises: SettingError for projections in a style without shortcuts.
        """
        if self.frame.projections and not self.style.residual:
            raise SettingError.because(
                "projections without shortcuts",
                got="residual 0",
                allowed="residual 1 or more where the layout counts projections",
                remedy="choose a style with shortcuts",
                argument="style",
            )
        parts = OrderedDict[str, nn.Module]()
        if join.enters < join.comes:
            parts["pool"] = self._pool(join)
        units, stride = join.stage.units, join.stage.stride
        step = self.style.residual or 1
        for n, start in enumerate(range(0, len(units), step), start=1):
            group = units[start : start + step]
            opens = start == 0
            parts[f"unit{n}"] = self._group(group, stride if opens else 1, opens)
        return nn.Sequential(parts)

    def _group(self, units: Sequence[SizedBlock], stride: int, opens: bool) -> nn.Module:
        """Return units in a row; with a shortcut beside them where they are as many as it spans.

        A projection that the layout counts is there whatever their number.
        """
        strides = [stride, *[1] * (len(units) - 1)]
        projects = opens and self.frame.projections
        if not (projects or len(units) == self.style.residual):
            row = [self._unit(*each, self.style.where) for each in zip(units, strides, strict=True)]
            return row[0] if len(row) == 1 else nn.Sequential(*row)
        c_in, c_out = units[0].channels, units[-1].out_channels
        same = c_in == c_out and stride == 1
        if len(units) == 1 and (projects or same):
            kind = "projection" if projects else "identity"
            return self._unit(units[0], stride, self.style.where, kind)
        # The last unit gives its last activation up to the sum, and with "end" every unit.
        wheres = [self.style.where] * (len(units) - 1) + ["between"]
        return Residual(
            [self._unit(*each, inside=True) for each in zip(units, strides, wheres, strict=True)],
            self._projection(c_in, c_out, stride)
            if projects
            else nn.Identity()
            if same
            else FreeShortcut(c_in, c_out, stride),
            nn.Identity() if self.style.where == "between" else self._activation(),
        )

    def _unit(
        self,
        unit: SizedBlock,
        stride: int,
        where: str,
        shortcut: str = "none",
        inside: bool = False,
    ) -> nn.Module:
        silent = inside and self.style.where == "end"
        style = Style(
            self.frame.batch_norm,
            None if silent else self.style.activation,
            where,
            shortcut,
            self.frame.bias,
        )
        return build(unit, stride=stride, style=style, device=self.device, dtype=self.dtype)

    def _projection(self, c_in: int, c_out: int, stride: int) -> nn.Module:
        layer = Block.parse("PW").at(c_in, c_out, dims=self.dims).layers[0]
        parts = [layer_module(layer, stride, self.frame.bias, self.device, self.dtype)]
        parts += [self._norm(c_out)] if self.frame.batch_norm else []
        return nn.Sequential(*parts)

    def head(self) -> nn.Sequential:
        """Return pooling, flattening and the dense layers; nothing without a classifier."""
        if not self.frame.classifier:
            return nn.Sequential()
        last = self.layout.stages[-1]
        side = head_side(self.layout)
        parts = OrderedDict[str, nn.Module]()
        if side < last.side:
            parts["pool"] = _ADAPTIVE[self.style.head, self.dims](side)
        parts["flatten"] = nn.Flatten()
        *hidden, classes = pairwise((last.width * self.frame.pixels, *self.frame.classifier))
        for n, (c_in, c_out) in enumerate(hidden, start=1):
            parts[f"dense{n}"] = self._dense(c_in, c_out)
            parts[f"dense{n}_act"] = self._activation()
            if self.style.dropout:
                parts[f"dense{n}_drop"] = nn.Dropout(self.style.dropout)
        parts["logits"] = self._dense(*classes)
        return nn.Sequential(parts)

    def _pool(self, join: StageJoin) -> nn.Module:
        ratio = join.comes // join.enters
        if join.comes // ratio != join.enters or ratio == 1:
            return _ADAPTIVE["max", self.dims](join.enters)
        if join.behind_stem and join.comes == 2 * join.enters:
            # Behind a stem windows overlap, as in ResNet and [Fog] Table 1.
            return _MAX_POOLS[self.dims](3, 2, 1)
        return _MAX_POOLS[self.dims](ratio)

    def _norm(self, width: int) -> nn.Module:
        return _NORMS[self.dims](width, device=self.device, dtype=self.dtype)

    def _dense(self, c_in: int, c_out: int) -> nn.Module:
        return nn.Linear(c_in, c_out, device=self.device, dtype=self.dtype)

    def _activation(self) -> nn.Module:
        return ACTIVATIONS[self.style.activation]() if self.style.activation else nn.Identity()
