"""The compact rule at several equal copies of the block: halves of one copy, multiplied together.

The copies of a block share their parameters, so a sequence of r copies has the choices of one: the
halves that meet are those of one copy, and their pair is taken to the power r. Why nothing is lost:

* *Halves.* With upper half U and lower half L, bit matrices of what a layer's outputs read, a copy
  is M = U L, and r copies see everything when M^r is full. A copy without a layer is U' L or U L',
  with U' and L' the halves without it; the block is compact when no M^p (U' L) M^q and no
  M^p (U L') M^q with p + q = r - 1 is full. Outputs of U are read by L of the next copy, so that
  halves are equal only when their matrices are: minimal sets, as in `halves`, do not do.
* *Redundant halves.* If every output reads through U' all that it reads through U, then so it does
  through any product with U' for U: the layer can go whatever the rest is. So for L. The same
  argument drops neighbouring letters (`HalfSearch.can_be_needed`).
* *Cheapest first*, below limits that grow, as in `halves`.

A chain is tried from the sets that outputs of its last copy read, one after the other: each set
once, and none that contains another, and only until all channels are seen, so that no matrix of a
whole chain is computed. Most pairs see everything and still do so without a layer, mostly without
the one that the pair before could do without: that is tried first.

Left to `forward` are copies of different widths, sets of layers left out together, and fronts.
"""

from typing import Any

import numpy as np
from numba import int64, uint64

from ifspace.catalogue.setting import EnumerationSetting
from ifspace.compiled import compiled
from ifspace.enumerate.alphabet import Alphabet, Choice, Letters, Solution, tracks_of
from ifspace.enumerate.bits import BitRows, canonical, compose, lowest, pack
from ifspace.enumerate.families import Families, Pool
from ifspace.enumerate.forward import ExactAlgebra, ForwardSearch
from ifspace.enumerate.halves import HalfSearch
from ifspace.enumerate.states import States

_ONE = np.uint64(1)
_ZERO = np.uint64(0)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


class Matrices(Families):
    """The distinct matrices of halves of a copy, and what a further layer makes of them.

    An upper matrix has a row of middle channels to each output, a lower one a row of inputs to each
    middle channel.
    """

    by_rows = True

    def __init__(self, alphabet: Alphabet, upper: bool) -> None:
        """Start with no matrices."""
        super().__init__(alphabet, upper)
        self.pool = self.sets
        # The minimal sets among the rows of each upper matrix.
        self.minimal = Pool.empty()

    def identity(self, channels: int) -> int:
        """Return the matrix in which every channel sees itself."""
        return self._intern(pack(np.arange(channels, dtype=np.int32)[:, None], channels), channels)

    def _behind(self, sets: BitRows, relation: int) -> BitRows:
        layer = self._alphabet.relations[relation]
        behind: BitRows = compose(sets, layer) if self.upper else compose(layer, sets)
        return behind

    def _add(self, sets: BitRows, channels: int) -> None:
        self.sets.add(sets, sets.shape[1], 0)
        if self.upper:
            self.minimal.add(canonical(sets), sets.shape[1], 0)


class RepeatedSearch(HalfSearch):
    """The cheapest choice of letter sequences under the compact rule, at several equal copies."""

    families = Matrices

    def __init__(self, alphabet: Alphabet) -> None:
        """Prepare the search over the letters of an alphabet."""
        super().__init__(alphabet)
        uppers = self._upper.families
        assert isinstance(uppers, Matrices)
        self._ends = uppers.minimal
        self._forward = ForwardSearch(alphabet, ExactAlgebra(alphabet))

    @staticmethod
    def decides(setting: EnumerationSetting) -> bool:
        """Return whether the search is for the setting."""
        return (
            setting.repeats > 1
            and setting.rule == "compact"
            and setting.compact != "subset"
            and setting.permutation != "free"
            and len(tracks_of(setting).all) == 1
            and not (setting.front or setting.objective == "latency")
        )

    def irreducible(self, letters: Letters, choice: Choice) -> bool:
        """Return whether no copies with one or more layers left out see everything."""
        return self._forward.irreducible(letters, choice)

    def _enlarge_memo(self) -> None:
        """Keep no memo: a pair of matrices meets about once."""

    def _meet(self, high: States, low: States, limit: int) -> Solution | None:
        if not (len(high) and len(low)):
            return None
        cost, top, bottom = cheapest_power(
            self._ends.arrays(),
            self._upper.families.pool.arrays(),
            self._lower.families.pool.arrays(),
            high.arrays,
            low.arrays,
            self.alphabet.setting.channels,
            self.alphabet.setting.repeats,
            (self._failed, limit),
            self.tally,
        )
        if top < 0:
            return None
        return Solution(int(cost), low.choice(bottom) + high.choice(top))


@compiled(nogil=True)
def _seen(sets: Any, limbs: int, data: Any, origin: int, wide: int, last: Any, out: Any) -> None:
    """Write the union of the rows at `data[origin:]` of a set's members into `out`.

    last: the bits of a last limb that has all channels.
    """
    if wide == 1:
        union = _ZERO
        for k in range(limbs):
            x = sets[k]
            while x and union != last:
                union |= data[origin + k * 64 + lowest(x)]
                x &= x - _ONE
        out[0] = union
        return
    for q in range(wide):
        out[q] = _ZERO
    for k in range(limbs):
        x = sets[k]
        while x:
            row = origin + (k * 64 + lowest(x)) * wide
            x &= x - _ONE
            for q in range(wide):
                out[q] |= data[row + q]


@compiled(nogil=True)
def _is_full(
    copies: int, other: int, chain: Any, t: int, b: int, v: int, w: int, channels: int
) -> bool:
    """Return whether every output sees all inputs through the copies of a block.

    t, b: the halves of the copies; v, w: those of copy `other`, counted from the output.
    """
    (ends, ends_at, end_rows, _, _), (above, above_at, _, middle_limbs, _), lower, buffers = chain
    below, below_at, _, limbs, _ = lower
    sets, middle = buffers
    wide, narrow = limbs[b], middle_limbs[t]
    last = _ALL if channels & 63 == 0 else (_ONE << uint64(channels & 63)) - _ONE
    end = v if other == 0 else t
    for row in range(end_rows[end]):
        for q in range(narrow):
            middle[q] = ends[ends_at[end] + row * narrow + q]
        for copy in range(copies):
            if copy > 0:
                top = v if copy == other else t
                _seen(sets, wide, above, above_at[top], narrow, _ALL, middle)
            bottom = w if copy == other else b
            _seen(middle, narrow, below, below_at[bottom], wide, last, sets)
        for q in range(wide - 1):
            if sets[q] != _ALL:
                return False
        if sets[wide - 1] != last:
            return False
    return True


@compiled(nogil=True)
def _dispensable(
    copies: int, chain: Any, t: int, b: int, tops: Any, bottoms: Any, channels: int
) -> int:
    """Return the number of a variant that some copy can do with, or -1.

    Counted from 0: the upper variants in each copy, then the lower ones in each.
    """
    for copy in range(copies):
        for x in range(len(tops)):
            if _is_full(copies, copy, chain, t, b, tops[x], b, channels):
                return copy * len(tops) + x
    for copy in range(copies):
        for x in range(len(bottoms)):
            if _is_full(copies, copy, chain, t, b, t, bottoms[x], channels):
                return copies * len(tops) + copy * len(bottoms) + x
    return -1


@compiled(nogil=True)
def cheapest_power(
    ends: Any,
    upper: Any,
    lower: Any,
    tops: Any,
    bottoms: Any,
    channels: int,
    copies: int,
    costs: tuple[int, int],
    tally: Any,
) -> Any:
    """Return (cost, top, bottom) of the first cheapest pair that passes, or (-1, -1, -1).

    Arguments and order as those of `pairs.cheapest_pair`, the matrices in the place of families.
    costs: up to which all pairs fail; the largest of interest.
    `ends`: the minimal sets among the rows of the upper matrices.
    """
    t_cost, t_rank, t_must, t_from, t_not = tops
    b_cost, b_rank, b_must, b_from, b_not = bottoms
    buffers = np.empty(max(1, upper[3].max(), lower[3].max()), np.uint64)
    chain = ends, upper, lower, (buffers, buffers.copy())
    failed, limit = costs
    best, best_t, best_b = limit, int64(-1), int64(-1)
    for ti in range(len(t_cost)):
        if t_cost[ti] + b_cost[0] > best:
            break
        variants = t_not[t_from[ti] : t_from[ti + 1]]
        n, recent = len(variants), int64(0)
        for bi in range(len(b_cost)):
            cost = t_cost[ti] + b_cost[bi]
            if cost > best:
                break
            if cost <= failed:
                continue
            if cost == best and best_t >= 0:
                # Of equal cost: only a choice earlier in canonical order is of interest.
                if b_rank[bi] > b_rank[best_b]:
                    continue
                if b_rank[bi] == b_rank[best_b] and t_rank[ti] >= t_rank[best_t]:
                    continue
            tally[0] += 1
            t, b = t_must[ti, 0], b_must[bi, 0]
            if recent < copies * n and _is_full(
                copies, recent // n, chain, t, b, variants[recent % n], b, channels
            ):
                continue
            if not _is_full(copies, -1, chain, t, b, t, b, channels):
                continue
            others = b_not[b_from[bi] : b_from[bi + 1]]
            variant = _dispensable(copies, chain, t, b, variants, others, channels)
            if variant < 0:
                best, best_t, best_b = cost, int64(ti), int64(bi)
            elif variant < copies * n:
                recent = variant
    if best_t < 0:
        return int64(-1), int64(-1), int64(-1)
    return best, best_t, best_b
