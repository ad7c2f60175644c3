"""Atomic writes: a file appears whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EISDIR, ELOOP
from pathlib import Path
from stat import S_IMODE

from ifspace.errors import IfspaceError, OutputError


@contextmanager
def replacing(path: str | os.PathLike[str], *, keep: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces it when the body succeeds.

    On failure an older file stays unchanged and nothing of the new one is left. A file that is
    replaced keeps its permissions. With `keep` false nothing is left in any case.

    Raises: OutputError when the file cannot be written.
    """
    target = _followed(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if target.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        yield temporary
        if keep:
            with suppress(FileNotFoundError):
                temporary.chmod(S_IMODE(target.stat().st_mode))
            os.replace(temporary, target)
    except OSError as error:
        if isinstance(error, IfspaceError):
            raise
        raise _unwritable(path, error.strerror or type(error).__name__) from None
    finally:
        # It exists after a failure only, and not even then if it could not be created.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _followed(path: str | os.PathLike[str]) -> Path:
    """Return what a path points to: that is replaced, not the link."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError):  # pathlib raises one or the other, by the version of Python
        raise _unwritable(path, os.strerror(ELOOP)) from None


def _unwritable(path: str | os.PathLike[str], reason: str) -> OutputError:
    return OutputError.because(
        "output cannot be written",
        got=f"{path} ({reason})",
        allowed="a file in a directory that exists and can be written",
        remedy="choose another place",
    )


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written; nothing is left. Call it before long work.

    Raises: OutputError when it cannot.
    """
    with replacing(path, keep=False) as file:
        file.touch()
