"""[Fog] Tables 2 to 4: the formulas against built networks, the search, the law, the fields."""

from dataclasses import replace
from fractions import Fraction

import pytest

from experiments.reproduction import fog_tables
from experiments.reproduction.fog_tables import FogConvention
from experiments.reproduction.page import Outcome
from experiments.reproduction.printed import UNITS, FogUnit
from ifspace.block import Block
from ifspace.stages.networks import fog


@pytest.mark.parametrize("unit", [row for row in UNITS if row.width <= 512])
@pytest.mark.parametrize("classifier", [False, True])
def test_formulas_count_as_the_built_network(unit, classifier):
    for opening in ("plain", "projection"):
        dense = "weights and biases" if classifier else "none"
        how = FogConvention(opening, dense, "batch norm")
        side_way = opening == "projection"
        layout = fog(224, unit.block, unit.width, 3, unit.inner, side_way, classifier)
        # The program's network has a projection in its first stage too.
        first = (unit.width**2 + 2 * unit.width) * side_way
        counted = fog_tables.params(unit, 3, how) * 1e6
        assert counted == pytest.approx(layout.params - first, abs=0.5)


@pytest.mark.parametrize("unit", UNITS[:-1])
def test_formulas_count_as_the_built_unit(unit):
    sized = Block.parse(unit.block).at(unit.width, 2 * unit.width, unit.inner)
    interior = unit.inner and float(2 * unit.width * unit.inner)
    amounts = fog_tables.unit_amounts(unit.block, unit.width, 2 * unit.width, interior)
    assert amounts == (sized.params, sum(layer.c_out for layer in sized.layers))


def unit_of(block: str) -> FogUnit:
    return next(row for row in UNITS if row.block == block)


def test_openings_and_first_stages_by_hand():
    # CONV(3) at 64: per stage 9 C² to open, 9 F² for one unit more; C is 64, 64, 128, 256.
    opens = sum(9 * c * c for c in (64, 64, 128, 256))
    more = sum(9 * f * f for f in (64, 128, 256, 512))
    unit = unit_of("CONV(3)")
    joined = fog_tables.params(unit, 2, FogConvention("joined"))
    assert joined * 1e6 == pytest.approx(27 * 64 + opens + more)
    # Twice as wide from the first stage on: 64 to 128, then 128 to 256 and so on.
    wide = sum(9 * c * 2 * c for c in (64, 128, 256, 512))
    doubled = fog_tables.params(unit, 1, FogConvention(expansion=2))
    assert doubled * 1e6 == pytest.approx(27 * 64 + wide)


def test_interiors_are_shares_of_either_width():
    unit = unit_of("PW+DW+PW")
    half = FogConvention(interior="input", scale=Fraction(1, 2))
    c = unit.width
    # The first stage keeps its width; later openings read C and write 2C, the interior is C/8.
    total = 27 * c + (c // 8) * (c + 9 + c)
    for stage in range(1, 4):
        entry = c << stage - 1
        total += (entry // 8) * (entry + 9 + 2 * entry)
    assert fog_tables.params(unit, 1, half) * 1e6 == pytest.approx(total)


@pytest.mark.slow
def test_no_convention_explains_more_than_three_rows():
    assert len(fog_tables.conventions()) == 3_456
    assert len(fog_tables.distinct()) == 17
    assert fog_tables.adopted() is None
    best = fog_tables.best()
    assert len(best.rows) == 3
    for unit in fog_tables.distinct():
        own = fog_tables.params(unit, best.blocks_for(unit), best.convention)
        explained = fog_tables.network_key(unit) in best.rows
        assert explained == (abs(own - float(unit.params)) < 0.05)
    unit = unit_of("CONV(3)")
    alone = [
        how
        for how in fog_tables.conventions()
        if any(abs(fog_tables.params(unit, b, how) - 11.2) < 0.05 for b in range(1, 25))
    ]
    assert fog_tables.alone(unit) == len(alone) > 0


def test_the_law_of_table_2_explains_five_of_six_rows():
    law = fog_tables.best_law()
    assert (law.a, law.b, law.c) == pytest.approx((52_865, 472, -0.60), abs=0.5)
    assert law.without.width == 200
    assert len(law.explained) == 5
    for unit in law.explained:
        n = 2 if unit.depth == 194 else 1
        w, g = unit.width, fog_tables.groups(unit)
        by_hand = n * (52_865 * w + 472 * w * w / g) / 1e6 - 0.60
        assert by_hand == pytest.approx(float(unit.params), abs=0.05)


def test_one_row_of_table_2_contradicts_table_1():
    wide = next(unit for unit in UNITS if unit.table == 2 and unit.width == 512)
    # The narrowest interior that 64 groups allow is an eighth of the width.
    layout = fog(224, wide.block, 512, 8, Fraction(1, 8), projections=False)
    pointwise = sum(
        layer.params
        for stage in layout.stages
        for block in stage.blocks
        for layer in block.layers
        if layer.kernel == 1
    )
    assert fog_tables.least_pointwise(wide) * 1e6 == pytest.approx(pointwise)
    assert pointwise == pytest.approx(43.2e6, abs=0.05e6)
    others = [unit for unit in UNITS if unit.table == 2 and unit is not wide]
    assert all(fog_tables.least_pointwise(unit) < float(unit.params) for unit in others)


def test_fields_of_the_units():
    table = fog_tables.fields_table()
    assert [row[1] for row in table.rows] == [
        "6 of 6 units see all channels",
        "7 of 7 units see all channels",
        "6 of 7 units see all channels",
        "PWGConv(100)+DW+PWGConv(2)",
    ]
    assert table.verdicts[-1].outcome is Outcome.MISPRINT
    unit = UNITS[-1]
    assert fog_tables.full_field(unit) is None
    free = fog_tables.full_field(replace(unit, inner=None))
    assert free == ("GPW(100)+SH(70)+DW+GPW(2)", 700)
    grouped = next(row for row in UNITS if row.name == "GConv(100)+PWGConv(2)")
    assert fog_tables.full_field(grouped) == ("GC(100)+SH(100)+GPW(2)", 200)
