"""The alphabet in words and formulas: what a reader asks before reading a block."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy

from ifspace.kinds import KINDS


@dataclass(frozen=True, slots=True)
class KindDescription:
    """One kind of convolution with its formulas as text.

    `fan_in`: channels of the layer below that one output reads. `property`: the property function,
    U(m) of this layer in terms of U of the layer below. `params` and `macs` are those of a layer.
    """

    kind: str
    title: str
    fan_in: str
    property: str
    params: str
    macs: str
    reference: str


def describe_kinds(latex: bool = False) -> tuple[KindDescription, ...]:
    r"""Return all kinds in canonical order, their formulas as plain text or as LaTeX.

    >>> about = describe_kinds()[2]
    >>> about.kind, about.fan_in, about.property, about.params
    ('DW', '1', 'U(m)', 'C_in*k**d')
    >>> describe_kinds(latex=True)[3].fan_in
    '\\frac{C_{in}}{g}'

    Reference: [Fog] section 2, [3DRF] section 4.2, [IF] eq. 3; each row has its own.
    """
    text: Callable[[Any], str] = sympy.latex if latex else str
    return tuple(
        KindDescription(
            kind=symbol,
            title=row.title,
            fan_in=text(row.fan_in),
            property=text(row.coverage),
            params=text(row.params),
            macs=text(row.macs),
            reference=row.reference,
        )
        for symbol, row in KINDS.items()
    )
