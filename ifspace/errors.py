"""The errors that ifspace raises for a caller's mistake: one line, four facts, one remedy."""

from typing import Any, Self


class IfspaceError(Exception):
    """Anything that ifspace refuses; catch this to catch every refusal of the library.

    >>> raise BlockError.because("no such kind", got="'XY'", allowed="PW, DW", remedy="pick one")
    Traceback (most recent call last):
    ifspace.errors.BlockError: no such kind: got 'XY'; allowed: PW, DW; pick one
    """

    @classmethod
    def because(cls, fact: str, *, got: Any, allowed: Any, remedy: str) -> Self:
        """Return the error with its one-line message: what is wrong, got, allowed, what to do."""
        return cls(" ".join(f"{fact}: got {got}; allowed: {allowed}; {remedy}".split()))


class BlockError(IfspaceError, ValueError):
    """A kind, layer, composition or block that does not exist or does not fit its widths."""


class SettingError(IfspaceError, ValueError):
    """An argument of a search or a computation that is out of its range."""


class CatalogueError(IfspaceError, ValueError):
    """A catalogue file that is truncated, foreign, or of another schema."""


class OutputError(IfspaceError, OSError):
    """A result that cannot be written where it was asked to go."""
