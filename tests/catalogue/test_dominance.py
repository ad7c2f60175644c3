import random
from dataclasses import replace
from itertools import product

import pytest
from samples import DW_PW

from ifspace.block import Block, Composition, Layer
from ifspace.catalogue import Design, dominators, mark_dominated
from ifspace.kinds import alphabet, find_kind

AMOUNTS = ("params", "macs_per_pixel", "activations_per_pixel", "layers")


def design(composition: str, **changes: int) -> Design:
    """A design of a composition, with two groups in each layer that takes them."""
    kinds, repeats = Composition.parse(composition).kinds, Composition.parse(composition).repeats
    layers = tuple(Layer(kind, 2 if find_kind(kind).takes_groups else None) for kind in kinds)
    block = Block(layers, repeats)
    return replace(DW_PW, composition=composition, block=block, **changes)


def rows(seed: int, number: int, most: int) -> list[Design]:
    """Random designs with few distinct amounts, each composition once, in random order."""
    draw = random.Random(seed)
    compositions = [
        kinds for length in (1, 2, 3, 4) for kinds in product(alphabet(), repeat=length)
    ]
    return [
        design(
            "+".join(kinds),
            params=draw.randint(1, most),
            macs_per_pixel=draw.randint(1, most),
            activations_per_pixel=draw.randint(1, most),
            layers=len(kinds),
        )
        for kinds in draw.sample(compositions, number)
    ]


def by_definition(designs: list[Design]) -> list[str | None]:
    """Compare every row with every other in canonical order."""

    def canonical(design: Design) -> tuple[int, list[int]]:
        kinds = design.composition.split("+")
        return len(kinds), [alphabet().index(kind) for kind in kinds]

    ordered = sorted(designs, key=canonical)
    found = []
    for design in designs:
        mine = [getattr(design, name) for name in AMOUNTS]
        names = [
            other.composition
            for other in ordered
            for theirs in [[getattr(other, name) for name in AMOUNTS]]
            if all(a <= b for a, b in zip(theirs, mine, strict=True)) and theirs != mine
        ]
        found.append(names[0] if names else None)
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("most", [2, 4, 50])
def test_the_first_dominator_in_canonical_order_is_named(seed: int, most: int) -> None:
    designs = rows(seed, 80, most)
    expected = by_definition(designs)
    assert dominators(designs) == expected
    assert None in expected
    assert any(expected)


def test_equal_amounts_do_not_dominate() -> None:
    twin = design("PW+DW")
    assert dominators([DW_PW, twin]) == [None, None]


def test_marking_keeps_the_order_and_all_else() -> None:
    designs = rows(1, 60, 4)
    marked = mark_dominated(designs)
    assert [replace(row, dominated_by=None) for row in marked] == designs
    assert [row.dominated_by for row in marked] == dominators(designs)
    assert mark_dominated(marked) == marked
    assert mark_dominated([]) == ()


def test_a_stale_mark_is_taken_away() -> None:
    assert mark_dominated([replace(DW_PW, dominated_by="PW")])[0].dominated_by is None


def test_copies_do_not_hide_the_kinds() -> None:
    better = design("(DW+PW)x2")
    worse = design("(PW+DW)x2", params=401)
    assert dominators([worse, better]) == ["(DW+PW)x2", None]


def test_many_rows_of_few_costs_are_marked_as_few_rows_are() -> None:
    # Every row against every other would take hours.
    few = rows(3, 1200, 12)
    assert dominators(few * 250) == dominators(few) * 250
