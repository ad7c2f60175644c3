"""Amounts: whole numbers, or text that may end in k, M or G."""

import pytest

from ifspace.errors import SettingError
from ifspace.values import amount, whole_number


@pytest.mark.parametrize(
    ("argument", "value"), [(17, 17), ("17", 17), ("16k", 16_000), (" 5.1M ", 5_100_000), ("0", 0)]
)
def test_amounts_are_exact(argument: object, value: int) -> None:
    assert amount(argument) == value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "5.1",
            "params is no amount: got '5.1'; allowed: whole numbers above 0 such as 16k",
        ),
        ("-1", "params is no amount: got '-1'"),
        (-1, "params out of range: got -1; allowed: whole numbers from 0"),
        (1e6, "params out of range: got 1000000.0"),
        (None, "params out of range: got None"),
    ],
)
def test_other_values_are_an_error_that_names_the_argument(value: object, message: str) -> None:
    with pytest.raises(SettingError, match=message) as raised:
        amount(value, "params")
    assert raised.value.argument == "params"
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "value",
    [10**20, 10**5000, "9" * 5000, "x" * 5000],
    ids=["20 digits", "5000 digits", "text of digits", "text"],
)
def test_long_values_are_cut_in_messages(value: object) -> None:
    with pytest.raises(SettingError, match=r"count out of range: got ") as raised:
        whole_number(value, "count", 1, 9)
    assert len(str(raised.value)) < 400
    with pytest.raises(SettingError, match=r"amount (is no amount|out of range)") as raised:
        amount(f"-{value}" if isinstance(value, str) else -value)
    assert len(str(raised.value)) < 400
