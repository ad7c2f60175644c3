"""What a refusal says to a person: options instead of arguments, what is allowed, where to look."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

import click

from ifspace.errors import IfspaceError

# A name is near from this share of common letters (difflib) on: one or two slips of the hand.
NEAR: Final = 0.75


def in_options(error: IfspaceError, command: click.Command) -> str:
    """Return the library's message with the option where it names the argument."""
    text = str(error)
    name = error.argument
    found = [
        max(each.opts, key=len)
        for each in command.params
        if isinstance(each, click.Option) and each.name == name
    ]
    if name is None or not found:
        return text
    # Not in what others say, as torch of its own input[1, 3, 8, 8].
    named = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w[-])", found[0], text)
    return named if named != text else f"{found[0]}: {text}"


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
        names = [name for each in context.command.get_params(context) for name in each.opts]
        near = _nearest(error.option_name, names)
        said = f"; nearest: {', '.join(near)}" if near else ""
        return f"{error.message.rstrip('.')}{said}; {remedy}"
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        return f"{_wrong_value(error)}; {remedy}"
    return f"{message}; allowed: {_allowed(error, context)}; {remedy}"


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    """Return the long options that a mistyped one may have meant, nearest first.

    The dashes are left out: all names have them, and short ones would seem alike.

    >>> _nearest("--kernal", ["--kernel", "-C"]), _nearest("--flops", ["--top", "--jobs"])
    (['--kernel'], [])
    """
    bare = sorted(each[2:] for each in names if each.startswith("--"))
    return [f"--{each}" for each in get_close_matches(name.lstrip("-"), bare, cutoff=NEAR)]


def _wrong_value(error: click.BadParameter) -> str:
    """Return the message for a value of the wrong kind; our own types say all of it themselves."""
    kind = None if error.param is None else error.param.type
    message = error.format_message().rstrip(".")
    if isinstance(kind, click.IntRange) and " in the range " in error.message:
        most = "" if kind.max is None else f" to {kind.max}"
        return f"{message}; allowed: whole numbers from {kind.min}{most}"
    said = re.fullmatch(r"(.+?) is not (?:one of|a valid) .*", error.message, re.DOTALL)
    if isinstance(kind, click.Choice):
        allowed = ", ".join(map(str, kind.choices))
    elif isinstance(kind, click.types.IntParamType):
        allowed = "whole numbers"
    else:
        return message
    if said is None:
        return message
    return message.replace(error.message.rstrip("."), f"got {said[1]}; allowed: {allowed}")


def _allowed(error: click.ClickException, context: click.Context) -> str:
    if isinstance(context.command, click.Group):
        return ", ".join(context.command.list_commands(context))
    param = getattr(error, "param", None)
    name = getattr(error, "option_name", None)
    for each in context.command.get_params(context):
        if isinstance(each, click.Option) and (each is param or name in each.opts):
            form = max(each.opts, key=len)
            form += "" if each.is_flag else f" {each.make_metavar(context)}"
            return f"{form} ({(each.help or '').rstrip('.')})"
    return " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
