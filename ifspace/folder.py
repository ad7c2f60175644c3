"""A folder of files that runs share: on this machine, or behind a URL.

Files are written whole or not at all. A local folder is locked by who works in it: the lock is the
operating system's, which drops it when a process ends however it ends, so that no lock is stale;
the file says which process holds it. URLs such as s3://bucket/name go through fsspec; they have no
locks, and two runs there do the same work and write the same bytes.
"""

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from ifspace.errors import OutputError, SettingError
from ifspace.storage import UNFINISHED, replacing

# All runs in a folder hold it, those that work in all of it alone.
LOCK: Final = ".lock"


class Folder(Protocol):
    """A folder of files by their names."""

    def names(self) -> list[str]:
        """Return the names of the files, sorted; none where there is no folder."""

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises: OSError where it cannot be read.
        """

    def open(self, name: str) -> BinaryIO:
        """Open a file to read parts of it.

        Raises: OSError where it cannot be read.
        """

    def write(self, name: str, content: bytes) -> None:
        """Write a file: whole or not at all.

        Raises: OutputError when it cannot be written.
        """

    def arrow(self) -> tuple[Any, str]:
        """Return the file system as pyarrow has it, and the path of the folder there."""

    def locked(self, part: str | None = None) -> Any:
        """Return a context in which no other run works in the folder, or in a part of it.

        Raises: OutputError where one does.
        """


def open_folder(place: str | os.PathLike[str]) -> Folder:
    """Return a folder by its path or URL; it need not exist.

    Raises: SettingError for a URL without the package that it needs.
    """
    return RemoteFolder(str(place)) if is_url(place) else LocalFolder(Path(place))


def is_url(place: str | os.PathLike[str]) -> bool:
    """Return whether a place is a URL.

    >>> is_url("s3://bucket/run"), is_url("runs/64")
    (True, False)
    """
    return "://" in str(place)


class LocalFolder:
    """A folder of this machine, or one that several machines see."""

    def __init__(self, path: Path) -> None:
        """Name the folder."""
        self.path = path

    def __str__(self) -> str:
        """Return the path."""
        return str(self.path)

    def names(self) -> list[str]:
        """Return the names of the files, sorted; none where there is no folder."""
        return sorted(os.listdir(self.path)) if self.path.is_dir() else []

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises: OSError where it cannot be read.
        """
        return (self.path / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """Open a file to read parts of it.

        Raises: OSError where it cannot be read.
        """
        return (self.path / name).open("rb")

    def write(self, name: str, content: bytes) -> None:
        """Write a file: whole or not at all, and on the disk.

        Raises: OutputError when it cannot be written.
        """
        self._make()
        with replacing(self.path / name) as file:
            file.write_bytes(content)

    def arrow(self) -> tuple[Any, str]:
        """Return the file system as pyarrow has it, and the path of the folder there."""
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), str(self.path)

    @contextmanager
    def locked(self, part: str | None = None) -> Iterator[None]:
        """Let no other run work in the folder, or with `part` in that part of it.

        What runs left that were killed while they wrote a file is removed.

        Raises: OutputError where another run works there, or the folder cannot be made.
        """
        self._make()
        with self._lock(LOCK, shared=part is not None):
            if part is None:
                for name in self.names():
                    if name.startswith(".") and name.endswith(UNFINISHED):
                        (self.path / name).unlink(missing_ok=True)
                yield
            else:
                with self._lock(f"{LOCK}-{part}"):
                    yield

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from None

    @contextmanager
    def _lock(self, name: str, shared: bool = False) -> Iterator[None]:
        try:
            import fcntl
        except ImportError:  # not on this operating system
            yield
            return
        path = self.path / name
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise _unwritable(self.path, error) from None
            try:
                fcntl.flock(
                    descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
                )
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise self._busy(name) from None
                yield  # a file system without locks
                return
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    break
            os.close(descriptor)  # its holder has just removed it
        try:
            if not shared:
                holder = {"pid": os.getpid(), "host": platform.node()}
                with suppress(OSError):  # a full disk: the lock holds all the same
                    os.truncate(descriptor, 0)
                    os.write(descriptor, json.dumps(holder).encode())
            yield
        finally:
            with suppress(OSError):
                # Of several that share it the last one removes it.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            os.close(descriptor)

    def _busy(self, name: str) -> OutputError:
        holders = []
        for other in dict.fromkeys([name, *self.names()]):
            with suppress(OSError, ValueError, KeyError, TypeError):
                if other.startswith(LOCK):
                    holder = json.loads(self.read(other))
                    holders.append(f"process {holder['pid']} on {holder['host']}")
        return OutputError.because(
            "another run works in the folder",
            got=f"{self.path} ({holders[0] if holders else 'of which one works in a part'})",
            allowed="one run at a time, or several with --shard",
            remedy="wait for it, or end it",
        )


class RemoteFolder:
    """A folder behind a URL, through fsspec."""

    def __init__(self, url: str) -> None:
        """Open the file system of the URL.

        Raises: SettingError where a package is missing or the URL is none that fsspec knows.
        """
        try:
            import fsspec

            self._files, self._path = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise SettingError.because(
                "URL that cannot be opened",
                got=f"{url} ({str(error).splitlines()[0]})",
                allowed="a folder, or a URL that fsspec knows such as s3://bucket/name",
                remedy="install ifspace[remote] and the package of that kind of URL",
            ) from None
        self._url = url

    def __str__(self) -> str:
        """Return the URL."""
        return self._url

    def names(self) -> list[str]:
        """Return the names of the files, sorted; none where there is no folder."""
        self._files.invalidate_cache()
        try:
            with self._answering():
                paths = self._files.ls(self._path, detail=False)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreachable(self._url, error) from None
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises: OSError where it cannot be read.
        """
        with self._answering():
            content: bytes = self._files.cat_file(f"{self._path}/{name}")
        return content

    def open(self, name: str) -> BinaryIO:
        """Open a file to read parts of it.

        Raises: OSError where it cannot be read.
        """
        with self._answering():
            file: BinaryIO = self._files.open(f"{self._path}/{name}", "rb")
        return file

    def write(self, name: str, content: bytes) -> None:
        """Write a file: an object is there when it is whole.

        Raises: OutputError when it cannot be written.
        """
        try:
            with self._answering():
                self._files.makedirs(self._path, exist_ok=True)
                self._files.pipe_file(f"{self._path}/{name}", content)
        except OSError as error:
            raise _unwritable(f"{self._url}/{name}", error) from None

    def arrow(self) -> tuple[Any, str]:
        """Return the file system as pyarrow has it, and the path of the folder there."""
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        return PyFileSystem(FSSpecHandler(self._files)), self._path

    @staticmethod
    @contextmanager
    def _answering() -> Iterator[None]:
        """Raise OSError where a package of a kind of URL raises errors of its own."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise OSError(errno.EIO, reason) from None

    @contextmanager
    def locked(self, part: str | None = None) -> Iterator[None]:
        """Lock nothing: what two runs write is the same."""
        yield


def _unreachable(url: str, error: OSError) -> OutputError:
    return OutputError.because(
        "a folder that cannot be reached",
        got=f"{url} ({error.strerror or type(error).__name__})",
        allowed="a URL that answers",
        remedy="check the address, the credentials and the network",
    )


def _unwritable(place: str | os.PathLike[str], error: OSError) -> OutputError:
    return OutputError.because(
        "output cannot be written",
        got=f"{place} ({error.strerror or type(error).__name__})",
        allowed="a folder that exists or can be made, and can be written",
        remedy="choose another place",
    )
