"""The errors of ifspace, each in one line: the fact, the value, what is allowed, and a remedy."""

import re
from typing import Any, Final, Self

# Stands in a message for the name of the argument that is wrong, which each caller has its own for.
ARGUMENT: Final = "{argument}"

# Longer numbers, and longer texts, are cut where a message repeats them.
MAX_DIGITS: Final = 40
MAX_TEXT: Final = 240
# Messages are no longer, if their own words are not: what they repeat is cut. Of what was got no
# less is kept than a path needs, of what is allowed no less than this.
MAX_MESSAGE: Final = 300
_LEAST_GOT: Final = 160
_LEAST_ALLOWED: Final = 60


def shortened(text: str, limit: int = MAX_TEXT) -> str:
    """Return a text with its long numbers cut, and then itself cut in the middle to a length.

    >>> shortened("got " + "9" * 50)
    'got 9999999999999999999999999999999999999999… (50 digits)'
    """
    text = re.sub(
        rf"[0-9]{{{MAX_DIGITS + 1},}}",
        lambda number: f"{number[0][:MAX_DIGITS]}… ({len(number[0]):,} digits)",
        text,
    )
    if len(text) <= limit:
        return text
    half = (limit - 24) // 2  # what is said of the cut is no longer
    return f"{text[:half]} … {text[-half:]} ({len(text):,} characters)"


def shown(value: object) -> str:
    """Return the repr of a value for a message, cut if it is long."""
    try:
        return shortened(repr(value))
    except ValueError:  # Python writes out no number of more than 4,300 digits
        return "a number of more than 4,300 digits"


class IfspaceError(Exception):
    """The base of all errors of ifspace.

    >>> raise BlockError.because("no such kind", got="'XY'", allowed="PW, DW", remedy="pick one")
    Traceback (most recent call last):
    ifspace.errors.BlockError: no such kind: got 'XY'; allowed: PW, DW; pick one
    """

    # The argument that is wrong, as a caller writes it, and the message with ARGUMENT in its place.
    argument: str | None = None
    template: str | None = None

    @property
    def finding(self) -> str:
        """What is wrong and what was got, without what is allowed and the remedy.

        Errors of values inside a file say it within their own message.

        >>> BlockError("no such kind: got XY; allowed: PW, DW; pick one").finding
        'no such kind, XY'
        """
        return str(self).partition("; ")[0].replace(": got ", ", ")

    @property
    def allowed(self) -> str:
        """What the message says is allowed; empty if it says nothing of that.

        >>> BlockError("no such kind: got XY; allowed: PW, DW; pick one").allowed
        'PW, DW'
        """
        return str(self).partition("; allowed: ")[2].partition("; ")[0]

    @classmethod
    def because(
        cls, fact: str, *, got: Any, allowed: Any, remedy: str, argument: str | None = None
    ) -> Self:
        """Return the error with its one-line message: what is wrong, got, allowed, what to do.

        >>> error = SettingError.because(f"{ARGUMENT} is even", got=2, allowed="odd numbers",
        ...                              remedy=f"lower {ARGUMENT}", argument="kernel")
        >>> print(error)
        kernel is even: got 2; allowed: odd numbers; lower kernel
        >>> print(error.naming("--kernel"))
        --kernel is even: got 2; allowed: odd numbers; lower --kernel
        """
        allowed, others = str(allowed), len(f"{fact}: got ; allowed: {allowed}; {remedy}")
        limit = min(MAX_TEXT, max(_LEAST_GOT, MAX_MESSAGE - others))
        got = shown(got) if isinstance(got, int) else shortened(str(got), limit)
        others += len(got) - len(allowed)
        allowed = shortened(allowed, max(_LEAST_ALLOWED, MAX_MESSAGE - others))
        template = " ".join(f"{fact}: got {got}; allowed: {allowed}; {remedy}".split())
        error = cls(template.replace(ARGUMENT, argument or "value"))
        error.argument, error.template = argument, template
        return error

    def naming(self, name: str) -> str:
        """Return the message with another name for the argument: the option of a command."""
        if self.template is None or ARGUMENT not in self.template:
            return f"{name}: {self}"
        return self.template.replace(ARGUMENT, name)


class BlockError(IfspaceError, ValueError):
    """A kind, layer, composition or block that does not exist or does not fit its widths."""


class SettingError(IfspaceError, ValueError):
    """An argument of a search or a computation that is out of its range."""


class CatalogueError(IfspaceError, ValueError):
    """A catalogue file that is truncated, foreign, or of another schema."""


class SolverError(IfspaceError, RuntimeError):
    """A solver contradicts itself: its answers cannot be trusted."""


class KernelError(IfspaceError, ValueError):
    """Tensors that do not fit each other or the layer they are given to."""


class DeviceError(IfspaceError, RuntimeError):
    """An implementation asked for on a device, or in an environment, where it cannot run."""


class WorkerError(IfspaceError, RuntimeError):
    """A worker process that was ended from outside, as when memory runs out."""


class OutputError(IfspaceError, OSError):
    """A result that cannot be written where it was asked to go."""
