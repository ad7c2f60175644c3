"""Atomic writes: a file appears whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EISDIR
from pathlib import Path

from ifspace.errors import IfspaceError, OutputError


@contextmanager
def replacing(path: str | os.PathLike[str], *, keep: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces it when the body succeeds.

    On failure an older file stays unchanged and nothing of the new one is left. With `keep` false
    nothing is left in any case.

    Raises: OutputError when the file cannot be written.
    """
    # A link is followed: what it points to is replaced, not the link.
    target = Path(path).resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if target.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        yield temporary
        if keep:
            os.replace(temporary, target)
    except OSError as error:
        if isinstance(error, IfspaceError):
            raise
        raise OutputError.because(
            "output cannot be written",
            got=f"{path} ({error.strerror or type(error).__name__})",
            allowed="a file in a directory that exists and can be written",
            remedy="choose another place",
        ) from None
    finally:
        # It exists after a failure only, and not even then if it could not be created.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written; nothing is left. Call it before long work.

    Raises: OutputError when it cannot.
    """
    with replacing(path, keep=False) as file:
        file.touch()
