"""Amounts: whole numbers, or text that may end in k, M or G."""

import pytest

from ifspace.errors import SettingError
from ifspace.values import amount


@pytest.mark.parametrize(
    ("given", "value"), [(17, 17), ("17", 17), ("16k", 16_000), (" 5.1M ", 5_100_000), ("0", 0)]
)
def test_amounts_are_exact(given: object, value: int) -> None:
    assert amount(given) == value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("5.1", "params is no amount: got '5.1'; allowed: whole numbers such as 16k, 5.1M, 1344"),
        ("-1", "params is no amount: got '-1'"),
        (-1, "params out of range: got -1; allowed: whole numbers from 0"),
        (1e6, "params out of range: got 1000000.0"),
        (None, "params out of range: got None"),
    ],
)
def test_others_are_refused_by_name(given: object, said: str) -> None:
    with pytest.raises(SettingError, match=said) as refused:
        amount(given, "params")
    assert refused.value.argument == "params"
    assert "\n" not in str(refused.value)
