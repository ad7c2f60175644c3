import pytest

from ifspace.report.table import amount, table


def test_a_table_is_the_same_in_every_form() -> None:
    made = table("Sizes", ["block", ">params"], [["PW", 4096], ["DW+PW", None]], "A note.")
    assert made.names == ("block", "params")
    assert made.right == (False, True)
    assert made.rows == (("PW", "4,096"), ("DW+PW", ""))
    lines = made.markdown().splitlines()
    assert lines[0] == "**Sizes**"
    assert lines[3] == "|:--------|---------:|"
    assert lines[4] == "| PW      |    4,096 |"
    assert lines[-1] == "A note."


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.00012345, "0.000123"), (9.999, "10.0"), (123.4, "123"), (99.94, "99.9")],
)
def test_three_digits_count(value: float, said: str) -> None:
    assert amount(value) == said
