from collections.abc import Callable

import click
import pytest
from syrupy.assertion import SnapshotAssertion

from ifspace.cli.messages import in_options
from ifspace.errors import ARGUMENT, SettingError


@pytest.mark.parametrize(
    "line",
    [
        "--foo",
        "shwo",
        "show PW --kernal 3",
        "kinds --zzz",
        "layout --flops 370M",
        "layout --blokcs DW",
        "groups --timelimit 3",
        "show",
        "show PW",
        "show PW -C",
        "kinds extra",
        "kinds --format xml",
        "enumerate --limit -1",
        "best a.parquet --params 5.1",
    ],
)
def test_wrong_usage_says_what_is_allowed(
    run: Callable, snapshot: SnapshotAssertion, line: str
) -> None:
    ended = run(*line.split())
    ended.fails_with()
    assert ended.err == snapshot


def test_an_argument_of_the_library_is_the_option_of_the_command() -> None:
    @click.command
    @click.option("--max-len", "-m")
    def command() -> None: ...

    def message(fact: str, argument: str | None) -> str:
        remedy = f"raise {ARGUMENT}"
        error = SettingError.because(fact, got=0, allowed="1", remedy=remedy, argument=argument)
        return in_options(error, command)

    too_low = f"{ARGUMENT} too low"
    assert message(too_low, "max_len") == "--max-len too low: got 0; allowed: 1; raise --max-len"
    assert message(too_low, "repeats") == "repeats too low: got 0; allowed: 1; raise repeats"
    # What others say of an argument of theirs stays, as torch of its own input[1, 3, 8, 8].
    error = SettingError.because("too low", got="max_len 0", allowed=1, remedy="raise it")
    assert in_options(error, command) == str(error)
    error.argument = "max_len"
    assert in_options(error, command).startswith("--max-len: too low: got max_len 0")
