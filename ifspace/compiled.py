"""Functions that numba compiles, with their code kept on disk."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Any], Any]:
    """Return a decorator that compiles a function with numba, and caches the result on disk.

    Where neither the package nor the user has a folder that can be written to, the code is
    compiled anew in every process.
    """

    def decorate(function: Any) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # numba: no locator available
            return njit(**options)(function)

    return decorate


def is_cached(function: Any) -> bool:
    """Return whether an earlier process has cached the compiled function."""
    folder = getattr(function.stats, "cache_path", None)
    name = f"{function.py_func.__module__.rpartition('.')[2]}.{function.__name__}-"
    return folder is not None and any(Path(folder).glob(f"{name}*.nbc"))


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise what the handler of a signal raised while compiled code ran.

    A decorator too. The handler runs where the code returns, and numba then raises a SystemError
    that it caused.

    Raises: KeyboardInterrupt, SystemExit.
    """
    try:
        yield
    except SystemError as error:
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, KeyboardInterrupt | SystemExit):
            raise
        raise cause from None
