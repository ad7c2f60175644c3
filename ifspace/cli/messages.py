"""Error messages of the command line: options for arguments, what is allowed, where to look."""

import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

import click

from ifspace.errors import IfspaceError

# A name is near from this share of common letters (difflib) on: one or two slips of the hand.
NEAR: Final = 0.75
_NAME: Final = "ifspace: "


def say(text: str) -> None:
    """Write a message or a note on stderr: folded to its terminal, elsewhere in one line."""
    from ifspace.table import folded  # which takes long to import, for most runs that say nothing

    click.echo("\n".join(folded(f"{_NAME}{text}", " " * len(_NAME), sys.stderr)), err=True)


def in_options(error: IfspaceError, command: click.Command) -> str:
    """Return the library's message with the option in place of the argument's name."""
    for option in command.params:
        if isinstance(option, click.Option) and option.name == error.argument:
            return error.naming(max(option.opts, key=len))
    return str(error)


def usage_text(error: click.ClickException, context: click.Context) -> str:
    """Return the parser's message with what is allowed instead, and where to read on.

    `context` is that of the command, for those errors that do not know where they happened.
    """
    message = error.format_message().rstrip(".")
    if not isinstance(error, click.UsageError):
        return message
    context = error.ctx or context
    remedy = f"see `{context.command_path} --help`"
    if isinstance(error, click.NoSuchOption):
        names = [name for param in context.command.get_params(context) for name in param.opts]
        near = _nearest(error.option_name, names)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        return f"{error.message.rstrip('.')}{hint}; {remedy}"
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        return f"{message}; {remedy}"  # our types say what is allowed
    return f"{message}; allowed: {_allowed(error, context)}; {remedy}"


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    """Return the long options that a mistyped one may have meant, nearest first.

    The dashes are left out: all names have them, and short ones would seem alike.

    >>> _nearest("--kernal", ["--kernel", "-C"]), _nearest("--flops", ["--top", "--jobs"])
    (['--kernel'], [])
    """
    bare = sorted(option[2:] for option in names if option.startswith("--"))
    return [f"--{match}" for match in get_close_matches(name.lstrip("-"), bare, cutoff=NEAR)]


def _allowed(error: click.ClickException, context: click.Context) -> str:
    if isinstance(context.command, click.Group):
        return ", ".join(context.command.list_commands(context))
    wrong = getattr(error, "param", None)
    name = getattr(error, "option_name", None)
    for option in context.command.get_params(context):
        if isinstance(option, click.Option) and (option is wrong or name in option.opts):
            form = max(option.opts, key=len)
            form += "" if option.is_flag else f" {option.make_metavar(context)}"
            return f"{form} ({(option.help or '').rstrip('.')})"
    return " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
