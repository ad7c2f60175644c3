import itertools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from witness import GRID, channels_read, divisors

from ifspace import kinds
from ifspace.block import Layer, SizedLayer
from ifspace.errors import BlockError, IfspaceError
from ifspace.kinds import BLOCKED, KINDS, ORDERS, ROLLING, find_kind, step
from ifspace.values import parse_overlap, parse_ratio

WIDTHS = [(12, 12), (16, 16), (24, 24), (12, 24), (24, 12), (16, 4), (7, 7)]


def sized_layers(symbol: str) -> list[SizedLayer]:
    """Every legal layer of a kind at the widths above, trivial groups included."""
    row = KINDS[symbol]
    return [
        SizedLayer(Layer(symbol, groups, overlap, order=order), c_in, c_out)
        for c_in, c_out in WIDTHS
        if row.mixing or c_in == c_out
        for groups, overlap, order in row.choices(c_in, c_out, GRID, True, ORDERS)
    ]


@pytest.mark.parametrize("symbol", KINDS)
def test_reads_are_the_channels_of_the_definition(symbol: str) -> None:
    layers = sized_layers(symbol)
    assert layers
    for layer in layers:
        reads = layer.reads()
        assert reads.dtype == np.int32
        assert reads.tolist() == channels_read(layer)
        assert reads.shape == (layer.c_out, layer.fan_in)


@pytest.mark.slow
@pytest.mark.parametrize("symbol", KINDS)
def test_integer_functions_agree_with_sympy(symbol: str) -> None:
    row = KINDS[symbol]
    for layer in sized_layers(symbol):
        values = {
            kinds.C: layer.c_in,
            kinds.C_in: layer.c_in,
            kinds.C_out: layer.c_out,
            kinds.g: layer.groups,
            kinds.w: layer.fan_in,
            kinds.s: layer.step,
            kinds.P: layer.windows,
            kinds.k: 3,
        }
        assert row.fan_in_at(layer.c_in, layer.groups) == row.fan_in.subs(values)
        for dims in (1, 2):
            params = row.params_at(layer.c_in, layer.c_out, layer.groups, 3, dims)
            assert params == row.params.subs(values | {kinds.d: dims})
        for count in (1, 2, layer.c_out // 2 + 1, layer.c_out):
            got = row.coverage_at(
                lambda n: 2 * n + 1,
                count,
                channels=layer.c_in,
                c_in=layer.c_in,
                c_out=layer.c_out,
                groups=layer.groups,
                step=layer.step,
            )
            exact = row.coverage.subs(values | {kinds.m: count})
            assert got == exact.replace(kinds.U, lambda n: 2 * n + 1)
            assert type(got) is int


def test_macs_are_parameters_times_pixels() -> None:
    assert KINDS["GC"].macs / KINDS["GC"].params == kinds.H_out * kinds.W_out
    assert KINDS["SH"].macs == 0


def test_integer_functions_are_exact_beyond_floats() -> None:
    wide = 2**60 + 2**3
    assert KINDS["PW"].params_at(wide, wide) == wide**2
    assert KINDS["GPW"].fan_in_at(wide, 8) == 2**57 + 1
    seen = []
    KINDS["SH"].coverage_at(
        lambda n: seen.append(n) or 0, wide, channels=wide, c_in=wide, c_out=wide, groups=8
    )
    assert sorted(seen) == [2**57 + 1, 2**57 + 2]


@pytest.mark.parametrize("symbol", KINDS)
def test_choices_are_the_legal_ones_in_canonical_order(symbol: str) -> None:
    row = KINDS[symbol]
    for c_in, c_out in WIDTHS:
        if not row.mixing and c_in != c_out:
            continue
        common = [n for n in divisors(c_in) if c_out % n == 0]
        inner = [n for n in common if n > 1 and not n == c_in == c_out]
        for trivial, counts in ((True, common), (False, inner)):
            choices = row.choices(c_in, c_out, GRID, trivial)
            if not row.takes_groups:
                assert choices == ((None, None, None),)
                continue
            assert sorted({groups for groups, _, _ in choices}) == counts
            assert list(choices) == sorted(choices, key=lambda it: (it[0], it[1] or 0))
            if not row.takes_overlap:
                assert {choice[1:] for choice in choices} <= {(None, None)}


def test_overlaps_of_one_step_are_one_choice_named_by_the_smallest() -> None:
    # w = 3: floor(0.33 x 3) = 0 is the step of no overlap, floor(3 / 2) = floor(3 / 3) = 1.
    grid = (Fraction(1, 2), Fraction(1, 3), Fraction(33, 100), Fraction(0))
    choices = KINDS["RPW"].choices(12, 12, grid)
    assert [o for groups, o, _ in choices if groups == 4] == [Fraction(0), Fraction(1, 3)]
    assert KINDS["RPW"].choices(12, 12, ()) == ()


@pytest.mark.parametrize(("c_in", "c_out"), [pair for pair in WIDTHS if math.gcd(*pair) > 1])
@pytest.mark.parametrize("orders", [(ROLLING,), (BLOCKED,), ORDERS], ids=str)
def test_choices_of_both_orders_are_the_distinct_legal_layers(c_in, c_out, orders) -> None:
    grid = [Fraction(n, 12) for n in range(12)]
    choices = KINDS["RPW"].choices(c_in, c_out, grid, True, orders)
    layers = [SizedLayer(Layer("RPW", g, o, None, order), c_in, c_out) for g, o, order in choices]
    assert layers == sorted(layers, key=lambda layer: layer.layer.sort_key)
    reads = [tuple(map(tuple, channels_read(layer))) for layer in layers]
    if orders == ORDERS:
        # No filter of one reads what that of another reads, unless they differ in steps.
        keys = [(layer.step, read) for layer, read in zip(layers, reads, strict=True)]
        assert len({*keys}) == len(keys)
    every = set()
    for g in divisors(math.gcd(c_in, c_out)):
        for o, order in itertools.product(grid, orders):
            w = c_in // g
            s = w - math.floor(o * w)
            windows = {tuple(sorted((p * s + t) % c_in for t in range(w))) for p in range(c_in)}
            # At w = C_in all windows hold the same channels, in another order of weights.
            count = len({p * s % c_in for p in range(c_in)})
            assert len(windows) in (1, count)
            if order == ROLLING or count <= c_out:
                legal = SizedLayer(Layer("RPW", g, o, None, order), c_in, c_out)
                every.add(tuple(map(tuple, channels_read(legal))))
            else:
                with pytest.raises(BlockError, match=f"more windows than filters: got {count} "):
                    SizedLayer(Layer("RPW", g, o, None, order), c_in, c_out)
    assert {*reads} == every


@pytest.mark.slow
@given(st.integers(1, 200), st.fractions(0, Fraction(99, 100), max_denominator=100))
def test_step_is_exact_and_at_least_one(width: int, overlap: Fraction) -> None:
    assert step(width, overlap) == width - math.floor(overlap * width) >= 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Fraction(0)),
        ("0.33", Fraction(33, 100)),
        (".5", Fraction(1, 2)),
        (" 1/3 ", Fraction(1, 3)),
        (0, Fraction(0)),
        (Fraction(2, 3), Fraction(2, 3)),
    ],
)
def test_overlap_is_read_exactly(text: str, value: Fraction) -> None:
    assert parse_overlap(text) == value


@pytest.mark.parametrize(
    "text", ["1", "1.0", "3/2", "-0.5", "x", "", "1/0", "nan", "1e-1", 0.5, -1]
)
def test_overlap_outside_its_range_raises(text: object) -> None:
    with pytest.raises(BlockError, match=r"^overlap out of range: got .*; allowed: 0 <= o < 1"):
        parse_overlap(text)


def test_unknown_kind_says_what_is_allowed() -> None:
    with pytest.raises(BlockError, match=r"unknown kind .* got 'QW'; allowed: PW, GC, .*CONV; "):
        find_kind("QW")
    assert issubclass(BlockError, IfspaceError)
    assert issubclass(BlockError, ValueError)


def test_alphabet_is_the_six_and_excludes_the_reference() -> None:
    assert kinds.alphabet() == ("PW", "GC", "DW", "GPW", "RPW", "SH")
    assert [kinds.position(symbol) for symbol in kinds.alphabet()] == list(range(6))
    assert KINDS["CONV"].reference_only


def test_rows_survive_pickling_for_other_processes() -> None:
    for row in KINDS.values():
        assert pickle.loads(pickle.dumps(row)) == row


def test_kinds_added_by_a_test_are_removed_after_it() -> None:
    assert list(KINDS) == [*kinds.alphabet(), "CONV"]


@pytest.mark.parametrize("text", ["1e999999999", "1" * 10, "1/" + "3" * 10, "1/0", "-1/4", "", "x"])
def test_a_malformed_or_too_long_ratio_is_not_parsed(text: str) -> None:
    assert parse_ratio(text) is None


def test_a_ratio_is_exact_or_none() -> None:
    assert parse_ratio(" 1/4 ") == parse_ratio("0.25") == parse_ratio(Fraction(1, 4))
    assert parse_ratio(2) == 2
    assert parse_ratio(0.25) is None
