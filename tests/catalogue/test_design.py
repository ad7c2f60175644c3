"""Designs: which one dominates which, and which have a published name."""

import random
from dataclasses import replace
from itertools import product

import pytest
from samples import DW_PW

from ifspace.block import Block, Composition, Layer
from ifspace.catalogue import Design, dominators, mark_dominated
from ifspace.catalogue.design import PUBLISHED, published_names
from ifspace.kinds import alphabet, find_kind

AMOUNTS = ("params", "macs_per_pixel", "activations_per_pixel", "layers")


def design(composition: str, **changes: int) -> Design:
    """A design of a composition, with two groups in each layer that takes them."""
    kinds, repeats = Composition.parse(composition).kinds, Composition.parse(composition).repeats
    layers = tuple(Layer(kind, 2 if find_kind(kind).takes_groups else None) for kind in kinds)
    block = Block(layers, repeats)
    return replace(DW_PW, composition=composition, block=block, **changes)


def random_designs(seed: int, number: int, most: int) -> list[Design]:
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
    """Compare every design with every other in canonical order."""

    def canonical(design: Design) -> tuple[int, list[int]]:
        kinds = design.composition.split("+")
        return len(kinds), [alphabet().index(kind) for kind in kinds]

    ordered = sorted(designs, key=canonical)
    names_of_first = []
    for design in designs:
        mine = [getattr(design, name) for name in AMOUNTS]
        names = [
            other.composition
            for other in ordered
            for theirs in [[getattr(other, name) for name in AMOUNTS]]
            if all(a <= b for a, b in zip(theirs, mine, strict=True)) and theirs != mine
        ]
        names_of_first.append(names[0] if names else None)
    return names_of_first


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("most", [2, 4, 50])
def test_the_first_dominator_in_canonical_order_is_named(seed: int, most: int) -> None:
    designs = random_designs(seed, 80, most)
    expected = by_definition(designs)
    assert dominators(designs) == expected
    assert None in expected
    assert any(expected)


def test_equal_amounts_do_not_dominate() -> None:
    twin = design("PW+DW")
    assert dominators([DW_PW, twin]) == [None, None]


def test_marking_keeps_the_order_and_all_else() -> None:
    designs = random_designs(1, 60, 4)
    marked = mark_dominated(designs)
    assert [replace(design, dominated_by=None) for design in marked] == designs
    assert [design.dominated_by for design in marked] == dominators(designs)
    assert mark_dominated(marked) == marked
    assert mark_dominated([]) == ()


def test_a_stale_mark_is_taken_away() -> None:
    assert mark_dominated([replace(DW_PW, dominated_by="PW")])[0].dominated_by is None


def test_copies_do_not_hide_the_kinds() -> None:
    better = design("(DW+PW)x2")
    worse = design("(PW+DW)x2", params=401)
    assert dominators([worse, better]) == ["(DW+PW)x2", None]


@pytest.mark.slow
def test_many_designs_of_few_costs_are_marked_as_few_designs_are() -> None:
    # Every design against every other would take hours.
    few = random_designs(3, 1200, 12)
    assert dominators(few * 250) == dominators(few) * 250


@pytest.mark.parametrize(
    ("composition", "repeats", "name"),
    [
        ("DW+PW", 1, "MobileNet"),
        ("DW+PW", 1, "Xception"),
        ("DW+PW", 2, "MobileNet (once)"),
        ("GC+SH+GPW", 2, "clcNet;"),
        ("GC+SH+GPW", 1, "clcNet (twice)"),
        ("GC+SH+GPW", 1, "Fog 3.2"),
        ("GPW+SH+DW+GPW", 2, "ShuffleNet;"),
        ("GPW+SH+DW+GPW", 1, "ShuffleNet (twice)"),
        ("(GPW+SH+DW+GPW)x2", 2, "ShuffleNet;"),
        ("PW+DW+PW", 1, "Fog 3.2"),
        ("DW+RPW", 1, "3DRF 4.2"),
        ("DW+SH+GPW", 1, "3DRF 4.2"),
    ],
)
def test_published_blocks_are_named(composition: str, repeats: int, name: str) -> None:
    assert name in f"{published_names(composition, repeats)};"


@pytest.mark.parametrize("composition", ["PW", "PW+DW", "DW+RPW+RPW", "DW+PW+DW+PW"])
def test_other_compositions_have_no_published_name(composition: str) -> None:
    assert published_names(composition) is None


def test_every_published_block_is_a_composition_with_a_source() -> None:
    for entry in PUBLISHED:
        assert str(Composition.parse(entry.composition)) == entry.composition
        assert entry.reference.startswith(("[3DRF]", "[Fog]"))
        assert entry.name in f"{published_names(entry.composition, entry.repeats)}"
