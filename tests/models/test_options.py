from ifspace.models.graph import TracedLayer
from ifspace.models.options import (
    layer_text,
    name_list,
)


def test_a_layer_is_written_as_in_a_block() -> None:
    def text(kind: str, groups: int, kernel: tuple[int, int] = (1, 1), **more: object) -> str:
        one = (1, 1)
        layer = TracedLayer("a", kind, 64, 64, groups, kernel, one, one, one, one, 0, 0, **more)
        return layer_text(layer)

    assert text("CONV", 1, (3, 3)) == "CONV"
    assert text("CONV", 1, (7, 7)) == "CONV(7)"
    assert text("CONV", 1, (4, 4)) == "CONV(4×4)"
    assert text("GC", 4, (5, 5)) == "GC(4,k=5)"
    assert text("DW", 64, (1, 3)) == "DW(1×3)"
    assert text("GPW", 4) == "GPW(4)"
    assert text("SH", 4) == "SH(4)"
    assert text("LINEAR", 1) == "LINEAR"


def test_many_names_are_cut() -> None:
    assert name_list([str(n) for n in range(8)]) == "0, 1, 2, 3, 4, 5 and 2 more"
    assert name_list([]) == ""
