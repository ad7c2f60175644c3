"""Compositions: words over the kinds, and the symbols that their formulas are written in."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import sympy

from ifspace.block.layer import EXAMPLE, malformed, whole
from ifspace.errors import BlockError
from ifspace.kinds import C, C_in, C_out, ConvKind, F, K, d, find_kind, g, k, position, s, w

Width = TypeVar("Width")


def split_terms(text: str) -> tuple[list[str], int]:
    """Split the notation at its joints: the terms between `+`, and the number of repeats."""
    packed = "".join(text.split())
    match = re.fullmatch(r"\((.*)\)(?:[xX]([0-9]{1,6}))?", packed)
    body, repeats = (match[1], int(match[2] or 1)) if match else (packed, 1)
    if not body:
        raise empty(text)
    terms = body.split("+")
    if not all(terms):
        raise malformed(text)
    return terms, repeats


def empty(got: object) -> BlockError:
    """Return the error for a word of no letters."""
    return BlockError.because(
        "a block needs a layer", got=repr(got), allowed="one layer or more", remedy=EXAMPLE
    )


def place_widths(
    mixing: Sequence[bool], c_in: Width, c_out: Width, inner: Width | tuple[Width, ...] | None
) -> list[tuple[Width, Width]]:
    """Return the (input, output) width of every layer of one copy of a block.

    Only channel-mixing layers change the width: the last one; with an `inner` (bottleneck) width
    the first and the last one; with a sequence each of them, the last one to `c_out`.

    >>> place_widths([True, False, True], 16, 64, 4)
    [(16, 4), (4, 4), (4, 64)]
    >>> place_widths([True, True, True], 16, 64, (8, 32))
    [(16, 8), (8, 32), (32, 64)]

    Reference: [Fog] section 3.1.
    """
    spots = [place for place, mixes in enumerate(mixing) if mixes]
    if inner is not None and len(spots) < 2:
        raise BlockError.because(
            "a bottleneck needs two channel-mixing layers",
            got=len(spots),
            allowed="two or more",
            remedy="add one or drop the bottleneck",
        )
    if not spots and c_in != c_out:
        raise BlockError.because(
            "no layer can change the width",
            got=f"{c_in} to {c_out} channels without a channel-mixing layer",
            allowed="equal widths",
            remedy="add a channel-mixing layer such as PW",
        )
    changes = dict.fromkeys(spots[-1:], c_out)
    if isinstance(inner, tuple):
        if len(inner) != len(spots) - 1:
            raise BlockError.because(
                "wrong number of interior widths",
                got=len(inner),
                allowed=f"{len(spots) - 1}, one behind each channel-mixing layer but the last",
                remedy="name one width for each",
            )
        changes |= dict(zip(spots, inner, strict=False))
    elif inner is not None:
        changes[spots[0]] = inner
    widths, width = [], c_in
    for place in range(len(mixing)):
        widths.append((width, changes.get(place, width)))
        width = changes.get(place, width)
    return widths


@dataclass(frozen=True, slots=True)
class Composition:
    """A sequence of kinds, repeated: a block whose parameters are still open.

    >>> str(Composition.parse("dw + rpw + rpw")), len(Composition.parse("(DW+RPW)x2"))
    ('DW+RPW+RPW', 2)
    """

    kinds: tuple[str, ...]
    repeats: int = 1

    def __post_init__(self) -> None:
        if not self.kinds:
            raise empty("")
        object.__setattr__(self, "kinds", tuple(find_kind(kind).symbol for kind in self.kinds))
        object.__setattr__(self, "repeats", whole(self.repeats, "repeats"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the composition that the notation means."""
        terms, repeats = split_terms(text)
        for term in terms:
            if set("(),") & set(term):
                raise malformed(text, "KIND+KIND+..., without parameters")
        return cls(tuple(terms), repeats)

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def sort_key(self) -> tuple[int, tuple[int, ...], int]:
        """Canonical order: length, then the places of the kinds in the table."""
        return len(self), tuple(map(position, self.kinds)), self.repeats

    def chain(self, bottleneck: bool = False) -> tuple[tuple[ConvKind, dict[Any, Any]], ...]:
        """Return each layer's row and the symbols that its expressions take in this composition.

        Widths are C (in), F (out) and K (bottleneck); layers with groups are numbered from 1:
        g_1, w_1, s_1. Copies of a repeated composition share their symbols.
        """
        rows = [find_kind(kind) for kind in self.kinds]
        mixing = [row.mixing for row in rows]
        out = F if any(mixing) else C
        layers = []
        for copy in range(self.repeats):
            number = 0
            entry = C if copy == 0 else out
            widths = place_widths(mixing, entry, out, K if bottleneck else None)
            for row, (c_in, c_out) in zip(rows, widths, strict=True):
                number += row.takes_groups
                names = {
                    x: sympy.Symbol(f"{x}_{number}", integer=True, positive=True) for x in (g, w, s)
                }
                layers.append((row, {C_in: c_in, C_out: c_out} | names))
        return tuple(layers)

    def params_formula(self, bottleneck: bool = False, kernel: int | None = None) -> Any:
        """Return the parameters in the symbols C, F, K, k and g_1, g_2, ... (2-D kernels).

        >>> Composition.parse("DW+PW").params_formula(kernel=3)
        C*F + 9*C

        Reference: [Fog] section 2.
        """
        size = {d: sympy.Integer(2)} | ({} if kernel is None else {k: sympy.Integer(kernel)})
        return sympy.Add(
            *(row.params.xreplace(names | size) for row, names in self.chain(bottleneck))
        )

    def __str__(self) -> str:
        word = "+".join(self.kinds)
        return word if self.repeats == 1 else f"({word})x{self.repeats}"
