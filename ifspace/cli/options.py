"""What the commands share: types of values, options, and where an answer goes."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ifspace.cli.messages import say
from ifspace.errors import shown
from ifspace.memory import BYTES
from ifspace.values import (
    AMOUNTS,
    SHARES,
    amount,
    amount_or_share,
    block_list,
    decimal,
    number_list,
    ratio_from_zero,
    ratio_or_share,
    text_list,
)

Command = TypeVar("Command", bound=Callable[..., Any])
# How the answer looks in each format; only the one that is asked for is made.
Forms = Mapping[str, Callable[[], str]]
# The same, as text or as pieces of it.
Pieces = Mapping[str, Callable[[], str | Iterable[str]]]

NO_ANSWER: Final = 3
TIME_RAN_OUT: Final = 4
# The arguments of `Floors`, which takes long to import.
FLOORS: Final = ("least_fan_in", "least_spatial_fan_in", "multiple", "most_groups")
FORMATS: Final = ("table", "json", "csv", "markdown")
_SUFFIXES: Final = {".json": "json", ".csv": "csv", ".md": "markdown", ".tex": "latex"}


class WholeNumber(click.IntRange):
    """A whole number in a range; without one, the library checks it.

    >>> WholeNumber(1, 2).convert("3", None, None)
    Traceback (most recent call last):
    click.exceptions.BadParameter: got '3'; allowed: whole numbers from 1 to 2
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value as an int."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            least = "" if self.min is None else f" from {self.min}"
            most = "" if self.max is None else f" to {self.max}"
            self.fail(f"got {shown(value)}; allowed: whole numbers{least}{most}", param, ctx)

    def _describe_range(self) -> str:
        """Return the range for the help; click writes `x<=None` where there is no bound."""
        return "" if self.min is None and self.max is None else super()._describe_range()


class OneOf(click.Choice[str]):
    """One of several words, whatever their case.

    >>> OneOf(["params", "macs"]).convert("flops", None, None)
    Traceback (most recent call last):
    click.exceptions.BadParameter: got 'flops'; allowed: params, macs
    """

    def __init__(self, choices: Iterable[str]) -> None:
        super().__init__(list(choices), case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word as it is listed."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"got {shown(value)}; allowed: {', '.join(self.choices)}", param, ctx)


class Parsed(click.ParamType[Any]):
    """Text that `parse` reads; for what it cannot read it raises ValueError with that part."""

    name = "text"

    def __init__(self, parse: Callable[[str], Any], allowed: str) -> None:
        self.parse, self.allowed = parse, allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the text means; a value that is no text has been read already."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            part = str(error) if type(error) is ValueError else value
            self.fail(f"got {shown(part)}; allowed: {self.allowed}", param, ctx)


INTEGER: Final = WholeNumber()
AMOUNT: Final = Parsed(amount, AMOUNTS)
AMOUNT_OR_SHARE: Final = Parsed(amount_or_share, f"{AMOUNTS}, {SHARES}")
LIST: Final = Parsed(text_list, "values between commas")
NUMBERS: Final = Parsed(number_list, "whole numbers above 0 such as 64 or 16,64")
WIDTHS: Final = Parsed(
    lambda text: tuple(dict.fromkeys(number_list(text))),
    "whole numbers above 0 such as 64 or 16,64",
)
BLOCKS: Final = Parsed(block_list, "blocks between commas")
RATIO: Final = Parsed(ratio_from_zero, "ratios above 0 such as 1/4, 0.5 or 2")
SECONDS: Final = Parsed(decimal, "seconds from 0 such as 0.5 or 90")
MILLISECONDS: Final = Parsed(ratio_from_zero, "milliseconds above 0 such as 1.5 or 20")
MILLISECONDS_OR_SHARE: Final = Parsed(
    ratio_or_share, f"milliseconds above 0 such as 1.5 or 20, {SHARES}"
)
DECIMAL: Final = Parsed(decimal, "numbers from 0 such as 0.5 or 3")


class File(click.Path):
    """A file or folder of this machine, as a Path.

    >>> File(path_type=Path).convert("s3://bucket/a.csv", None, None)
    Traceback (most recent call last):
    click.exceptions.BadParameter: got 's3://bucket/a.csv'; allowed: a file of this machine, no URL
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        # A Path of a URL would lose one of its slashes.
        if isinstance(value, str) and "://" in value:
            self.fail(f"got {shown(value)}; allowed: a file of this machine, no URL", param, ctx)
        return super().convert(value, param, ctx)


class Place(click.ParamType[Any]):
    """A file, as a Path; or a folder or URL, as text.

    A name without a suffix, or with a slash at its end, is a folder.

    >>> place = Place()
    >>> [place.convert(text, None, None) for text in ("runs/a", "s3://bucket/a", "v.2/")]
    ['runs/a', 's3://bucket/a', 'v.2/']
    >>> place.convert("a.parquet", None, None).name
    'a.parquet'
    """

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the file or folder."""
        if not isinstance(value, str):
            return value
        path = Path(value)
        folder = "://" in value or value.endswith("/") or not path.suffix or path.is_dir()
        return value if folder and value else path


def _share(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and len(number + of) < 12):
        raise ValueError(text)
    return int(number), int(of)


FILE: Final = File(path_type=Path)
PLACE: Final = Place()
SHARE: Final = Parsed(_share, "i/n such as 1/8, the first of eight")

# The options that several commands have: how they are written, and what they usually are.
_SHARED: Final[dict[str, tuple[Sequence[str], dict[str, Any]]]] = {
    "channels": (("--channels", "-C"), {"type": INTEGER, "metavar": "N"}),
    "out-channels": (("--out-channels", "-F"), {"type": INTEGER, "metavar": "N"}),
    "kernel": (("--kernel",), {"type": INTEGER, "metavar": "N"}),
    "stride": (("--stride",), {"type": WholeNumber(1, 2), "metavar": "1|2"}),
    "dims": (
        ("--dims",),
        {"type": WholeNumber(1, 2), "metavar": "1|2", "default": 2, "help": "Spatial dimensions."},
    ),
    "compact": (
        ("--compact",),
        {
            "type": OneOf(["single", "kernels", "subset"]),
            "default": "single",
            "help": "What may not be removable: a layer, one that is no shuffle, a set of layers.",
        },
    ),
    "bottleneck": (("--bottleneck",), {"type": RATIO, "metavar": "RATIO"}),
    "overlaps": (
        ("--overlaps",),
        {
            "type": LIST,
            "metavar": "LIST",
            "default": "0,0.33,0.5",
            "help": "Overlap ratios of RPW, exact.",
        },
    ),
    "rpw-order": (
        ("--rpw-order",),
        {
            "type": OneOf(["rolling", "blocked", "both"]),
            "default": "rolling",
            "help": "Windows of RPW: one after the other, or shared by neighbouring filters.",
        },
    ),
    "dtype": (
        ("--dtype",),
        {
            "type": OneOf(list(BYTES)),
            "help": "Type of the feature maps, for peak memory in bytes.",
        },
    ),
    "side": (
        ("--side",),
        {
            "type": INTEGER,
            "metavar": "N",
            "help": "Side of what the block writes in pixels, for peak memory in bytes.",
        },
    ),
    "peak-memory": (
        ("--peak-memory",),
        {
            "metavar": "BYTES",
            "help": "At most so much memory for the feature maps that are live at once, with "
            "--dtype: bytes such as 256k (256,000) or 256KiB (262,144), for one image.",
        },
    ),
    "kinds": (("--kinds",), {"type": LIST, "metavar": "LIST"}),
    "objective": (
        ("--objective",),
        {"type": OneOf(["params", "macs", "activations"]), "default": "params"},
    ),
    "params": (("--params",), {"type": AMOUNT, "metavar": "P"}),
    "macs": (("--macs",), {"type": AMOUNT, "metavar": "M"}),
    "layers": (("--layers",), {"type": AMOUNT, "metavar": "N"}),
    "alpha": (
        ("--alpha",),
        {"type": DECIMAL, "metavar": "A", "default": "3", "help": "Decay of the gain."},
    ),
    "cap": (
        ("--cap",),
        {
            "type": OneOf(["input", "twice", "none"]),
            "default": "input",
            "help": "Where the spatial field of a stage stops growing: at the side of its input, "
            "at twice that (as [3DRF] prints gains), or nowhere.",
        },
    ),
    "tie": (
        ("--tie",),
        {
            "type": OneOf(["earlier", "later"]),
            "default": "earlier",
            "help": "Which of two stages with equal gains the organizer takes.",
        },
    ),
    "theta": (("--theta",), {"type": DECIMAL, "metavar": "T"}),
    "moves": (("--moves",), {"type": WholeNumber(0), "metavar": "N"}),
    "shard": (
        ("--shard",),
        {
            "type": SHARE,
            "metavar": "I/N",
            "help": "With --out FOLDER: compute only the part I of N, from 1/N to N/N, such as for "
            "a job array; `ifspace merge FOLDER` joins them.",
        },
    ),
    "estimate": (
        ("--estimate",),
        {
            "is_flag": True,
            "help": "Only say about what the whole run takes: shards, minutes of one core, bytes, "
            "memory; and which of the shards are there, or are those of --shard.",
        },
    ),
    "progress": (
        ("--progress",),
        {
            "type": OneOf(["bar", "json"]),
            "default": "bar",
            "help": "On stderr: a bar, or a line of JSON for each finished part.",
        },
    ),
    "latency": (("--latency",), {"type": FILE, "metavar": "MODEL"}),
    "latency-budget-ms": (
        ("--latency-budget-ms",),
        {"type": MILLISECONDS, "metavar": "MS"},
    ),
    "top": (("--top",), {"type": WholeNumber(1), "metavar": "K", "default": 1}),
    "limit": (
        ("--limit",),
        {
            "type": WholeNumber(0),
            "metavar": "ROWS",
            "default": 20,
            "help": "Number of rows of the table.",
        },
    ),
    "all": (
        ("--all", "every_row"),
        {
            "is_flag": True,
            "help": "Every row, also of blocks that are the same network.",
        },
    ),
    "least-fan-in": (
        ("--least-fan-in",),
        {
            "type": INTEGER,
            "metavar": "N",
            "default": 1,
            "show_default": False,
            "help": "Channels that each filter of a channel-mixing layer must read (DW is none).",
        },
    ),
    "least-spatial-fan-in": (
        ("--least-spatial-fan-in",),
        {
            "type": INTEGER,
            "metavar": "N",
            "default": 1,
            "show_default": False,
            "help": "The same, of the k x k ones alone (GC, CONV).",
        },
    ),
    "multiple": (
        ("--multiple",),
        {
            "type": INTEGER,
            "metavar": "M",
            "default": 1,
            "show_default": False,
            "help": "Channels per group, read and written, are multiples of M; of RPW those of the "
            "window. A layer of one group has them at any width.",
        },
    ),
    "most-groups": (
        ("--most-groups",),
        {
            "type": INTEGER,
            "metavar": "G",
            "help": "Groups of a channel-mixing layer at most.",
        },
    ),
    "time-limit": (("--time-limit",), {"type": SECONDS, "metavar": "SECONDS"}),
    "save": (("--save",), {"type": FILE, "metavar": "FILE"}),
}


def shared(name: str, **changes: Any) -> Callable[[Command], Command]:
    """Return an option that several commands have, with what differs in this one."""
    declarations, attributes = _SHARED[name]
    attributes = attributes | changes
    shown = attributes.get("default") is not None
    return click.option(*declarations, **({"show_default": shown} | attributes))


@dataclass(frozen=True, slots=True)
class Output:
    """Where the answer goes: format on stdout, file or None, whether to keep quiet."""

    format: str
    out: Path | None
    quiet: bool

    def note(self, text: str) -> None:
        """Print a note on stderr, unless quiet."""
        if not self.quiet:
            say(text)

    def print(self, forms: Pieces) -> None:
        """Print the answer on stdout in the format asked for."""
        for piece in _pieces(forms[self.format]()):
            click.echo(piece, nl=False)

    @property
    def formats(self) -> set[str]:
        """The formats that are made: of the file, if any, and of what is printed."""
        formats = set() if self.out is None else {_SUFFIXES.get(self.out.suffix.lower(), "")}
        return formats | ({self.format} if self.prints else set())

    @property
    def prints(self) -> bool:
        """Whether the answer is printed: a file is enough with --quiet.

        It is answer enough too where stdout was closed, as by a daemon.
        """
        return self.out is None or (not self.quiet and sys.stdout.writable())

    def emit(self, forms: Pieces, *, keep: bool = True) -> None:
        """Write the answer to the file, if any, and print it; with --quiet a file is enough.

        With `keep` false no file is written: there is nothing to keep.

        Raises: OutputError for a suffix without a format, or a place that cannot be written.
        """
        form = None if self.out is None else _form_of(self.out, forms)
        if self.out is not None and form is not None and keep:
            from ifspace.storage import replacing

            pieces = _pieces(forms[form]())
            with replacing(self.out) as file, file.open("w", encoding="utf-8") as opened:
                opened.writelines(pieces)
        if self.prints:
            self.print(forms)

    def check(self) -> None:
        """Check, before long work, that the file can be written after it; write nothing.

        Raises: OutputError for a wrong suffix or place.
        """
        if self.out is None:
            return
        from ifspace.storage import check_writable

        replace(self, quiet=True).emit(dict.fromkeys(FORMATS, str), keep=False)
        check_writable(self.out)


def floor_options(multiple_more: str = "") -> Callable[[Command], Command]:
    """Add the options of `Floors`; the command gets them as one `floors`.

    `multiple_more`: what the help of --multiple says beside.
    """

    def add(function: Command) -> Command:
        @wraps(function)
        def command(
            *,
            least_fan_in: int,
            least_spatial_fan_in: int,
            multiple: int,
            most_groups: int | None,
            **values: Any,
        ) -> Any:
            from ifspace.floors import Floors

            floors = Floors(least_fan_in, least_spatial_fan_in, multiple, most_groups)
            return function(floors=floors, **values)

        names = [name.replace("_", "-") for name in FLOORS]
        helps = [_SHARED[name][1]["help"] for name in names]
        helps[2] += multiple_more
        options = [shared(name, help=text) for name, text in zip(names, helps, strict=True)]
        return with_options(options)(command)  # type: ignore[return-value]

    return add


def no_plan(context: click.Context, message: str, time_ran_out: bool) -> None:
    """Say on stderr why there is no plan, and end with the exit status that tells the reasons."""
    say(message)
    context.exit(TIME_RAN_OUT if time_ran_out else NO_ANSWER)


def _pieces(text: str | Iterable[str]) -> Iterable[str]:
    return (text,) if isinstance(text, str) else text


def _form_of(path: Path, forms: Pieces) -> str:
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


def output_options(
    *more_formats: str, out: click.ParamType[Any] = FILE, out_help: str | None = None
) -> Callable[[Command], Command]:
    """Add the options that every command has; the command gets them as one `output`.

    `out`, `out_help`: the type of --out and its help where it is not only a file.
    """

    def add(function: Command) -> Command:
        @wraps(function)
        def command(*, format: str, out: Path | None, quiet: bool, **values: Any) -> Any:
            return function(output=Output(format, out, quiet), **values)

        for option in (
            click.option(
                "--quiet", is_flag=True, help="No notes, no progress; with --out only the file."
            ),
            click.option(
                "--out",
                type=out,
                metavar="FILE",
                help=out_help or "Write a file too, in the format of its suffix.",
            ),
            click.option(
                "--format",
                type=OneOf([*FORMATS, *more_formats]),
                default="table",
                show_default=True,
                help="How the answer is printed.",
            ),
        ):
            command = option(command)
        return command  # type: ignore[return-value]

    return add
