"""What the commands share: options, amounts, and where an answer goes."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
# How the answer looks in each format; only the one that is asked for is made.
Forms = Mapping[str, Callable[[], str]]

NO_ANSWER: Final = 3
TIME_RAN_OUT: Final = 4
FORMATS: Final = ("table", "json", "csv", "markdown")
_SUFFIXES: Final = {".json": "json", ".csv": "csv", ".md": "markdown", ".tex": "latex"}


@dataclass(frozen=True, slots=True)
class Output:
    """Where the answer goes: format on stdout, file or None, whether to keep quiet."""

    format: str
    out: Path | None
    quiet: bool

    def note(self, text: str) -> None:
        """Tell the user something beside the answer, on stderr."""
        if not self.quiet:
            click.echo(f"ifspace: {text}", err=True)

    def print(self, forms: Forms) -> None:
        """Print the answer on stdout in the format asked for."""
        click.echo(forms[self.format](), nl=False)

    def emit(self, forms: Forms, *, keep: bool = True) -> None:
        """Write the answer to the file, if any, and print it; with --quiet a file is enough.

        With `keep` false no file is written: there is nothing to keep.

        Raises: OutputError for a suffix without a format, or a place that cannot be written.
        """
        form = None if self.out is None else _form_of(self.out, forms)
        if self.out is not None and form is not None and keep:
            from ifspace.storage import replacing

            text = forms[form]()
            with replacing(self.out) as file:
                file.write_text(text, encoding="utf-8")
        if self.out is None or not self.quiet:
            self.print(forms)


def _form_of(path: Path, forms: Forms) -> str:
    from ifspace.errors import OutputError

    form = _SUFFIXES.get(path.suffix.lower(), "")
    if form not in forms:
        raise OutputError.because(
            "unknown output format",
            got=path.name,
            allowed=", ".join(suffix for suffix, form in _SUFFIXES.items() if form in forms),
            remedy="end the name with one of them",
        )
    return form


def with_options(options: Iterable[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    """Add options to a command, in the order that its help shows them."""

    def add(command: Command) -> Command:
        for option in reversed(tuple(options)):
            command = option(command)
        return command

    return add


def shared_options(*more_formats: str) -> Callable[[Command], Command]:
    """Add the options that every command has; the command gets them as one `output`."""

    def add(function: Command) -> Command:
        @wraps(function)
        def command(*, format: str, out: Path | None, quiet: bool, **given: Any) -> Any:
            return function(output=Output(format, out, quiet), **given)

        choices = click.Choice([*FORMATS, *more_formats], case_sensitive=False)
        for option in (
            click.option(
                "--quiet", is_flag=True, help="No notes, no progress; with --out only the file."
            ),
            click.option(
                "--out",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Write a file too, in the format of its suffix.",
            ),
            click.option(
                "--format",
                type=choices,
                default="table",
                show_default=True,
                help="How the answer is printed.",
            ),
        ):
            command = option(command)
        return command  # type: ignore[return-value]

    return add


def amount(text: str) -> int:
    """Return a whole number that may end in k, M or G, exactly.

    >>> amount("5.1M"), amount("16k"), amount("1344")
    (5100000, 16000, 1344)
    """
    from ifspace import values as legal
    from ifspace.errors import SettingError

    try:
        return legal.amount(text)
    except SettingError:
        raise click.BadParameter(f"got {text!r}; allowed: {legal.AMOUNTS}") from None


def parts(text: str) -> tuple[str, ...]:
    """Return what stands between commas; the library says what each may be.

    >>> parts("PW, DW")
    ('PW', 'DW')
    """
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise click.BadParameter(f"got {text!r}; allowed: values between commas")
    return found


def block_list(text: str) -> tuple[str, ...]:
    """Return the blocks between commas; those inside parentheses belong to the block.

    >>> block_list("CONV, DW+RPW(8,1/2)")
    ('CONV', 'DW+RPW(8,1/2)')
    """
    blocks = tuple(part.strip() for part in re.split(r",(?![^()]*\))", text))
    if not all(blocks):
        raise click.BadParameter(f"got {text!r}; allowed: blocks between commas")
    return blocks


def widths(text: str) -> tuple[int, ...]:
    """Return the widths between commas, each once.

    >>> widths("16,64,16")
    (16, 64)
    """
    return tuple(dict.fromkeys(numbers(text)))


def numbers(text: str) -> tuple[int, ...]:
    """Return the whole numbers between commas, all of them.

    >>> numbers("16,64,16")
    (16, 64, 16)
    """
    found = parts(text)
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in found):
        raise click.BadParameter(f"got {text!r}; allowed: whole numbers such as 64 or 16,64")
    return tuple(map(int, found))


def ratio(text: str) -> Fraction:
    """Return a ratio, exactly.

    >>> ratio("1/4"), ratio("0.5"), ratio("2")
    (Fraction(1, 4), Fraction(1, 2), Fraction(2, 1))
    """
    packed = text.strip()
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|[0-9]{1,9}/0*[1-9][0-9]{0,8}", packed):
        raise click.BadParameter(f"got {text!r}; allowed: ratios such as 1/4, 0.5 or 2")
    return Fraction(packed)


def seconds(text: str) -> float:
    """Return a time in seconds, from 0.

    >>> seconds("0.5"), seconds("90")
    (0.5, 90.0)
    """
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip()):
        raise click.BadParameter(f"got {text!r}; allowed: seconds such as 0.5 or 90")
    return float(text)


def milliseconds(text: str) -> Fraction:
    """Return a time in milliseconds, exactly.

    >>> milliseconds("1.5")
    Fraction(3, 2)
    """
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip()):
        raise click.BadParameter(f"got {text!r}; allowed: milliseconds such as 1.5 or 20")
    return Fraction(text.strip())


def decimal(text: str) -> float:
    """Return a number from 0, written without an exponent.

    >>> decimal("0.5"), decimal("3")
    (0.5, 3.0)
    """
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip()):
        raise click.BadParameter(f"got {text!r}; allowed: numbers from 0 such as 0.5 or 3")
    return float(text)


# Options that several commands have, with one meaning; what they bound or stop is in their help.
alpha_option: Final = click.option(
    "--alpha",
    type=decimal,
    metavar="A",
    default="3",
    show_default=True,
    help="The decay of the gain.",
)


def top_option(help: str) -> Callable[[Command], Command]:
    """Return the option `--top`: how many plans, best first."""
    return click.option(
        "--top", type=click.IntRange(1), metavar="K", default=1, show_default=True, help=help
    )


def time_limit_option(help: str) -> Callable[[Command], Command]:
    """Return the option `--time-limit`, in seconds."""
    return click.option("--time-limit", type=seconds, metavar="SECONDS", help=help)


def latency_options(table: str, budget: str) -> tuple[Callable[[Command], Command], ...]:
    """Return the options `--latency` and `--latency-budget-ms` with their help texts."""
    return (
        click.option("--latency", type=click.Path(path_type=Path), metavar="TABLE.csv", help=table),
        click.option("--latency-budget-ms", type=milliseconds, metavar="MS", help=budget),
    )
