"""What a refusal says to a person: options instead of arguments, what is allowed, where to look."""

import re
from difflib import get_close_matches

import click

from ifspace.errors import IfspaceError


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
    named = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", found[0], text)
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
        names = sorted(name for name in names if name.startswith("--"))
        near = get_close_matches(error.option_name, names) or names
        return f"{error.message.rstrip('.')}; allowed: {', '.join(near)}; {remedy}"
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        return f"{_wrong_value(error)}; {remedy}"
    return f"{message}; allowed: {_allowed(error, context)}; {remedy}"


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
