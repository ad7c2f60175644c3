"""The kinds of convolution: a row of `KINDS` each, from which every number is derived.

A row holds flags and SymPy expressions in the symbols below. The integer functions (`fan_in_at`,
`params_at`, `coverage_at`) are compiled from these expressions, so no formula is written twice.
Adding a kind is adding a row here, and a module in `ifspace.nn.layers`: nothing else asks for a
kind by its symbol. `tests/test_kind_laws.py` checks every row.

The coverage function U(m) of a layer is the number of block-input channels that m consecutive
output channels, from channel 0, see together; a row says how a layer turns the U of the layer
below into its own. The argument is in `ifspace.infofield`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from math import gcd
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import sympy
from sympy.printing.pycode import PythonCodePrinter

from ifspace.errors import BlockError, SettingError

Reads = Callable[[int, int, int, int], npt.NDArray[np.int32]]
# Which window a filter of a layer with overlapping windows reads: filter j window j (rolling), or
# window floor(j P / C_out) of the P distinct ones, so that neighbours share a window (blocked).
ROLLING: Final = "rolling"
BLOCKED: Final = "blocked"
ORDERS: Final = (ROLLING, BLOCKED)
# Groups, overlap and order of a layer; None where its kind takes none.
Parameters = tuple[int | None, Fraction | None, str | None]


def _symbol(name: str) -> Any:
    return sympy.Symbol(name, integer=True, positive=True)


# Widths of a block: its input, its output, its bottleneck. Widths of a layer: C_in, C_out.
C, F, K = _symbol("C"), _symbol("F"), _symbol("K")
C_in, C_out = _symbol("C_in"), _symbol("C_out")
# Consecutive channels, groups, kernel size, spatial dimensions; RPW: width and step of a window,
# distinct windows.
m, g, k, d, w, s, P = (_symbol(name) for name in "mgkdwsP")
H_out, W_out = _symbol("H_out"), _symbol("W_out")
U = sympy.Function("U", integer=True, nonnegative=True)


class _IntegerPrinter(PythonCodePrinter):  # type: ignore[misc]
    """Python source in which every quotient is exact: `//`, never a float.

    Sound because the value of every sum, product, floor and ceiling of a row is a whole number at
    legal arguments (groups divide the widths they split).
    """

    def _quotient(self, expr: Any) -> tuple[str, str]:
        numerator, denominator = expr.as_numer_denom()
        return f"({self._print(numerator)})", f"({self._print(denominator)})"

    def _print_Mul(self, expr: Any) -> str:
        if expr.as_numer_denom()[1] == 1:
            return str(super()._print_Mul(expr))
        return "({}//{})".format(*self._quotient(expr))

    def _print_Add(self, expr: Any) -> str:
        if expr.as_numer_denom()[1] == 1:
            return str(super()._print_Add(expr))
        return "({}//{})".format(*self._quotient(expr))

    def _print_floor(self, expr: Any) -> str:
        return "({}//{})".format(*self._quotient(expr.args[0]))

    def _print_ceiling(self, expr: Any) -> str:
        return "(-(-{}//{}))".format(*self._quotient(expr.args[0]))


@cache
def _compiled(expr: Any, arguments: tuple[Any, ...]) -> Callable[..., int]:
    printer = _IntegerPrinter({"allow_unknown_functions": True, "fully_qualified_modules": False})
    function: Callable[..., int] = sympy.lambdify(arguments, expr, modules=[{}], printer=printer)
    return function


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvKind:
    """One kind of convolution: its symbol, what it reads and costs, and how it spreads the field.

    `fan_in`, `params` and `coverage` are SymPy expressions in the symbols of this module.
    `reads(c_in, c_out, groups, step)` returns the input channels that each output channel reads,
    [c_out, fan_in]. The flags are what the rest of the library asks a kind:

    - `spatial`: it reads k x k pixels, and can hold a stride.
    - `mixing`: it may change the number of channels.
    - `takes_groups`, `takes_overlap`: the parameters in its notation. Overlapping windows come in
      two orders: the row describes the rolling one, and `blocked_reads` and `blocked_coverage` take
      the place of `reads` and `coverage` in the blocked one (`in_order`).
    - `windowed`: its groups set its fan-in, w = C_in / g.
    - `scatters`: neighbouring outputs read channels that lie apart, so that its coverage is no
      U(n) of one count n. The coverage function is an estimate where such a kind occurs.
    - `writes`: it writes its output to memory; a shuffle is folded into an index.
    - `reference_only`: blocks are compared with it; an enumeration does not use it.

    >>> KINDS["GPW"].params, KINDS["GPW"].params_at(64, 128, groups=8)
    (C_in*C_out/g, 1024)
    """

    symbol: str
    title: str
    fan_in: Any
    params: Any
    coverage: Any
    reads: Reads
    reference: str
    spatial: bool = False
    mixing: bool = False
    takes_groups: bool = False
    takes_overlap: bool = False
    blocked_reads: Reads | None = None
    blocked_coverage: Any = None
    windowed: bool = False
    scatters: bool = False
    writes: bool = True
    reference_only: bool = False

    def __post_init__(self) -> None:
        for name in ("fan_in", "params", "coverage", "blocked_coverage"):
            object.__setattr__(self, name, sympy.sympify(getattr(self, name)))

    @property
    def dense(self) -> bool:
        """Whether every output channel reads every input channel."""
        return bool(self.fan_in == C_in)

    @property
    def macs(self) -> Any:
        """Multiply-accumulates of the layer: parameters x output height x output width."""
        return self.params * H_out * W_out

    def in_order(self, order: str | None) -> "ConvKind":
        """Return a row of the table in an order: `reads` and `coverage` differ, all else is equal.

        >>> KINDS["RPW"].in_order("blocked").coverage
        U(Min(C_in, s*floor(P*(m - 1)/C_out) + w))
        """
        if order != BLOCKED or self.blocked_reads is None:
            return self
        return _rewired(self, self.blocked_reads, self.blocked_coverage)

    def fan_in_at(self, c_in: int, groups: int = 1) -> int:
        """Return how many input channels one output channel reads."""
        return _compiled(self.fan_in, (C_in, g))(c_in, groups)

    def params_at(
        self, c_in: int, c_out: int, groups: int = 1, kernel: int = 1, dims: int = 2
    ) -> int:
        """Return the number of weights; no kind has a bias."""
        return _compiled(self.params, (C_in, C_out, g, k, d))(c_in, c_out, groups, kernel, dims)

    def coverage_at(
        self,
        below: Callable[[int], int],
        count: int,
        *,
        channels: int,
        c_in: int,
        c_out: int,
        groups: int = 1,
        step: int = 1,
    ) -> int:
        """Return U(count) of this layer, given U of the layer `below` and the block's input width.

        >>> KINDS["RPW"].coverage_at(lambda m: m, 2, channels=16, c_in=16, c_out=16, groups=4,
        ...                          step=2)
        6
        """
        compiled = _compiled(self.coverage, ("U", m, C, C_in, C_out, g, w, s, P))
        width, windows = self.fan_in_at(c_in, groups), distinct_windows(c_in, step)
        return compiled(below, count, channels, c_in, c_out, groups, width, step, windows)

    def group_counts(
        self, c_in: int, c_out: int, trivial: bool = False, *, may_copy: bool = True
    ) -> tuple[int | None, ...]:
        """Return the legal group counts of a layer c_in -> c_out, in ascending order.

        Groups divide both widths. Counts that change nothing, one group, and as many groups as
        channels in a layer that keeps its width, are included only if `trivial`. A layer that
        changes the width may have as many groups as it has inputs: GC is then a depthwise
        convolution with a multiplier. With a bottleneck `may_copy` is False and leaves that count
        out: nothing else would test whether such a layer does more than copy channels. None stands
        for a kind without groups.

        >>> KINDS["GPW"].group_counts(8, 12), KINDS["GPW"].group_counts(8, 8, trivial=True)
        ((2, 4), (1, 2, 4, 8))
        >>> KINDS["GC"].group_counts(8, 16), KINDS["GC"].group_counts(8, 16, may_copy=False)
        ((2, 4, 8), (2, 4))
        >>> KINDS["PW"].group_counts(8, 12)
        (None,)
        """
        if not self.takes_groups:
            return (None,)
        common = gcd(c_in, c_out)
        counts = (count for count in range(1, common + 1) if common % count == 0)
        most = c_in if self.mixing and may_copy and c_in != c_out else c_in - 1
        return tuple(count for count in counts if trivial or 1 < count <= most)

    def common_group_counts(
        self,
        width_pairs: Iterable[tuple[int, int]],
        also: Iterable[tuple[int, int]] = (),
        *,
        may_copy: bool = True,
    ) -> tuple[int | None, ...]:
        """Return the group counts that a layer may have between all pairs of widths at once.

        At each of `width_pairs`, those of the layer in every copy of its block, they are what
        `group_counts` allows; between the pairs of `also` they need only divide the widths: at
        F != C rules are decided at width C, where a legal count may be trivial.

        >>> KINDS["GC"].common_group_counts([(8, 16)], also=[(8, 8)])
        (2, 4, 8)
        >>> KINDS["GC"].common_group_counts([(8, 16), (16, 16)])
        (2, 4, 8)
        """
        counts = [set(self.group_counts(*pair, may_copy=may_copy)) for pair in width_pairs]
        counts += [set(self.group_counts(*pair, trivial=True)) for pair in also]
        return tuple(sorted(set.intersection(*counts), key=lambda count: count or 0))

    def choices(
        self,
        c_in: int,
        c_out: int,
        overlaps: Sequence[Fraction] = (),
        trivial: bool = False,
        orders: Sequence[str] = (ROLLING,),
        *,
        may_copy: bool = True,
    ) -> tuple[Parameters, ...]:
        """Return the legal (groups, overlap, order) of a layer c_in -> c_out, in canonical order.

        Group counts are those of `group_counts`. Overlaps that give the same step are one choice,
        the smallest of them; so are two orders in which every filter reads the same window.

        >>> KINDS["RPW"].choices(8, 8, (Fraction(0), Fraction(1, 2)))[:2]
        ((2, Fraction(0, 1), 'rolling'), (2, Fraction(1, 2), 'rolling'))
        >>> KINDS["RPW"].choices(8, 8, (Fraction(0),), orders=ORDERS)[:2]
        ((2, Fraction(0, 1), 'rolling'), (2, Fraction(0, 1), 'blocked'))
        """
        counts = self.group_counts(c_in, c_out, trivial, may_copy=may_copy)
        return self._choices(counts, ((c_in, c_out),), overlaps, orders)

    def common_choices(
        self,
        width_pairs: Iterable[tuple[int, int]],
        overlaps: Sequence[Fraction] | None = (),
        orders: Sequence[str] = (ROLLING,),
        *,
        also: Iterable[tuple[int, int]] = (),
        may_copy: bool = True,
    ) -> tuple[Parameters, ...]:
        """Return the (groups, overlap, order) that are legal at all pairs of widths, as `choices`.

        Group counts are those of `common_group_counts`. Choices are one if they are so at every
        pair of widths. With overlaps None there is a choice for every step from 1 to the window's
        width.
        """
        pairs, more = tuple(width_pairs), tuple(also)
        counts = self.common_group_counts(pairs, more, may_copy=may_copy)
        return self._choices(counts, pairs + more, overlaps, orders)

    def _choices(
        self,
        counts: Iterable[int | None],
        width_pairs: Sequence[tuple[int, int]],
        overlaps: Sequence[Fraction] | None,
        orders: Sequence[str],
    ) -> tuple[Parameters, ...]:
        if not self.takes_overlap:
            return tuple((count, None, None) for count in counts)
        choices: list[Parameters] = []
        for count in counts:
            fan_ins = [self.fan_in_at(c_in, count or 1) for c_in, _ in width_pairs]
            grid = set(overlaps or ())
            if overlaps is None:
                # The step of a window changes at the multiples of one over its width only.
                grid = {Fraction(shared, width) for width in {*fan_ins} for shared in range(width)}
            by_step: dict[tuple[int, ...], Fraction] = {}
            for overlap in sorted(grid):
                by_step.setdefault(tuple(step(width, overlap) for width in fan_ins), overlap)
            for by_pair, overlap in by_step.items():
                windows = [
                    (distinct_windows(c_in, moved), c_out)
                    for (c_in, c_out), moved in zip(width_pairs, by_pair, strict=True)
                ]
                if ROLLING in orders:
                    choices.append((count, overlap, ROLLING))
                # With a window for every filter, or one for all, the orders are the same.
                same = ROLLING in orders and all(n in (1, c_out) for n, c_out in windows)
                if BLOCKED in orders and not same and all(n <= c_out for n, c_out in windows):
                    choices.append((count, overlap, BLOCKED))
        return tuple(choices)


def step(width: int, overlap: Fraction) -> int:
    """Return how many channels the windows of RPW move on: w - floor(o w), at least 1.

    The overlap is exact: at w = 3 an overlap of 33/100 shares no channel and 1/3 shares one.

    >>> step(3, Fraction(33, 100)), step(3, Fraction(1, 3))
    (3, 2)

    Reference: [3DRF] section 4.2.
    """
    return width - overlap.numerator * width // overlap.denominator


def distinct_windows(c_in: int, step: int) -> int:
    """Return how many distinct windows RPW has: P = C_in / gcd(s, C_in), at any number of filters.

    >>> distinct_windows(64, 8), distinct_windows(64, 6)
    (8, 32)

    Reference: [3DRF] section 4.2.
    """
    return c_in // gcd(step, c_in)


@cache
def _rewired(row: ConvKind, reads: Reads, coverage: Any) -> ConvKind:
    return replace(row, reads=reads, coverage=coverage)


def _reads_all(c_in: int, c_out: int, groups: int, step: int) -> npt.NDArray[np.int32]:
    return np.broadcast_to(np.arange(c_in, dtype=np.int32), (c_out, c_in))


def _reads_own(c_in: int, c_out: int, groups: int, step: int) -> npt.NDArray[np.int32]:
    return np.arange(c_out, dtype=np.int32)[:, None]


def _reads_group(c_in: int, c_out: int, groups: int, step: int) -> npt.NDArray[np.int32]:
    members = np.arange(c_in, dtype=np.int32).reshape(groups, c_in // groups)
    return np.repeat(members, c_out // groups, axis=0)


def _reads_window(c_in: int, c_out: int, groups: int, step: int) -> npt.NDArray[np.int32]:
    return _windows(np.arange(c_out, dtype=np.int64), c_in, groups, step)


def _reads_shared_window(c_in: int, c_out: int, groups: int, step: int) -> npt.NDArray[np.int32]:
    filters = np.arange(c_out, dtype=np.int64)
    return _windows(filters * distinct_windows(c_in, step) // c_out, c_in, groups, step)


def _windows(
    numbers: npt.NDArray[np.int64], c_in: int, groups: int, step: int
) -> npt.NDArray[np.int32]:
    channels = numbers[:, None] * step + np.arange(c_in // groups)
    return np.asarray(channels % c_in, dtype=np.int32)


def _reads_shuffled(c_in: int, c_out: int, groups: int, step: int) -> npt.NDArray[np.int32]:
    return np.arange(c_in, dtype=np.int32).reshape(groups, c_in // groups).T.reshape(c_out, 1)


# m consecutive outputs of a grouped layer touch ceiling(m g / C_out) whole groups.
_GROUPED = U(sympy.Min(C_in, C_in / g * sympy.ceiling(m * g / C_out)))
# m consecutive outputs read m consecutive windows; each moves on s <= w channels, so their union is
# one run, with no gap, of w + (m - 1) s channels around the circle.
_ROLLED = U(sympy.Min(C_in, w + (m - 1) * s))
# In blocked order outputs a ... a + m - 1 read windows floor(a P / C_out) to
# floor((a + m - 1) P / C_out). P <= C_out, so none between is left out, and the union is one run.
# floor(x + y) >= floor(x) + floor(y): there are at least floor((m - 1) P / C_out) + 1 of them, and
# exactly so many from output 0. (Counted around the circle of outputs too: output C_out would read
# window P, whose start P s is a multiple of C_in: it is window 0.)
_BLOCKED = U(sympy.Min(C_in, w + sympy.floor((m - 1) * P / C_out) * s))
# m consecutive outputs of a shuffle read q or q + 1 consecutive channels of each of the g runs.
_Q, _R = sympy.floor(m / g), sympy.Mod(m, g)
_SHUFFLED = sympy.Min(C, _R * U(_Q + 1) + (g - _R) * U(_Q))

# In canonical order: the alphabet of the enumeration, then the reference convolution.
_ROWS: Final = (
    ConvKind(
        symbol="PW",
        title="pointwise",
        mixing=True,
        fan_in=C_in,
        params=C_in * C_out,
        coverage=U(C_in),
        reads=_reads_all,
        reference="[Fog] section 2.4",
    ),
    ConvKind(
        symbol="GC",
        title="group convolution",
        spatial=True,
        mixing=True,
        takes_groups=True,
        windowed=True,
        fan_in=C_in / g,
        params=k**d * C_in * C_out / g,
        coverage=_GROUPED,
        reads=_reads_group,
        reference="[Fog] section 2.2",
    ),
    ConvKind(
        symbol="DW",
        title="depthwise",
        spatial=True,
        fan_in=1,
        params=k**d * C_in,
        coverage=U(m),
        reads=_reads_own,
        reference="[Fog] section 2.3",
    ),
    ConvKind(
        symbol="GPW",
        title="group pointwise",
        mixing=True,
        takes_groups=True,
        windowed=True,
        fan_in=C_in / g,
        params=C_in * C_out / g,
        coverage=_GROUPED,
        reads=_reads_group,
        reference="[Fog] section 2.5",
    ),
    ConvKind(
        symbol="RPW",
        title="rolling pointwise",
        mixing=True,
        takes_groups=True,
        takes_overlap=True,
        windowed=True,
        fan_in=C_in / g,
        params=C_in * C_out / g,
        coverage=_ROLLED,
        reads=_reads_window,
        blocked_coverage=_BLOCKED,
        blocked_reads=_reads_shared_window,
        reference="[3DRF] section 4.2",
    ),
    ConvKind(
        symbol="SH",
        title="channel shuffle",
        takes_groups=True,
        scatters=True,
        writes=False,
        fan_in=1,
        params=0,
        coverage=_SHUFFLED,
        reads=_reads_shuffled,
        reference="[IF]; ShuffleNet",
    ),
    ConvKind(
        symbol="CONV",
        title="standard convolution",
        spatial=True,
        mixing=True,
        reference_only=True,
        fan_in=C_in,
        params=k**d * C_in * C_out,
        coverage=U(C_in),
        reads=_reads_all,
        reference="[Fog] section 2.1",
    ),
)
KINDS: Final[Mapping[str, ConvKind]] = {row.symbol: row for row in _ROWS}


def alphabet() -> tuple[str, ...]:
    """Return the symbols that an enumeration may use, in canonical order.

    >>> alphabet()
    ('PW', 'GC', 'DW', 'GPW', 'RPW', 'SH')
    """
    return tuple(symbol for symbol, row in KINDS.items() if not row.reference_only)


def reference_kind() -> ConvKind:
    """Return the standard convolution, which blocks are compared with.

    >>> reference_kind().symbol
    'CONV'
    """
    return next(row for row in KINDS.values() if row.reference_only)


# Four kinds that other rooms make layers of, by their properties: the first such row, so a kind
# that is added behind them changes nothing.
def dense_pointwise_kind() -> ConvKind:
    """Return the 1x1 convolution that reads every channel: shortcuts and dense layers are such.

    >>> dense_pointwise_kind().symbol
    'PW'
    """
    return next(row for row in KINDS.values() if row.mixing and row.dense and not row.spatial)


def rolling_pointwise_kind() -> ConvKind:
    """Return the 1x1 convolution of windows that overlap.

    >>> rolling_pointwise_kind().symbol
    'RPW'
    """
    return next(row for row in KINDS.values() if row.takes_overlap and not row.spatial)


def grouped_pointwise_kind() -> ConvKind:
    """Return the 1x1 convolution of groups that share no channel.

    >>> grouped_pointwise_kind().symbol
    'GPW'
    """
    rows = (row for row in KINDS.values() if row.windowed and not row.spatial)
    return next(row for row in rows if not row.takes_overlap)


def shuffle_kind() -> ConvKind:
    """Return the permutation of channels between groups, which has no weights.

    >>> shuffle_kind().symbol
    'SH'
    """
    return next(row for row in KINDS.values() if row.takes_groups and not row.writes)


def find_kind(symbol: str) -> ConvKind:
    """Return the row of a kind, whatever the case of its symbol.

    >>> find_kind("rpw").title
    'rolling pointwise'

    Raises: BlockError for a symbol that is not in the table.
    """
    row = KINDS.get(symbol)
    if row is None:
        row = next((row for key, row in KINDS.items() if key.lower() == symbol.lower()), None)
    if row is None:
        raise BlockError.because(
            "unknown kind of convolution",
            got=repr(symbol),
            allowed=", ".join(KINDS),
            remedy="`ifspace kinds` explains each",
        )
    return row


@cache
def kind_at_most_groups(symbol: str) -> str | None:
    """Return the kind without groups that a kind is with as many groups as channels, if there is.

    Decided by fan-in and parameters at equal widths.

    >>> kind_at_most_groups("GC"), kind_at_most_groups("GPW"), kind_at_most_groups("PW")
    ('DW', None, None)
    """
    row = find_kind(symbol)
    if not row.takes_groups:
        return None
    equal = {g: C_in, C_out: C_in}

    def costs(kind: ConvKind) -> tuple[Any, Any]:
        return kind.fan_in.xreplace(equal), kind.params.xreplace(equal)

    same = (
        other.symbol
        for other in KINDS.values()
        if not other.takes_groups and other.spatial == row.spatial and costs(other) == costs(row)
    )
    return next(same, None)


def position(symbol: str) -> int:
    """Return the index of a kind in the canonical order."""
    return list(KINDS).index(find_kind(symbol).symbol)


def ungrouped_kinds() -> tuple[str, ...]:
    """Return the kinds of the alphabet that take no groups: they exist at every width."""
    return tuple(kind for kind in alphabet() if not find_kind(kind).takes_groups)


def canonical_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds in the order of the table, each once; text is split at its commas.

    >>> canonical_kinds("dw, PW,DW")
    ('PW', 'DW')

    Raises: SettingError for an unknown kind, for the reference, and for none at all.
    """
    texts = kinds.split(",") if isinstance(kinds, str) else list(kinds)
    symbols = {symbol.upper(): symbol for symbol in alphabet()}
    unknown = [text for text in texts if text.strip().upper() not in symbols]
    reference = reference_kind().symbol
    if unknown and all(text.strip().upper() == reference for text in unknown):
        raise SettingError.because(
            "the reference that blocks are compared with, which no block of a catalogue has",
            got=", ".join(map(repr, unknown)),
            allowed=", ".join(symbols.values()),
            remedy="leave it out",
        )
    if unknown or not texts:
        raise SettingError.because(
            "unknown kind of convolution" if unknown else "no kind to enumerate",
            got=", ".join(map(repr, unknown)) or "none",
            allowed=", ".join(symbols.values()),
            remedy="`ifspace kinds` explains each",
        )
    return tuple(sorted({symbols[text.strip().upper()] for text in texts}, key=position))
