"""Compiled set kernels against plain Python sets, at widths of one 64-bit limb and of several."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.enumerate.bits import (
    canonical,
    compose,
    covers,
    easier,
    largest_row,
    limbs,
    pack,
    smallest_row,
    subset,
    transpose,
)

Sets = list[frozenset[int]]
WIDTHS = st.sampled_from([1, 5, 8, 63, 64, 65, 127, 128, 130, 200])


def bits(sets: Sets, width: int) -> np.ndarray:
    rows = np.zeros((len(sets), -(-width // 64)), np.uint64)
    for row, members in enumerate(sets):
        for channel in members:
            rows[row, channel // 64] |= np.uint64(1 << channel % 64)
    return rows


def sets_of(rows: np.ndarray) -> Sets:
    ints = [int.from_bytes(row.astype("<u8").tobytes(), "little") for row in rows]
    return [frozenset(i for i in range(x.bit_length()) if x >> i & 1) for x in ints]


def minimal(sets: Sets) -> set[frozenset[int]]:
    return {members for members in sets if not any(other < members for other in sets)}


def sets_in(width: int, least: int = 1, most: int = 12) -> st.SearchStrategy[Sets]:
    # Few distinct channels, at both ends, so that sets meet and contain each other.
    ends = sorted({*range(min(4, width)), *range(max(0, width - 4), width), width // 2})
    members = st.frozensets(st.sampled_from(ends), max_size=6)
    return st.lists(members, min_size=least, max_size=most)


@st.composite
def families(draw: st.DrawFn, number: int = 1) -> tuple[int, ...]:
    width = draw(WIDTHS)
    return width, *(draw(sets_in(width)) for _ in range(number))


@given(families())
def test_canonical_keeps_each_minimal_set_once(case: tuple[int, Sets]) -> None:
    width, sets = case
    got = sets_of(canonical(bits(sets, width)))
    assert len(got) == len(set(got))
    assert set(got) == minimal(sets)


@given(families(), st.randoms(use_true_random=False))
def test_canonical_forgets_order_and_repetition(case: tuple[int, Sets], random: object) -> None:
    width, sets = case
    once = canonical(bits(sets, width))
    shuffled = sets * 2
    random.shuffle(shuffled)
    again = canonical(bits(shuffled, width))
    assert again.tobytes() == once.tobytes() == canonical(once).tobytes()


def test_canonical_of_all_orders_of_a_family_is_the_same_bytes() -> None:
    sets = [frozenset({0}), frozenset({1, 2}), frozenset({0, 1}), frozenset({70}), frozenset({1})]
    results = {canonical(bits(list(p), 80)).tobytes() for p in permutations(sets)}
    assert len(results) == 1


@given(families(2))
def test_easier_means_that_every_other_set_contains_one(case: tuple[int, Sets, Sets]) -> None:
    width, family, other = case
    expected = all(any(one <= members for one in family) for members in other)
    assert easier(bits(family, width), bits(other, width)) == expected


@given(families(2), families())
def test_a_set_that_covers_a_family_covers_every_easier_family(
    case: tuple[int, Sets, Sets], one: tuple[int, Sets]
) -> None:
    width, family, other = case
    hitting = one[1]
    if easier(bits(family, width), bits(other, width)):
        for test in hitting:
            assert not all(test & members for members in family) or all(
                test & members for members in other
            )


@given(families())
def test_rows_packed_turned_and_measured(case: tuple[int, Sets]) -> None:
    width, sets = case
    rows = bits(sets, width)
    turned = sets_of(transpose(rows, width))
    assert turned == [
        frozenset(r for r, members in enumerate(sets) if i in members) for i in range(width)
    ]
    assert np.array_equal(transpose(transpose(rows, width), len(sets)), rows)
    assert smallest_row(rows) == min(map(len, sets))
    assert largest_row(rows) == max(map(len, sets))
    assert limbs(width) == rows.shape[1]


@given(WIDTHS, st.integers(1, 5), st.data())
def test_a_table_of_reads_is_packed(width: int, fan_in: int, data: st.DataObject) -> None:
    reads = data.draw(
        st.lists(
            st.lists(st.integers(0, width - 1), min_size=fan_in, max_size=fan_in),
            min_size=1,
            max_size=6,
        )
    )
    packed = pack(np.array(reads, dtype=np.int32), width)
    assert packed.dtype == np.uint64
    assert sets_of(packed) == list(map(frozenset, reads))


@pytest.mark.slow
@given(WIDTHS, WIDTHS, st.data())
def test_compose_takes_unions(inner: int, width: int, data: st.DataObject) -> None:
    upper = data.draw(sets_in(inner))
    lower = data.draw(sets_in(width, inner, inner))
    got = sets_of(compose(bits(upper, inner), bits(lower, width)))
    assert got == [frozenset().union(*(lower[i] for i in row)) for row in upper]


@pytest.mark.slow
@given(WIDTHS, WIDTHS, st.data())
def test_compose_is_associative_and_turns_round(
    inner: int, width: int, data: st.DataObject
) -> None:
    top, upper = data.draw(sets_in(5)), data.draw(sets_in(inner, 5, 5))
    a, b = bits(top, 5), bits(upper, inner)
    c = bits(data.draw(sets_in(width, inner, inner)), width)
    assert np.array_equal(compose(a, compose(b, c)), compose(compose(a, b), c))
    turned = compose(transpose(c, width), transpose(b, inner))
    assert np.array_equal(transpose(compose(b, c), width), turned)


@given(families(2))
def test_subset_compares_row_by_row(case: tuple[int, Sets, Sets]) -> None:
    width, inner, outer = case
    rows = min(len(inner), len(outer))
    expected = all(a <= b for a, b in zip(inner[:rows], outer[:rows], strict=True))
    assert subset(bits(inner[:rows], width), bits(outer[:rows], width)) == expected
    both = [a | b for a, b in zip(inner[:rows], outer[:rows], strict=True)]
    assert subset(bits(inner[:rows], width), bits(both, width))


@pytest.mark.slow
@given(WIDTHS, WIDTHS, st.booleans(), st.data())
def test_covers_asks_whether_every_set_sees_every_column(
    inner: int, columns: int, plenty: bool, data: st.DataObject
) -> None:
    top = data.draw(sets_in(inner, 1, 4))
    rows = data.draw(sets_in(columns, inner, inner))
    if plenty:
        everything = frozenset(range(columns)) - data.draw(st.frozensets(st.just(columns - 1)))
        rows = [everything | row if i % 2 else row for i, row in enumerate(rows)]
    # In the midst of other data, as in a pool of many families.
    before = np.full(3, 0xFFFFFFFFFFFFFFFF, np.uint64)
    flat_top = np.concatenate([before, bits(top, inner).ravel(), before])
    flat_rows = np.concatenate([before, before, bits(rows, columns).ravel(), before])
    got = covers(flat_top, 3, len(top), -(-inner // 64), flat_rows, 6, columns)
    seen = [frozenset().union(*(rows[i] for i in members)) for members in top]
    assert got == all(len(columns_seen) == columns for columns_seen in seen)


@given(WIDTHS, st.data())
def test_one_missing_channel_is_seen_to_be_missing(width: int, data: st.DataObject) -> None:
    everything = frozenset(range(width))
    ends = sorted({0, width // 2, max(0, width - 2), width - 1})
    missing = data.draw(st.sampled_from(ends))
    top = bits([frozenset({0, 1}), frozenset({1})], 2).ravel()
    for rows in ([everything, everything - {missing}], [everything - {missing}, everything]):
        expected = rows[1] == everything
        assert covers(top, 0, 2, 1, bits(rows, width).ravel(), 0, width) == expected
