import pytest

from ifspace.block import Composition
from ifspace.catalogue.design import (
    PUBLISHED,
    published_names,
)


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
def test_other_compositions_have_no_name(composition: str) -> None:
    assert published_names(composition) is None


def test_every_entry_is_a_composition_with_a_source() -> None:
    for entry in PUBLISHED:
        assert str(Composition.parse(entry.composition)) == entry.composition
        assert entry.reference.startswith(("[3DRF]", "[Fog]"))
        assert entry.name in f"{published_names(entry.composition, entry.repeats)}"
