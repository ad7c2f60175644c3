from collections.abc import Callable

import click
import pytest

from ifspace.cli.main import COMMANDS
from ifspace.cli.refusals import in_options
from ifspace.errors import SettingError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--foo"], "No such option '--foo'; see `ifspace --help`"),
        (
            ["shwo"],
            "No such command 'shwo'; allowed: " + ", ".join(COMMANDS) + "; see `ifspace --help`",
        ),
        (
            ["show", "PW", "--kernal", 3],
            "No such option '--kernal'; nearest: --kernel; see `ifspace show --help`",
        ),
        (["kinds", "--zzz"], "No such option '--zzz'; see `ifspace kinds --help`"),
        (["layout", "--flops", "370M"], "No such option '--flops'; see `ifspace layout --help`"),
        (
            ["layout", "--blokcs", "DW"],
            "No such option '--blokcs'; nearest: --blocks; see `ifspace layout --help`",
        ),
        (
            ["groups", "--timelimit", 3],
            "No such option '--timelimit'; nearest: --time-limit; see `ifspace groups --help`",
        ),
        (
            ["show"],
            "Missing argument 'BLOCK'; allowed: ifspace show [OPTIONS] BLOCK; see `ifspace show "
            "--help`",
        ),
        (
            ["show", "PW"],
            "Missing option '--channels' / '-C'; allowed: --channels N (Number of input "
            "channels C); see `ifspace show --help`",
        ),
        (
            ["show", "PW", "-C"],
            "Option '-C' requires an argument; allowed: --channels N (Number of input "
            "channels C); see `ifspace show --help`",
        ),
        (
            ["kinds", "extra"],
            "Got unexpected extra argument (extra); allowed: ifspace kinds [OPTIONS]; see `ifspace "
            "kinds --help`",
        ),
        (
            ["kinds", "--format", "xml"],
            "Invalid value for '--format': got 'xml'; allowed: table, json, csv, markdown, latex; "
            "see `ifspace kinds --help`",
        ),
        (
            ["enumerate", "--limit", -1],
            "Invalid value for '--limit': -1 is not in the range x>=0; allowed: whole "
            "numbers from 0; see `ifspace enumerate --help`",
        ),
        (
            ["best", "a.parquet", "--params", "5.1"],
            "Invalid value for '--params': got '5.1'; allowed: whole numbers such as 16k, 5.1M, "
            "1344; see `ifspace best --help`",
        ),
    ],
)
def test_wrong_usage_says_what_is_allowed(
    run: Callable, arguments: list[object], message: str
) -> None:
    ended = run(*arguments)
    ended.refused()
    assert ended.err == f"ifspace: {message}\n"


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
