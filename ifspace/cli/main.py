"""`ifspace`: the group of commands, and the exit status of every run."""

import atexit
import errno
import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module, metadata
from io import TextIOBase
from typing import Final, NoReturn

import click

from ifspace.cli.messages import in_options, say, usage_text
from ifspace.errors import DeviceError, IfspaceError, WorkerError

# In the order of the work: each command and its module, whose `command` it is unless one is named.
COMMANDS: Final = {
    "kinds": "ifspace.show.command:kinds_command",
    "show": "ifspace.show.command:show_command",
    "enumerate": "ifspace.enumerate.command",
    "merge": "ifspace.enumerate.merge_command",
    "best": "ifspace.catalogue.command",
    "groups": "ifspace.groups.command",
    "energy": "ifspace.energy.command",
    "organize": "ifspace.stages.command:organize_command",
    "layout": "ifspace.stages.command:layout_command",
    "analyze": "ifspace.models.analyze_command",
    "optimize": "ifspace.models.optimize_command",
    "score": "ifspace.scores.command:score_command",
    "validate": "ifspace.scores.command:validate_command",
    "bench": "ifspace.bench.command",
    "report": "ifspace.report.command",
}

DONE, WORKER_LOST, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
# New objects, and collections of the two younger generations, before garbage is looked for.
GARBAGE: Final = (100_000, 20, 50)


class _Commands(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), function or "command")
        return command


def _version() -> str:
    try:
        return metadata.version("ifspace")
    except metadata.PackageNotFoundError:
        return "(not installed)"


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, help="Print the version and stop.")
@click.pass_context
def cli(context: click.Context, version: bool) -> None:
    """Convolution blocks by their information field: list them all, find the cheapest.

    A block is a sequence of layers of six kinds, such as DW+RPW(8,0)+RPW(8,0).
    """
    if version:
        click.echo(f"ifspace {_version()}")
        context.exit(DONE)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(
    arguments: Sequence[str] | None = None, program: click.Command = cli, name: str = "ifspace"
) -> NoReturn:
    """Run a program and exit.

    The status is 0 done, 1 a worker process was killed, 2 bad input, 3 no answer, 4 no time, 130
    interrupted, 143 ended by SIGTERM. An error is one line on stderr. A closed pipe, as behind
    `head`, is no error.
    """
    if arguments is None:
        _hurry()
        signal.signal(signal.SIGTERM, _terminate)
    _replace_closed_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A drawing must not fail on a terminal that lacks a character.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    status = DONE
    context = click.Context(program, info_name=name)
    try:
        # Not `cli.main`: it would print usage beside the message and decide about broken pipes.
        with program.make_context(name, words) as context:
            program.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        status = stop.exit_code
        status = _flushed(status)
    except click.ClickException as error:
        status = _refuse(usage_text(error, _innermost(context)))
    except IfspaceError as error:
        status = _refuse(in_options(error, _innermost(context).command))
        if isinstance(error, WorkerError):
            status = WORKER_LOST
    except ImportError as error:
        broken = DeviceError.because(
            "a package that ifspace needs cannot be imported",
            got=str(error),
            allowed="those with which it was installed",
            remedy="install ifspace again",
        )
        status = _refuse(str(broken))
    except (KeyboardInterrupt, click.Abort) as stop:
        is_terminated = isinstance(stop, _Terminated)
        say("terminated" if is_terminated else "interrupted")
        status = TERMINATED if is_terminated else INTERRUPTED
        if arguments is None:
            _leave(status)
    except OSError as error:
        status = _broken(error)
    sys.exit(status)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler of jobs sends it: what is cleaned up after Ctrl-C is after this."""


def _terminate(number: int, frame: object) -> NoReturn:
    raise _Terminated


class _ClosedOutput(TextIOBase):
    """Stands for a stdout that was closed before the program started, as a daemon may leave it."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "stdout is closed")


def _replace_closed_streams() -> None:
    """Give a closed stdout or stderr something to stand for it.

    Python has None for them. Their file numbers are taken, so that no other file gets them.
    """
    if sys.stdout is None or sys.stderr is None:
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
    if sys.stdout is None:
        sys.stdout = _ClosedOutput()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the program runs


def _hurry() -> None:
    """Collect garbage less often, and not at the end of the process.

    The modules of torch are many objects: scanning them repeatedly takes a third of a run.
    """
    gc.set_threshold(*GARBAGE)
    atexit.register(gc.freeze)


def _leave(status: int) -> NoReturn:
    """End the process without waiting for its threads.

    Those of torch's compiler wait for workers that the interrupt has ended too, and never end.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)


def _flushed(status: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        return _broken(error)
    return status


def _innermost(context: click.Context) -> click.Context:
    """Return the context of the command that was asked for, or the group's."""
    name = context.invoked_subcommand
    command = cli.get_command(context, name) if name else None
    return click.Context(command, context, name) if command else context


def _refuse(message: str) -> int:
    say(" ".join(message.split()).rstrip("."))
    return BAD_INPUT


def _broken(error: OSError) -> int:
    if isinstance(sys.stdout, _ClosedOutput):
        return _refuse(f"cannot write the output: {error.strerror}; write it to a file with --out")
    # What is still buffered has nowhere to go; without this Python complains when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        return DONE
    return _refuse(f"cannot write the output: {error.strerror or error}")
