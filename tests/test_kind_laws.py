"""Laws that every row of `KINDS` must obey, and proof that a wrong row breaks them.

A kind is added as a row of `KINDS`; nothing else in the core, the enumeration, the search for group
counts or the commands names a kind. So the laws run over the table, on random legal layers.
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import brute_layers
import numpy as np
import pytest
import sympy
from brute_force import assert_same_designs
from brute_groups import least
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from witness import reach_by_sets

from ifspace import kinds
from ifspace.answer import Status
from ifspace.block import Block, Composition, Layer, SizedBlock, SizedLayer
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.infofield import coverage, fields, full_field_condition
from ifspace.kinds import KINDS, ORDERS, ConvKind, find_kind
from ifspace.reach import channel_field, channel_reach, field_after

WIDTHS = (6, 7, 8, 12, 16, 18, 24, 36)


@st.composite
def layers(draw: st.DrawFn, symbol: str, c_in: int, c_out: int) -> Layer:
    """A legal layer of a kind, with any group count, overlap, order and kernel size."""
    kind = find_kind(symbol)
    overlap = draw(st.fractions(0, Fraction(19, 20), max_denominator=20))
    orders = draw(st.sampled_from([(order,) for order in ORDERS]))
    choices = kind.choices(c_in, c_out, (overlap,), True, orders)
    # In blocked order no choice may be legal: more windows than filters at every group count.
    choices = choices or kind.choices(c_in, c_out, (overlap,), True)
    groups, overlap, order = draw(st.sampled_from(choices))
    kernel = draw(st.sampled_from([1, 3, 5])) if kind.spatial else None
    return Layer(symbol, groups, overlap, kernel, order)


@st.composite
def sized_layers(draw: st.DrawFn, symbol: str) -> SizedLayer:
    """A legal layer of a kind at random widths, in one or two dimensions."""
    c_in = draw(st.sampled_from(WIDTHS))
    c_out = draw(st.sampled_from(WIDTHS)) if find_kind(symbol).mixing else c_in
    return SizedLayer(draw(layers(symbol, c_in, c_out)), c_in, c_out, draw(st.sampled_from([1, 2])))


@st.composite
def blocks(draw: st.DrawFn, symbol: str) -> SizedBlock:
    """A block at equal widths of up to four layers that do not scatter, one of them of a kind."""
    channels = draw(st.sampled_from(WIDTHS))
    others = [row.symbol for row in KINDS.values() if not row.scatters]
    before, after = (draw(st.lists(st.sampled_from(others), max_size=2)) for _ in range(2))
    composition = [*before, symbol, *after[: 3 - len(before)]]
    block = Block(tuple(draw(layers(kind, channels, channels)) for kind in composition))
    return block.at(channels)


def flags_law(layer: SizedLayer) -> None:
    """The flags say what the expressions say."""
    row = layer.conv
    assert row.windowed == (row.fan_in == kinds.C_in / kinds.g)
    assert row.scatters == (row.coverage.func != kinds.U)
    assert row.dense == (row.fan_in == kinds.C_in)
    assert row.spatial == row.params.has(kinds.k)
    assert row.takes_overlap == row.coverage.has(kinds.s)
    orders = [find_kind(row.symbol).in_order(order) for order in ORDERS]
    assert row in orders
    assert (orders[0] != orders[1]) == row.takes_overlap
    assert row.coverage.has(kinds.P) == row.takes_overlap * (row == orders[1])
    assert row.takes_groups or not (row.fan_in + row.params + row.coverage).has(kinds.g)
    assert row.writes == (row.params != 0)


def reads_law(layer: SizedLayer) -> None:
    """An output reads fan-in different input channels."""
    reads = layer.reads()
    assert reads.shape == (layer.c_out, layer.fan_in)
    assert all(len({*row}) == layer.fan_in for row in reads.tolist())
    assert 0 <= reads.min() <= reads.max() < layer.c_in


def params_law(layer: SizedLayer) -> None:
    """A layer has a weight for every pixel and channel that an output reads."""
    weights = layer.c_out * layer.fan_in * layer.kernel**layer.dims
    assert layer.params == weights * layer.conv.writes


def reach_law(layer: SizedLayer) -> None:
    """The exact field by bitsets is the field by sets of channels, at any widths."""
    seen = [{n for n in range(layer.c_in) if row >> n & 1} for row in channel_reach((layer,))]
    assert seen == reach_by_sets((layer,))


def one_layer_law(layer: SizedLayer) -> None:
    """U(m) of one layer is how many channels its first m outputs read, at any widths."""
    reads = layer.reads()
    for count in range(1, layer.c_out + 1):
        assert coverage((layer,), count) == len(np.unique(reads[:count]))


def field_law(sized: SizedBlock) -> None:
    """At equal widths, where nothing scatters, the coverage function is the exact field."""
    assert fields(sized) == field_after(sized)
    union = 0
    for count, row in enumerate(channel_reach(sized.layers), start=1):
        union |= row
        assert coverage(sized.layers, count) == union.bit_count()


LAWS = (flags_law, reads_law, params_law, reach_law, one_layer_law, field_law)


def check(law: Callable[..., None], symbol: str, how: settings | None = None) -> None:
    """Check a law on random examples; the field law holds for kinds that do not scatter."""
    if law is field_law and find_kind(symbol).scatters:
        return
    examples = blocks(symbol) if law is field_law else sized_layers(symbol)
    (how or settings())(given(examples)(law))()


# To see a law fail, the smallest example that breaks it need not be searched for.
FIRST_FAILURE = settings(phases=[Phase.generate], report_multiple_bugs=False)


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("symbol", KINDS)
def test_every_row_obeys_the_laws(symbol: str, law: Callable[..., None]) -> None:
    check(law, symbol)


def _combs(c_in: int, c_out: int, groups: int, step: int) -> np.ndarray:
    first = np.arange(c_out, dtype=np.int32)[:, None] // (c_out // groups)
    return first + groups * np.arange(c_in // groups, dtype=np.int32)


# A group pointwise whose groups are combs: group i reads the channels i, i + g, i + 2 g, ...
INTERLEAVED = replace(
    KINDS["GPW"],
    symbol="IPW",
    title="interleaved pointwise",
    scatters=True,
    coverage=sympy.Min(
        kinds.C,
        kinds.U(1) * kinds.C_in / kinds.g * sympy.ceiling(kinds.m * kinds.g / kinds.C_out),
    ),
    reads=_combs,
    reference="a test",
)
# A plausible mistake: as many channels as a group pointwise reads, but not neighbouring ones.
WRONG = replace(INTERLEAVED, scatters=False, coverage=KINDS["GPW"].coverage)
# What RPW is to GPW, a rolling convolution is to GC.
ROLLING = replace(
    KINDS["RPW"],
    symbol="RC",
    title="rolling convolution",
    spatial=True,
    params=KINDS["RPW"].params * kinds.k**kinds.d,
    reference="a test",
)


def _combs_by_lists(c_in: int, c_out: int, groups: int, overlap: Fraction) -> list[list[int]]:
    return [list(range(j // (c_out // groups), c_in, groups)) for j in range(c_out)]


# The same kinds for the brute force, which does not read the library's table.
BRUTE = {
    "IPW": brute_layers.Kind(_combs_by_lists, grouped=True),
    "RC": replace(brute_layers.KINDS["RPW"], spatial=True),
}


@pytest.fixture
def add_kind(monkeypatch: pytest.MonkeyPatch) -> Callable[[ConvKind], None]:
    def add(row: ConvKind) -> None:
        monkeypatch.setitem(KINDS, row.symbol, row)
        monkeypatch.setitem(brute_layers.KINDS, row.symbol, BRUTE[row.symbol])

    return add


@pytest.mark.parametrize("row", [INTERLEAVED, ROLLING], ids=lambda row: row.symbol)
def test_a_new_kind_does_not_change_what_layers_of_other_rooms_are_made_of(
    row: ConvKind, add_kind: Callable[[ConvKind], None]
) -> None:
    """Shortcuts, traced rolling convolutions and shuffles keep their kinds."""
    questions = (
        kinds.dense_pointwise_kind,
        kinds.rolling_pointwise_kind,
        kinds.shuffle_kind,
        kinds.reference_kind,
    )
    before = [find().symbol for find in questions]
    add_kind(row)
    assert [find().symbol for find in questions] == before == ["PW", "RPW", "SH", "CONV"]


def problem(text: str) -> GroupsProblem:
    return GroupsProblem(Composition.parse(text), 16)


@pytest.mark.slow
def test_a_wrong_coverage_function_breaks_the_field_law(add_kind) -> None:
    add_kind(WRONG)
    for law in LAWS:
        if law is not field_law:
            check(law, "IPW")
    with pytest.raises(AssertionError, match="assert"):
        check(field_law, "IPW", FIRST_FAILURE)
    # What the laws are for: with this row an optimizer proves that no choice has the full field.
    assert channel_field(Block.parse("GPW(4)+IPW(4)").at(16).layers) == 16
    assert cheapest_groups(problem("DW+GPW+IPW")).status is Status.INFEASIBLE


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        (replace(INTERLEAVED, scatters=False), flags_law),
        (replace(INTERLEAVED, windowed=False), flags_law),
        (replace(INTERLEAVED, fan_in=kinds.C_in), reads_law),
        (replace(INTERLEAVED, params=kinds.C_in * kinds.C_out), params_law),
        (replace(INTERLEAVED, coverage=sympy.Min(kinds.C, kinds.m)), one_layer_law),
        (replace(ROLLING, coverage=KINDS["GC"].coverage, takes_overlap=False), field_law),
        (replace(ROLLING, blocked_coverage=ROLLING.coverage), one_layer_law),
        (replace(ROLLING, blocked_reads=ROLLING.reads), one_layer_law),
    ],
    ids=[
        "scatters",
        "windowed",
        "fan-in",
        "params",
        "coverage of a layer",
        "coverage of a chain",
        "blocked coverage",
        "blocked reads",
    ],
)
def test_each_mistake_breaks_a_law(add_kind, mistake: ConvKind, law: Callable[..., None]) -> None:
    add_kind(mistake)
    with pytest.raises(AssertionError, match="assert"):
        check(law, mistake.symbol, FIRST_FAILURE)


@pytest.mark.slow
@pytest.mark.parametrize("row", [INTERLEAVED, ROLLING], ids=lambda row: row.symbol)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_right_new_row_obeys_the_laws(add_kind, row: ConvKind, law: Callable) -> None:
    add_kind(row)
    check(law, row.symbol)


@pytest.mark.slow
@pytest.mark.parametrize("row", [INTERLEAVED, ROLLING], ids=lambda row: row.symbol)
def test_a_new_row_is_enumerated(add_kind, row: ConvKind) -> None:
    add_kind(row)
    setting = EnumerationSetting(channels=8, max_len=3)
    assert setting.kinds[-1] == row.symbol
    designs = enumerate_designs([setting], jobs=1).designs
    assert assert_same_designs(designs, setting) > 0
    assert any(row.symbol in design.composition for design in designs)


@pytest.mark.parametrize("text", ["DW+GPW+IPW", "IPW+DW+GPW", "GC+IPW", "DW+IPW+SH+RPW"])
def test_the_group_counts_of_a_new_row_are_the_cheapest(add_kind, text: str) -> None:
    add_kind(INTERLEAVED)
    answer, cheapest = cheapest_groups(problem(text)), least(problem(text))
    assert (answer.status is Status.OPTIMAL) == (cheapest is not None)
    assert [plan.objective() for plan in answer.plans] == [cheapest] * (cheapest is not None)


def test_a_new_row_is_shown(add_kind, run) -> None:
    add_kind(INTERLEAVED)
    shown = run("show", "DW+GPW(4)+IPW(4)", "-C", 16, "--format", "json").json
    assert (shown["field"], shown["quality"], shown["compact"]) == ([3, 16], True, True)
    assert shown["condition"] == "C <= w_1*w_2"
    assert run("kinds", "--format", "json").json[-1]["kind"] == "IPW"


def test_a_new_row_has_the_notation_and_the_formulas_of_its_flags(add_kind) -> None:
    add_kind(ROLLING)
    block = Block.parse("rc(4, 1/2, k=5) + rpw(2, 0)")
    assert str(block) == "RC(4,1/2,k=5)+RPW(2,0)"
    assert eval(repr(block)) == block
    assert kinds.alphabet()[-1] == "RC"
    sized = block.at(16)
    # w = 4, s = 2 under a window of 8: 4 + 7 x 2 channels, capped.
    assert fields(sized) == field_after(sized) == ((5, 4), (5, 16))
    assert sized.params == 25 * 16 * 4 + 16 * 8
    assert str(full_field_condition(Composition.parse("RC+RPW"))) == "C <= s_1*(w_2 - 1) + w_1"


def test_what_a_kind_of_combs_sees(add_kind) -> None:
    add_kind(INTERLEAVED)
    sized = Block.parse("GPW(4)+IPW(4)").at(16)
    # The four channels that an output reads lie in the four groups below.
    assert fields(sized) == field_after(sized) == ((1, 4), (1, 16))
    # Outputs of one group read one comb: a group of them sees nothing new.
    assert channel_field(Block.parse("IPW(4)+GPW(4)").at(16).layers) == 4
    assert str(full_field_condition(Composition.parse("GPW+IPW"))) == "C <= w_1*w_2"
