from ifspace.block import Block
from ifspace.show.drawing import SeenBy, drawing, who_sees_whom


def drawn(text: str, channels: int) -> list[str]:
    sized = Block.parse(text).at(channels)
    names = [str(layer.layer) for layer in sized.layers]
    return drawing(list(zip(names, who_sees_whom(sized), strict=True)), channels).splitlines()


def test_outputs_that_see_the_same_share_a_row() -> None:
    assert drawn("GPW(2)+SH(2)+PW", 6) == [
        "layer   outputs  sees  input channel 0 to 5",
        "GPW(2)  0-2         3  ███···",
        "        3-5         3  ···███",
        "SH(2)   0,2,4       3  ███···",
        "        1,3,5       3  ···███",
        "PW      0-5         6  ██████",
    ]


def test_many_rows_are_cut_and_the_last_is_kept() -> None:
    lines = drawn("DW", 12)
    assert len(lines) == 7
    assert lines[-2].split() == ["..."]
    assert lines[-1].split() == ["11", "1", "···········█"]


def test_wide_rows_share_columns_and_say_so() -> None:
    lines = drawn("GPW(3)", 96)
    assert lines[-1] == "one column stands for 2 channels: █ all, ▒ some of them seen"
    assert lines[1].endswith("█" * 16 + "·" * 32)
    # 100 channels in columns of three: the last column holds one channel.
    rows = drawing([("X", [SeenBy((0,), 1 << 99), SeenBy((1,), 0b1)])], 100).splitlines()
    assert rows[1].endswith("·" * 33 + "█")
    assert rows[2].endswith("▒" + "·" * 33)


def test_a_narrow_terminal_shares_columns_too() -> None:
    layer = ("GPW(2)", [SeenBy((0,), (1 << 20) - 1), SeenBy((1,), 1 << 39)])
    rows = drawing([layer], 40, width=60).splitlines()
    assert max(map(len, rows)) <= 60
    assert rows[1].endswith("█" * 10 + "·" * 10)
    assert drawing([layer], 40, width=80).splitlines()[1].endswith("█" * 20 + "·" * 20)
