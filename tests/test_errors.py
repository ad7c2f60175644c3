"""Messages of errors: one line, and not a long one."""

import pytest

from ifspace.errors import MAX_MESSAGE, SettingError


@pytest.mark.parametrize("length", [1, 100, 230, 500, 4000])
def test_a_message_repeats_no_more_than_fits(length: int) -> None:
    error = SettingError.because(
        "a fact", got="g" * length, allowed="a" * length, remedy="and a remedy"
    )
    assert len(str(error)) <= MAX_MESSAGE
    assert str(error).startswith("a fact: got g")
    assert str(error).endswith("; and a remedy")
    assert ("characters)" in str(error)) == (length > 100)
