"""Networks in a person's own Python file: the file is run, its factory called.

The file is run anew each time, under a name of its own: what it made before stays what it was.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from hashlib import sha256
from importlib import invalidate_caches
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from itertools import count
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any, Final

from torch import nn

from ifspace.errors import SettingError
from ifspace.nn.checks import first_line, kind_of

_NUMBERS: Final = count(1)
_FACTORY: Final = "a function or class that makes an nn.Module without arguments, or an nn.Module"
# Modules that lie beside files of networks, by the names under which those files imported them.
_NEIGHBOURS: Final[dict[str, ModuleType]] = {}
# So many names are listed in a message.
_LISTED: Final = 8


def from_file(file: str, factory: str) -> nn.Module:
    """Return the network that a factory of a Python file makes, or the module of that name.

    While the file runs, and its factory, other files of its folder can be imported as they can
    under `python FILE.py`; those that were stay imported. sys.path is put back.

    Raises: SettingError for a file that is not there or fails, a factory that is not in it, fails,
        or makes no nn.Module.
    """
    path = Path(file)
    source = _read(path, file)
    path = path.resolve()
    with _importable(path.parent):
        made = _named(_run(path, source, file), file, factory)
        if callable(made) and not isinstance(made, nn.Module):
            try:
                made = made()
            except (Exception, SystemExit) as error:
                raise _failed(f"{file}:{factory}", path, error, _FACTORY) from error
        if isinstance(made, nn.Module):
            return made
        raise SettingError.because(
            "factory makes no network",
            got=f"{kind_of(made)} of {file}:{factory}",
            allowed=_FACTORY,
            remedy="let it return the network",
            argument="model",
        )


def digest_of(source: str) -> str | None:
    """Return the digest of the Python file of FILE.py:FACTORY; None for another source."""
    file, _, factory = source.rpartition(":")
    if not factory or not file.endswith(".py"):
        return None
    return sha256(_read(Path(file), file)).hexdigest()


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the advice to take a name like the mistyped one, or another where none is like it.

    >>> nearest("resnt50", ["resnet18", "resnet50", "vgg16"], "choose one")
    'nearest: resnet50, resnet18'
    >>> nearest("densenet", ["vgg16"], "choose one")
    'choose one'
    """
    near = get_close_matches(name, list(known))
    return f"nearest: {', '.join(near)}" if near else otherwise


def _read(path: Path, file: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        said = getattr(error, "strerror", None) or first_line(error)
        missing = isinstance(error, FileNotFoundError) and path.parent.is_dir()
        beside = [each.name for each in path.parent.glob("*.py")] if missing else []
        raise SettingError.because(
            "file of a network cannot be read",
            got=f"{file!r} ({said})",
            allowed="FILE.py:FACTORY, a Python file that is there",
            remedy=nearest(path.name, beside, "check its path"),
            argument="model",
        ) from None


def _run(path: Path, source: bytes, file: str) -> ModuleType:
    """Return the module of a file, run.

    It stays in sys.modules, where pickle, dataclasses and torch.compile look up what it defines.
    """
    stem = re.sub(r"\W", "_", path.stem)  # a dot would make it a part of a package
    name = f"_ifspace_{stem}_{next(_NUMBERS)}"
    loader = SourceFileLoader(name, str(path))
    spec = spec_from_loader(name, loader)
    assert spec is not None  # a loader was given
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Not loader.exec_module: byte code that it keeps may be of the text a moment before.
        exec(loader.source_to_code(source, str(path)), module.__dict__)
    except (Exception, SystemExit) as error:
        raise _failed(file, path, error, "a Python file that runs without arguments") from error
    return module


def _named(module: ModuleType, file: str, factory: str) -> Any:
    try:
        return vars(module)[factory]
    except KeyError:
        own = [
            name
            for name, each in vars(module).items()
            if isinstance(each, nn.Module)
            or (callable(each) and getattr(each, "__module__", None) == module.__name__)
        ]
        more = ", …" if len(own) > _LISTED else ""
        raise SettingError.because(
            "no such factory in the file",
            got=f"{file}:{factory}",
            allowed=f"{', '.join(own[:_LISTED]) or _FACTORY}{more}",
            remedy=nearest(factory, own, "name one of the file"),
            argument="model",
        ) from None


def _failed(what: str, path: Path, error: BaseException, allowed: str) -> SettingError:
    lines = [
        line
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_filename == str(path)
    ]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno or 1)
        said = error.msg
    else:
        said = str(error).strip().partition("\n")[0]
    kind = type(error).__name__
    return SettingError.because(
        "the network's own code failed",
        got=f"{what} ({kind}{': ' if said else ''}{said})",
        allowed=allowed,
        argument="model",
        remedy=f"see line {lines[-1]} of {path.name}" if lines else f"mend {path.name}",
    )


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the files of a folder be imported by their names; keep note of those that were.

    A neighbour of an earlier file makes way for one of the same name in this folder. After a
    failure what came in is taken out again, so that it is read anew once mended.
    """
    for name, module in list(_NEIGHBOURS.items()):
        top = _top(name)
        here = (folder / f"{top}.py").exists() or (folder / top).is_dir()
        if here and not _lies_in(folder, top):
            del _NEIGHBOURS[name]
            if sys.modules.get(name) is module:
                del sys.modules[name]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    invalidate_caches()
    fine = False
    try:
        yield
        fine = True
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        brought = [name for name in sys.modules if _top(name) not in before]
        for name in [each for each in brought if _lies_in(folder, _top(each))]:
            if fine:
                _NEIGHBOURS[name] = sys.modules[name]
            else:
                del sys.modules[name]


def _top(name: str) -> str:
    return name.partition(".")[0]


def _lies_in(folder: Path, top: str) -> bool:
    """Return whether a top-level module is a file or a package right in a folder."""
    spec = getattr(sys.modules.get(top), "__spec__", None)
    if spec is None:
        return False
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    return any(Path(place).parent == folder for place in places)
