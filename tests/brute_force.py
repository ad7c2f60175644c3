"""The enumeration by brute force: every composition, every choice of parameters, in turn.

Written from the definitions alone; nothing of the library is imported. `designs` takes anything
that has the attributes of a setting, `assert_same_designs` anything that has those of a design.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from itertools import combinations, product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from brute_layers import KINDS, Kind, Layer, Sight, enough_filters, meets, orders
from brute_layers import layer as layer_of


class Option(NamedTuple):
    """One choice for one layer of a composition.

    The layer in every copy, at the widths on which the rule decides and at the real ones; its
    parameters, MACs and activations in all copies; whether its windows overlap, and whether it has
    any (of a trivial choice those of the simpler kind count); and the kind without groups that it
    amounts to, if any.
    """

    layers: tuple[Layer, ...]
    real: tuple[Layer, ...]
    price: tuple[int, int, int]
    windows: tuple[int, int]
    plain: str | None


class Row(NamedTuple):
    block: str
    params: int
    macs: int
    activations: int
    irreducible: bool
    least_fan_in: int
    same_as: frozenset[str]


def repeated(kinds: tuple[str, ...]) -> bool:
    n = len(kinds)
    return any(kinds[:p] * (n // p) == kinds for p in range(1, n) if n % p == 0)


def holds_repeat(kinds: tuple[str, ...]) -> bool:
    parts = [(i, j) for i in range(len(kinds)) for j in range(i + 1, len(kinds))]
    return any(kinds[i:j] == kinds[j : 2 * j - i] for i, j in parts)


def kept(kinds: tuple[str, ...], patterns: str) -> bool:
    return not {"whole": repeated, "any": holds_repeat, "keep": lambda _: False}[patterns](kinds)


def _widths(kinds: tuple[str, ...], c_in: int, c_out: int, inner: int | None) -> Any:
    """(input, output) of every layer, None where there are too few mixing layers."""
    mixing = [index for index, kind in enumerate(kinds) if KINDS[kind].mixing]
    if len(mixing) < (2 if inner is not None else c_in != c_out):
        return None
    widths, now = [], c_in
    for index in range(len(kinds)):
        becomes = now
        if inner is not None and index == mixing[0]:
            becomes = inner
        if mixing and index == mixing[-1]:
            becomes = c_out
        widths.append((now, becomes))
        now = becomes
    return widths


class Problem:
    """A setting, decided by brute force."""

    def __init__(self, setting: Any) -> None:
        self.s = setting
        self.c = setting.channels
        self.f = setting.out_channels or setting.channels
        ratio = setting.bottleneck
        self.inner = None if ratio is None else int(ratio * self.f)
        self.side = setting.repeats * (setting.kernel - 1) + 1
        self.sight = Sight()
        # The choices for a layer are the same in many compositions.
        self._layer_options = cache(lambda *layer: list(self._options(*layer)))

    def options(self, kinds: tuple[str, ...], trivial: bool = False) -> list[list[Option]] | None:
        """The choices for every layer: non-trivial ones, or also those of a simpler kind."""
        copies = range(self.s.repeats)
        real = [_widths(kinds, self.f if n else self.c, self.f, self.inner) for n in copies]
        if None in real:
            return None
        plain_widths = self.inner is None
        decide = [[(self.c, self.c)] * len(kinds) if plain_widths else real[n] for n in copies]
        first_spatial = [KINDS[kind].spatial for kind in (*kinds, "CONV")].index(True)
        return [
            self._layer_options(
                kind,
                tuple(d[i] for d in decide),
                tuple(w[i] for w in real),
                i < first_spatial,
                trivial,
            )
            for i, kind in enumerate(kinds)
        ]

    def _options(
        self, kind: str, decide: Any, real: Any, ahead: bool, trivial: bool
    ) -> Iterator[Option]:
        row, everywhere = KINDS[kind], [*decide, *real]
        least = min(min(pair) for pair in everywhere)
        groups = range(1, least + 1) if row.grouped else [1]
        overlaps = sorted(self.s.overlaps) if row.rolling else [Fraction(0)]
        for g, o, order in product(groups, overlaps, orders(kind, self.s.rpw_order)):
            if any(c_in % g or c_out % g for c_in, c_out in everywhere):
                continue
            if not enough_filters(order, g, o, everywhere):
                continue
            plain = None
            if row.grouped and self._is_trivial(row, g, real):
                plain = self._plain(kind, g, o, order, everywhere)
                if not trivial or plain is None:
                    continue
            layers = tuple(layer_of(kind, g, o, *pair, order) for pair in decide)
            reals = tuple(layer_of(kind, g, o, *pair, order) for pair in real)
            # A trivial choice is a layer of the simpler kind: floors hold for that one.
            floored = reals
            if plain is not None:
                floored = tuple(layer_of(plain, 1, Fraction(0), *pair) for pair in real)
            if all(meets(self.s.floors, layer) for layer in floored):
                has_windows = row.rolling and plain is None
                windows = (int(has_windows and o > 0), int(has_windows))
                yield Option(layers, reals, self._price(row, reals, ahead), windows, plain)

    def _is_trivial(self, row: Kind, g: int, real: Any) -> bool:
        """Whether the layer changes nothing in some copy, or only copies channels in a bottleneck.

        At the real widths: where the rule decides, at width C, a choice may be an identity.
        """
        copies = self.inner is not None and row.mixing and any(g == a for a, _ in real)
        return copies or any(g == 1 or g == a == b for a, b in real)

    def _plain(self, kind: str, g: int, o: Fraction, order: str, everywhere: Any) -> str | None:
        for other, row in KINDS.items():
            alike = (row.spatial, row.written) == (KINDS[kind].spatial, KINDS[kind].written)
            fits = row.mixing or all(a == b for a, b in everywhere)
            if (
                not row.grouped
                and alike
                and fits
                and all(
                    layer_of(other, 1, Fraction(0), *pair).sets()
                    == layer_of(kind, g, o, *pair, order).sets()
                    for pair in everywhere
                )
            ):
                return other
        return None

    def _price(self, row: Kind, copies: tuple[Layer, ...], ahead: bool) -> tuple[int, int, int]:
        area = self.s.kernel**self.s.dims if row.spatial else 1
        params = macs = activations = 0
        for number, layer in enumerate(copies):
            # The stride sits on the first spatial layer of the first copy.
            pixels = self.s.stride**self.s.dims if ahead and number == 0 else 1
            weights = layer.fan_in * layer.c_out * area * row.written
            params += weights
            macs += weights * pixels
            activations += layer.c_out * pixels * row.written
        return params, macs, activations

    def field(self, chain: list[Layer]) -> tuple[int, int]:
        """(IF^w, IF^c) of a chain that begins at the block's input."""
        side = 1 + (self.s.kernel - 1) * [KINDS[layer.kind].spatial for layer in chain].count(True)
        if self.s.permutation == "free":
            seen = 1
            for layer in chain:
                seen = min(self.c, seen * layer.fan_in)
            return side, seen
        number = self.sight.start(self.c)
        for layer in chain:
            number = self.sight.after(number, layer)
        return side, self.sight.least[number]

    def reaches(self, chain: list[Layer]) -> bool:
        side, seen = self.field(chain)
        return side >= self.side and seen >= self.c

    def irreducible(self, chain: list[Layer]) -> bool:
        return self._needs_all(chain, [layer.keeps_width for layer in chain], None)

    def compact(self, chain: list[Layer]) -> bool:
        if self.s.compact == "subset":
            return self.irreducible(chain)
        # A shuffle, which is not written, is no kernel.
        shuffles_too = self.s.compact == "single"
        tested = [x.keeps_width and (shuffles_too or KINDS[x.kind].written) for x in chain]
        return self._needs_all(chain, tested, 1)

    def _needs_all(self, chain: list[Layer], tested: list[bool], most: int | None) -> bool:
        """Check that no set of 1 to `most` of the tested layers, or any, can be left out."""
        removable = [index for index, flag in enumerate(tested) if flag]
        return not any(
            self.reaches([layer for index, layer in enumerate(chain) if index not in removed])
            for count in range(1, 1 + (most or len(removable)))
            for removed in combinations(removable, count)
        )

    def survives_the_walk(self, chain: list[Layer]) -> bool:
        reference, before = (self.side, self.c), (1, 1)
        for index, layer in enumerate(chain):
            now = self.field(chain[: index + 1])
            if now[0] > reference[0]:
                return False
            # Reached before this layer is reached before the last one.
            if layer.keeps_width and (now == before or before == reference):
                return False
            before = now
        return before == reference

    def passes(self, choice: tuple[Option, ...]) -> bool:
        copies = range(self.s.repeats)
        if not self.reaches([option.real[n] for n in copies for option in choice]):
            return False
        chain = [option.layers[n] for n in copies for option in choice]
        if self.s.rule == "early-stop":
            return self.survives_the_walk(chain)
        return self.field(chain) == (self.side, self.c) and self.compact(chain)

    def cheapest_first(
        self, options: list[list[Option]]
    ) -> Iterator[tuple[tuple[int, ...], tuple[Option, ...]]]:
        """Every choice and its rank, the lowest first; choices of one rank in canonical order.

        The rank is the objective, then the other amounts, then how many layers have overlapping
        windows, and how many have windows: fewer are preferred. Each is a sum over the layers.
        """
        if not all(options):
            return
        ranks = np.zeros(6, dtype=np.int64)
        for layer in options:
            ranks = ranks[..., None, :] + np.array([self._rank(option) for option in layer])
        ranks = ranks.reshape(-1, 6)
        choices = list(product(*options))
        for index in np.lexsort(ranks.T[::-1]):  # a stable sort by the first column, then the next
            yield tuple(ranks[index].tolist()), choices[index]

    def _rank(self, option: Option) -> tuple[int, ...]:
        params, macs, activations = option.price
        objective = {"params": params, "macs": macs, "activations": activations}[self.s.objective]
        return objective, macs, activations, params, *option.windows

    @staticmethod
    def windows(choice: tuple[Option, ...]) -> tuple[int, ...]:
        """How many layers have overlapping windows, and how many windows."""
        return tuple(map(sum, zip(*[option.windows for option in choice], strict=True)))

    @staticmethod
    def price(choice: tuple[Option, ...]) -> tuple[int, ...]:
        return tuple(map(sum, zip(*[option.price for option in choice], strict=True)))

    def best(self, kinds: tuple[str, ...]) -> tuple[Option, ...] | None:
        """The first of the cheapest choices that pass."""
        options = self.options(kinds)
        if options is None:
            return None
        choices = (choice for _, choice in self.cheapest_first(options))
        return next(filter(self.passes, choices), None)

    def simpler(self, kinds: tuple[str, ...], best: tuple[Option, ...]) -> frozenset[str]:
        """The compositions that are cheapest when trivial group counts make it cheaper.

        Of these the ones with the fewest overlapping windows, then with the fewest windows.
        """
        amounts = tuple(map(sum, zip(*map(self._rank, best), strict=True)))[:4]
        least, names = None, set()
        for rank, choice in self.cheapest_first(self.options(kinds, trivial=True) or []):
            if rank[:4] >= amounts or (least is not None and rank > least):
                break
            if all(option.plain is None for option in choice):
                continue
            simpler = tuple(
                option.plain or kind for option, kind in zip(choice, kinds, strict=True)
            )
            # The simpler composition may not fit the widths: then it is no design here.
            if _widths(simpler, self.c, self.f, self.inner) and self.passes(choice):
                names.add(self.notation(simpler))
                least = rank
        return frozenset(names)

    def notation(self, terms: list[str] | tuple[str, ...]) -> str:
        text = "+".join(terms)
        return text if self.s.repeats == 1 else f"({text})x{self.s.repeats}"

    def block(self, choice: tuple[Option, ...]) -> str:
        return self.notation([self._term(option.layers[0]) for option in choice])

    def _term(self, layer: Layer) -> str:
        row, k = KINDS[layer.kind], self.s.kernel
        parts = [str(layer.groups)] * row.grouped + [str(layer.overlap)] * row.rolling
        parts += ["blocked"] * (layer.order == "blocked")
        if row.spatial and k != 3:
            parts.append(f"k={k}" if parts else str(k))
        return f"{layer.kind}({','.join(parts)})" if parts else layer.kind


def compositions(setting: Any, one_spatial: bool = True) -> Iterator[tuple[str, ...]]:
    """Every composition in canonical order; with `one_spatial` those with one spatial layer."""
    alphabet = [kind for kind in KINDS if kind in setting.kinds]
    for length in range(1, setting.max_len + 1):
        for kinds in product(alphabet, repeat=length):
            if not one_spatial or sum(KINDS[kind].spatial for kind in kinds) == 1:
                yield kinds


def designs(setting: Any, one_spatial: bool = True) -> dict[str, Row]:
    """Every survivor of the setting in canonical order, with its cheapest block."""
    problem, rows = Problem(setting), {}
    for kinds in compositions(setting, one_spatial):
        if not kept(kinds, setting.patterns):
            continue
        best = problem.best(kinds)
        if best is None:
            continue
        chain = [option.layers[n] for n in range(setting.repeats) for option in best]
        rows[problem.notation(kinds)] = Row(
            problem.block(best),
            *problem.price(best),
            problem.irreducible(chain),
            min(x.fan_in for it in best for x in it.real if KINDS[x.kind].mixing),
            problem.simpler(kinds, best),
        )
    return rows


def is_small(setting: Any, most: int) -> bool:
    """Return whether brute force enumerates at most so many choices, without those of `same_as`."""
    problem, count = Problem(setting), 0
    for kinds in compositions(setting):
        count += prod(map(len, problem.options(kinds) or [()]))
        if count > most:
            return False
    return True


def assert_same_designs(survivors: Iterable[Any], setting: Any) -> int:
    """Check the designs, their order, blocks and numbers; return the number of designs."""
    expected = designs(setting)
    got = {
        design.composition: Row(
            str(design.block),
            design.params,
            design.macs_per_pixel,
            design.activations_per_pixel,
            design.irreducible,
            design.least_fan_in,
            design.same_as,
        )
        for design in survivors
    }
    for composition in expected.keys() | got.keys():
        row = expected.get(composition)
        # Several simpler compositions may be equally cheap; one of them is to be named.
        if composition in got and row is not None:
            named = got[composition].same_as
            assert named in (row.same_as or {None}), (composition, named, row)
            row = row._replace(same_as=named)
        assert got.get(composition) == row, (composition, setting)
    assert list(got) == list(expected), "not in canonical order"
    return len(expected)
