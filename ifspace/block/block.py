"""Blocks: compositions with their parameters chosen, and the same at concrete widths."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from ifspace.block.composition import Composition, empty, place_widths, split_terms
from ifspace.block.layer import Layer, SizedLayer, whole
from ifspace.errors import BlockError
from ifspace.kinds import parse_ratio


@dataclass(frozen=True, slots=True)
class Block:
    """A sequence of layers, repeated.

    >>> block = Block.parse("( dw + rpw(2, 0.5) )x2")
    >>> str(block), Block.parse(str(block)) == block
    ('(DW+RPW(2,1/2))x2', True)
    """

    layers: tuple[Layer, ...]
    repeats: int = 1

    def __post_init__(self) -> None:
        if not self.layers:
            raise empty("")
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "repeats", whole(self.repeats, "repeats"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the block that the notation means.

        Raises: BlockError for an unknown kind, a malformed or empty block, a bad parameter.
        """
        terms, repeats = split_terms(text)
        return cls(tuple(map(Layer.parse, terms)), repeats)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def composition(self) -> Composition:
        """The block without its parameters."""
        return Composition(tuple(layer.kind for layer in self.layers), self.repeats)

    @property
    def sort_key(self) -> tuple[Any, ...]:
        """Canonical order: that of the composition, then groups, overlap, kernel of each layer."""
        return *self.composition.sort_key, tuple(layer.sort_key for layer in self.layers)

    def params_formula(self, bottleneck: bool = False, kernel: int | None = None) -> Any:
        """Return the formula of the composition: see `Composition.params_formula`."""
        return self.composition.params_formula(bottleneck, kernel)

    def at(
        self,
        channels: int,
        out_channels: int | None = None,
        bottleneck: Fraction | int | str | None = None,
        dims: int = 2,
        widths: Sequence[int] | None = None,
    ) -> "SizedBlock":
        """Return the block at concrete widths, all its copies in a row.

        The first copy maps `channels` to `out_channels`, the others keep that width. The width
        changes in the last channel-mixing layer of a copy; with a `bottleneck` ratio R the first
        one goes to R x out_channels and the last one comes back. `widths` names instead the width
        behind each channel-mixing layer but the last.

        >>> sized = Block.parse("PW+DW+PW").at(64, 64, bottleneck="1/4")
        >>> [(layer.c_in, layer.c_out) for layer in sized.layers], sized.params
        ([(64, 16), (16, 16), (16, 64)], 2192)

        Raises: BlockError when groups do not divide the widths of their layer, no layer can
            change the width, or the bottleneck is not a whole number of channels.

        Reference: [Fog] sections 3.1 and 3.2.
        """
        c_in = whole(channels, "channels")
        c_out = c_in if out_channels is None else whole(out_channels, "out_channels")
        if dims not in (1, 2):
            raise BlockError.because(
                "wrong number of dimensions",
                got=dims,
                allowed="1, 2",
                remedy="use 2 for images",
                argument="dims",
            )
        ratio = None if bottleneck is None else _ratio(bottleneck)
        inner = None if ratio is None else ratio * c_out
        if inner is not None and (inner.denominator != 1 or inner < 1):
            raise BlockError.because(
                "bottleneck is not a whole number of channels",
                got=f"{ratio} of {c_out}",
                allowed="ratio x out_channels whole and at least 1",
                remedy="change the ratio or the width",
                argument="bottleneck",
            )
        interior: int | tuple[int, ...] | None = None if inner is None else int(inner)
        if widths is not None:
            if ratio is not None:
                raise BlockError.because(
                    "two statements of the interior widths",
                    got=f"bottleneck {ratio} and widths {', '.join(map(str, widths))}",
                    allowed="one of them",
                    remedy="leave one out",
                )
            interior = tuple(whole(width, "interior width") for width in widths)
        mixing = [layer.conv.mixing for layer in self.layers]
        chain: list[SizedLayer] = []
        for copy in range(self.repeats):
            placed = place_widths(mixing, c_in if copy == 0 else c_out, c_out, interior)
            chain += [SizedLayer(x, *w, dims) for x, w in zip(self.layers, placed, strict=True)]
        return SizedBlock(self, c_in, c_out, ratio, dims, tuple(chain))

    def __str__(self) -> str:
        word = "+".join(map(str, self.layers))
        return word if self.repeats == 1 else f"({word})x{self.repeats}"


def _ratio(value: Fraction | int | str) -> Fraction:
    ratio = parse_ratio(value)
    if ratio is None:
        raise BlockError.because(
            "malformed bottleneck ratio",
            got=repr(value),
            allowed="an exact positive ratio, at most nine digits a part",
            remedy="write 1/4 or 2",
            argument="bottleneck",
        )
    return ratio


@dataclass(frozen=True, slots=True)
class SizedBlock:
    """A block at concrete widths; make it with `Block.at`.

    `layers` is the chain of all copies in order. Amounts are those of all copies.

    >>> sized = Block.parse("PW+DW").at(64)
    >>> sized.params, sized.macs_per_pixel(), sized.macs_per_pixel(stride=2)
    (4672, 4672, 16960)
    """

    block: Block
    channels: int
    out_channels: int
    bottleneck: Fraction | None
    dims: int
    layers: tuple[SizedLayer, ...]

    @property
    def params(self) -> int:
        """The number of weights of all copies."""
        return sum(layer.params for layer in self.layers)

    def macs_per_pixel(self, stride: int = 1) -> int:
        """Return the multiply-accumulates per output pixel of the block.

        The stride sits on the first spatial layer of the chain, so the layers before it run on
        stride ** dims times as many pixels.

        Raises: BlockError when there is a stride and no spatial layer to hold it.
        """
        pixels = self._pixels(stride)
        return sum(n * layer.params for n, layer in zip(pixels, self.layers, strict=True))

    def activations_per_pixel(self, stride: int = 1) -> int:
        """Return the elements written per output pixel of the block, summed over its layers.

        A kind that writes nothing (a shuffle is folded into an index) adds nothing. Strides as in
        `macs_per_pixel`.
        """
        pixels = self._pixels(stride)
        written = (layer.c_out * layer.conv.writes for layer in self.layers)
        return sum(n * elements for n, elements in zip(pixels, written, strict=True))

    def _pixels(self, stride: int) -> list[int]:
        stride = whole(stride, "stride")
        spatial = [place for place, layer in enumerate(self.layers) if layer.conv.spatial]
        if stride > 1 and not spatial:
            raise BlockError.because(
                "no layer can hold the stride",
                got=f"stride {stride} in {self.block}",
                allowed="stride 1 without a spatial layer",
                remedy="add a spatial layer such as DW",
            )
        first = spatial[0] if spatial else 0
        return [stride**self.dims if place < first else 1 for place in range(len(self.layers))]

    def without(self, place: int) -> tuple[SizedLayer, ...]:
        """Return the chain without the layer at a place from 0.

        >>> [str(layer.layer) for layer in Block.parse("DW+PW").at(4).without(0)]
        ['PW']

        Raises: BlockError for a layer that changes the width: its neighbours would not fit.
        """
        keeping = [n for n, layer in enumerate(self.layers) if not layer.changes_width]
        if place not in keeping:
            raise BlockError.because(
                "layer cannot be left out",
                got=place,
                allowed=f"layers that keep their width: {', '.join(map(str, keeping)) or 'none'}",
                remedy="places count from 0 over all copies",
            )
        return self.layers[:place] + self.layers[place + 1 :]
