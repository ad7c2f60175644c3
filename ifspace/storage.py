"""Files: written whole or not at all; tables read with no field lost or out of place."""

import csv
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EINVAL, EISDIR, ELOOP
from json import JSONDecodeError
from pathlib import Path
from stat import S_IMODE, S_ISBLK, S_ISCHR
from typing import Final
from zlib import crc32

from ifspace.errors import IfspaceError, OutputError
from ifspace.values import counted

# Where a file is not yet whole it has a hidden name with this end.
UNFINISHED: Final = ".tmp"


@contextmanager
def replacing(path: str | os.PathLike[str], *, keep: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces it when the body succeeds.

    On failure an older file stays unchanged and nothing of the new one is left. The new one is on
    the disk before it has the name: not even a power failure leaves a part of it. What processes
    of this machine left that were killed while they wrote the same file is removed. A file that is
    replaced keeps its permissions. With `keep` false nothing is left in any case. Devices and pipes
    stay: the superuser could replace them.

    Raises: OutputError when the file cannot be written.
    """
    target = _followed(path)
    machine = f"{crc32(platform.node().encode()):08x}"
    start = f".{target.name}.{machine}."
    temporary = target.with_name(f"{start}{os.getpid()}{UNFINISHED}")
    try:
        if target.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        if target.exists() and not target.is_file():
            raise OSError(EINVAL, "a device or a pipe, which a file would take the place of")
        _remove_leftovers(target.parent, start)
        yield temporary
        if keep:
            with suppress(FileNotFoundError):
                temporary.chmod(S_IMODE(target.stat().st_mode))
            _to_disk(temporary)
            os.replace(temporary, target)
            with suppress(OSError):  # a file system may have no such thing
                _to_disk(target.parent)
    except OSError as error:
        if isinstance(error, IfspaceError):
            raise
        raise _unwritable(path, error.strerror or type(error).__name__) from None
    finally:
        # It exists after a failure only, and not even then if it could not be created.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path, start: str) -> None:
    """Remove unfinished files whose names start so and end in the number of no process."""
    with suppress(OSError):
        for name in os.listdir(folder):
            number = name.removeprefix(start).removesuffix(UNFINISHED)
            if name == f"{start}{number}{UNFINISHED}" and number.isdecimal():
                try:
                    os.kill(int(number), 0)
                except ProcessLookupError:
                    (folder / name).unlink(missing_ok=True)
                except (OSError, OverflowError):
                    continue


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


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file.

    Raises: OSError as `open` does, and for a device, which may never end.
    """
    check_no_device(path)
    return Path(path).read_bytes()


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """Return the text of a file. Raises: OSError as `read_bytes`, UnicodeDecodeError."""
    check_no_device(path)
    return Path(path).read_text(encoding)


def check_no_device(path: str | os.PathLike[str]) -> None:
    """Check that a path is no device, which may never end.

    Raises: OSError for one, and where there is nothing.
    """
    mode = Path(path).stat().st_mode
    if S_ISCHR(mode) or S_ISBLK(mode):
        raise OSError(EINVAL, "a device, not a file")


def reason(error: Exception) -> str:
    """Return why a file cannot be read, without the number and the path that Python adds.

    >>> reason(FileNotFoundError(2, "No such file or directory", "table.csv"))
    'No such file or directory'
    """
    if isinstance(error, JSONDecodeError):
        return f"no JSON: {error.msg}, line {error.lineno}"
    if isinstance(error, UnicodeDecodeError):
        return "no UTF-8 text"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@dataclass(frozen=True, slots=True)
class CsvRows:
    """A CSV file: its columns, and each row by column with its line number."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_csv(path: Path) -> CsvRows:
    """Read a CSV file with a header; spaces around names and before fields do not matter.

    Raises: csv.Error for a row with more or fewer fields than the header, as decimal commas make
        one, and for a column that is there twice; OSError and UnicodeDecodeError as `open` does.
    """
    check_no_device(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        columns = tuple(name.strip() for name in next(reader, ()))
        if repeated := sorted({name for name in columns if columns.count(name) > 1}):
            raise csv.Error(f"column {', '.join(repeated)} twice")
        rows = []
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(columns):
                raise csv.Error(
                    f"line {reader.line_num} has {counted(len(fields), 'field')}, "
                    f"the header {len(columns)}"
                )
            rows.append((reader.line_num, dict(zip(columns, fields, strict=True))))
    return CsvRows(columns, tuple(rows))
