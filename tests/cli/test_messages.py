from collections.abc import Callable

import click
import pytest
from syrupy.assertion import SnapshotAssertion

from ifspace.cli.messages import in_options
from ifspace.errors import SettingError


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

    def said(fact: str, argument: str | None) -> str:
        error = SettingError.because(
            fact, got=0, allowed="1", remedy="raise max_len", argument=argument
        )
        return in_options(error, command)

    assert said("max_len too low", "max_len").startswith("--max-len too low: got 0; allowed: 1; ")
    assert said("max_len too low", "max_len").endswith("raise --max-len")
    assert said("max_len too low", None).startswith("max_len too low")
    assert said("repeats too low", "repeats").startswith("repeats too low")
    error = SettingError.because("too low", got=0, allowed=1, remedy="raise it", argument="max_len")
    assert in_options(error, command).startswith("--max-len: too low: got 0")
