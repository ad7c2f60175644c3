import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
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


@pytest.mark.slow
@pytest.mark.parametrize("columns", [None, "64"])
def test_messages_are_folded_to_the_terminal_that_they_go_to(columns: str | None) -> None:
    # stdout goes to a file and stderr to a terminal, as in `ifspace best ... > best.txt`.
    # Given in full: readline sets COLUMNS where os.environ does not show it.
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    more = {} if columns is None else {"COLUMNS": columns}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
    arguments = [sys.executable, "-m", "ifspace", "show", "DW+PW", "-C", "0"]
    ended = subprocess.run(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        check=False,
        env=environment | more,
    )
    os.close(theirs)
    lines = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert (ended.returncode, len(lines) > 1) == (2, True)
    width = 50 if columns is None else int(columns)
    assert width - 12 < max(map(len, lines)) <= width
    assert lines[0].startswith("ifspace: ")
    assert all(line.startswith(" " * 9) and line[9] != " " for line in lines[1:])
    piped = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert piped.stderr.splitlines() == [" ".join(line.strip() for line in lines)]
