"""Parameters of [Fog] Tables 2 to 4: the formulas against built networks, the fit."""

from dataclasses import replace
from fractions import Fraction

import pytest

from experiments.reproduction import fog_tables
from experiments.reproduction.printed import UNITS
from ifspace.block import Block
from ifspace.stages.networks import fog


@pytest.mark.parametrize("unit", [row for row in UNITS if row.width <= 512])
@pytest.mark.parametrize("classifier", [False, True])
def test_formulas_count_as_the_built_network(unit, classifier):
    for opening in ("plain", "projection"):
        how = fog_tables.FogConvention(opening, classifier, True)
        side_way = opening == "projection"
        layout = fog(224, unit.block, unit.width, 3, unit.inner, side_way, classifier)
        # The program's network has a projection in its first stage too.
        first = (unit.width**2 + 2 * unit.width) * side_way
        counted = fog_tables.params(unit, 3, how) * 1e6
        assert counted == pytest.approx(layout.params - first, abs=0.5)


@pytest.mark.parametrize("unit", UNITS[:-1])
def test_formulas_count_as_the_built_unit(unit):
    assert fog_tables.illegal(unit) == []
    sized = Block.parse(unit.block).at(unit.width, 2 * unit.width, unit.inner)
    amounts = fog_tables.unit_amounts(unit.block, unit.width, 2 * unit.width, unit.inner)
    assert amounts == (sized.params, sum(layer.c_out for layer in sized.layers))


def test_joined_openings_by_hand():
    # CONV(3) at 64: per stage 9 C² to open, 9 F² for one unit more; C is 64, 64, 128, 256.
    how = fog_tables.FogConvention("joined", False, False)
    opens = sum(9 * c * c for c in (64, 64, 128, 256))
    more = sum(9 * f * f for f in (64, 128, 256, 512))
    unit = next(row for row in UNITS if row.block == "CONV(3)")
    assert fog_tables.params(unit, 2, how) * 1e6 == pytest.approx(27 * 64 + opens + more)


def test_the_unit_that_cannot_be_built():
    unit = UNITS[-1]
    assert fog_tables.illegal(unit) == ["1", "2"]
    assert fog_tables.illegal(replace(unit, inner=None)) == []
    # CK/M + 9K + KF/N with K = 175.
    expected = Fraction(700 * 175, 100) + 9 * 175 + Fraction(175 * 700, 2)
    assert fog_tables.unit_amounts(unit.block, 700, 700, unit.inner)[0] == expected


@pytest.mark.slow
def test_numbers_of_blocks_are_the_nearest_and_follow_printed_depths():
    best = min(map(fog_tables.fit, fog_tables.conventions()), key=lambda fitted: fitted.misfit)
    assert best.blocks[:6] == (8, 8, 16, 8, 8, 8)
    for place, unit in enumerate(UNITS):
        together = [
            n for n, row in enumerate(UNITS) if fog_tables.design(row) == fog_tables.design(unit)
        ]
        if unit.depth is None:
            assert len({best.blocks[n] for n in together}) == 1

            def total(blocks: int, rows: list[int] = together) -> float:
                how = best.convention
                return sum(fog_tables.misfit(UNITS[n], blocks, how) for n in rows)

            assert total(best.blocks[place]) <= min(map(total, range(1, 12)))


def test_standard_convolution_is_resnet_18_without_its_classifier():
    unit = next(row for row in UNITS if row.name == "ResNet")
    how = fog_tables.FogConvention("projection", False, True)
    assert (how, 4) in fog_tables.exact(unit)
    # torchvision's resnet18: 11,689,512 with 513,000 in the classifier and a stem of 7x7.
    stem = (49 - 9) * 3 * 64
    assert fog_tables.params(unit, 4, how) * 1e6 == 11_689_512 - 513_000 - stem
