"""Where networks come from: timm, torchvision, a person's own file, or the papers by name.

timm and torchvision are imported when one of their networks is asked for, and never else.
"""

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from importlib import import_module, invalidate_caches
from importlib.machinery import SourceFileLoader
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_loader
from inspect import signature
from itertools import count
from pathlib import Path
from reprlib import repr as shortened
from traceback import walk_tb
from types import ModuleType
from typing import Any, Final, TypeVar

import torch
from torch import nn

from ifspace.errors import DeviceError, IfspaceError, SettingError
from ifspace.models.edits import EditedNetwork, Edits
from ifspace.nn.checks import check_seed, first_line, kind_of, wrong_type
from ifspace.nn.network import (
    MAX_CLASSES,
    Network,
    named_network,
    seeded,
)
from ifspace.stages.layout import (
    MAX_SIDE,
    MAX_STAGE_WIDTH,
)
from ifspace.stages.networks import NETWORKS
from ifspace.values import whole_number

Image = tuple[int, int, int]
Maker = Callable[[], Any]

_COLOURS: Final = 3


def network(
    name: str,
    image: Image = (_COLOURS, 224, 224),
    classes: int | None = None,
    *,
    seed: int | None = None,
) -> nn.Module:
    """Return the network that a text names, with fresh weights, in the mode that it comes in.

    `name`: "timm:NAME" or "torchvision:NAME", without pretrained weights; "FILE.py:FACTORY", a
    function or class of a Python file that is called without arguments, or an nn.Module in it; or a
    network of the papers, such as "vgg16". `image` (channels, height, width) in pixels is the size
    that a network of the papers is built for; timm is told the channels. `classes`: the source's
    own number if not given. The same `seed` draws the same weights on the CPU and leaves torch's
    generators as they are; None draws from them.

    >>> made = network("MobileNet", (3, 32, 32), classes=100, seed=0)
    >>> made(torch.ones(2, 3, 32, 32)).shape
    torch.Size([2, 100])

    Within `with torch.device("meta"):` most networks are built without memory for their weights.

    Raises: SettingError for a name that is not known or cannot be read, a file or factory that is
        not there, fails, or makes no nn.Module, and an image that a network of the papers does not
        take; DeviceError when timm or torchvision is missing, or does not go with this torch.
    """
    return from_source(name, image, classes, seed=seed).model


def from_source(
    name: str,
    image: Image = (_COLOURS, 224, 224),
    classes: int | None = None,
    *,
    seed: int | None = None,
) -> EditedNetwork:
    """Return the network that a text names, with the record of where it comes from.

    Arguments and errors are those of `network`. A file that `save` writes of it, or of what
    `reorganize` and `decompose` make of it, names its source, so `load` needs the file alone.

    >>> from_source("torchvision:resnet18", (3, 64, 64)).edits.source
    'torchvision:resnet18'
    """
    if not isinstance(name, str):
        raise wrong_type("model", name, _forms(), "write it like 'vgg16'")
    size = _image(image)
    if classes is not None:
        classes = whole_number(classes, "classes", 1, MAX_CLASSES)
    check_seed(seed)
    make = _maker(name.strip(), size, classes)
    with seeded(seed, None):
        made = _made(make, name)
    # A network of ifspace's own carries its layout.
    source = None if isinstance(made, Network) else name.strip()
    own = None if source is None else digest_of(source)
    return EditedNetwork(made, Edits(source, size, classes=classes, digest=own))


def parse_image(text: str) -> Image:
    """Return the size of an image (channels, height, width) from its text.

    >>> parse_image("3x224x224"), parse_image("1×28×32")
    ((3, 224, 224), (1, 28, 32))

    Raises: SettingError.
    """
    packed = text.replace("×", "x").lower() if isinstance(text, str) else ""
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*x\s*([0-9]{1,9})\s*x\s*([0-9]{1,9})\s*", packed)
    if found is None:
        raise SettingError.because(
            "image size cannot be read",
            got=repr(text),
            allowed="CHANNELSxHEIGHTxWIDTH in pixels",
            remedy="write it like 3x224x224",
            argument="input",
        )
    return _image([int(each) for each in found.groups()], "input")


def _image(image: Any, argument: str = "image") -> Image:
    if not isinstance(image, Sequence) or isinstance(image, str) or len(image) != 3:
        raise SettingError.because(
            f"wrong {argument}",
            got=shortened(image),
            allowed="(channels, height, width)",
            remedy="write it like (3, 224, 224)",
            argument=argument,
        )
    channels, height, width = (
        whole_number(each, argument, 1, most)
        for each, most in zip(image, (MAX_STAGE_WIDTH, MAX_SIDE, MAX_SIDE), strict=True)
    )
    return channels, height, width


def _made(make: Maker, name: str) -> nn.Module:
    try:
        made = make()
    except (SettingError, DeviceError):
        raise
    except Exception as error:
        raise SettingError.because(
            "network cannot be made",
            got=f"{name} ({type(error).__name__}: {first_line(error)})",
            allowed="a network of one input that its package makes without weights",
            remedy="choose another, or make it yourself in a FILE.py:FACTORY",
            argument="model",
        ) from error
    if not isinstance(made, nn.Module):
        raise SettingError.because(
            "no network",
            got=f"{type(made).__name__} of {name}",
            allowed="an nn.Module",
            remedy="choose another",
            argument="model",
        )
    return made


def _maker(name: str, image: Image, classes: int | None) -> Maker:
    """Return what makes the network, once it is known that there is one of that name."""
    prefix, colon, rest = name.partition(":")
    if colon and prefix.lower() in PACKAGES:
        return PACKAGES[prefix.lower()](rest, image, classes)
    file, _, factory = name.rpartition(":")
    if file.lower().endswith(".py"):
        return _own(file, factory, classes)
    if name.lower().endswith(".py"):
        raise SettingError.because(
            "no factory named",
            got=repr(name),
            allowed="FILE.py:FACTORY",
            argument="model",
            remedy=f"write it like {name}:make, with a function or class of the file",
        )
    if not colon:
        return _built_in(name, image, classes)
    raise SettingError.because(
        "unknown source of a network",
        got=repr(name),
        allowed=_forms(),
        argument="model",
        remedy=nearest(prefix.lower(), PACKAGES, "write a file as FILE.py:FACTORY"),
    )


def _forms() -> str:
    sources = ", ".join(f"{each}:NAME" for each in PACKAGES)
    return f"{sources}, FILE.py:FACTORY, or {', '.join(NETWORKS)}"


def _own(file: str, factory: str, classes: int | None) -> Maker:
    if classes is not None:
        raise SettingError.because(
            "classes of a network in a file",
            got=classes,
            allowed="none: its factory chooses them",
            remedy="leave classes out",
            argument="classes",
        )
    return partial(from_file, file, factory)


def _built_in(name: str, image: Image, classes: int | None) -> Maker:
    if name.lower() not in NETWORKS:
        others = " or ".join(f"{each}:{name}" for each in PACKAGES)
        raise SettingError.because(
            "unknown network",
            got=repr(name),
            allowed=_forms(),
            argument="model",
            remedy=nearest(name.lower(), NETWORKS, "name a package") + f", or is it {others}?",
        )
    channels, height, width = image
    if channels != _COLOURS or height != width:
        raise _wrong_image(name, image, "square images of three channels, such as 3x32x32")

    def make() -> nn.Module:
        try:
            return named_network(name, height, classes=classes)
        except SettingError as error:
            refused = SettingError(f"{name} for {_size(image)}: {error}")
            refused.argument = "model"
            raise refused from None

    return make


def _torchvision(name: str, image: Image, classes: int | None) -> Maker:
    models = _imported("torchvision").models
    _check_known(
        "torchvision", name.lower(), models.list_models(), "torchvision.models.list_models"
    )
    if image[0] != _COLOURS:
        raise _wrong_image(f"torchvision:{name}", image, "images of three channels")
    builder = models.get_model_builder(name)
    taken = signature(builder).parameters
    given: dict[str, Any] = {
        each: None for each in ("weights", "weights_backbone") if each in taken
    }
    if classes is not None:
        given["num_classes"] = classes
    if name.lower().endswith(_SLOW_TO_DRAW):
        given["init_weights"] = False
    return partial(builder, **given)


# Their own way to draw weights is several times slower than torch's, which is to replace it: a
# warning says so unless one of the two is chosen.
_SLOW_TO_DRAW: Final = ("inception_v3", "googlenet")


def _timm(name: str, image: Image, classes: int | None) -> Maker:
    timm = _imported("timm")
    # "resnet50.a1_in1k" is resnet50 with the name of weights that are not asked for.
    _check_known("timm", name.partition(".")[0], timm.list_models(), "timm.list_models")
    given: dict[str, Any] = {} if image[0] == _COLOURS else {"in_chans": image[0]}
    if classes is not None:
        given["num_classes"] = classes
    return partial(timm.create_model, name, pretrained=False, **given)


# Package -> what makes its networks; a row makes a prefix.
PACKAGES: Final[dict[str, Callable[[str, Image, int | None], Maker]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
}


def _check_known(package: str, name: str, known: Iterable[str], listing: str) -> None:
    names = list(known)
    if name in names:
        return
    raise SettingError.because(
        f"{package} has no such network",
        got=repr(name),
        allowed=f"{len(names)} names of {listing}()",
        argument="model",
        remedy=nearest(name.lower(), names, "choose one of them"),
    )


def _wrong_image(name: str, image: Image, allowed: str) -> SettingError:
    return SettingError.because(
        f"{name} does not take such images",
        got=_size(image),
        allowed=allowed,
        remedy="choose another image size or network",
        argument="model",
    )


def _size(image: Image) -> str:
    return "x".join(map(str, image))


def _imported(package: str) -> Any:
    """Return a package that someone named.

    Raises: DeviceError when it is missing, or cannot be imported.
    """
    if find_spec(package) is None:
        raise DeviceError.because(
            f"{package} is not installed",
            got=f"no package {package}",
            allowed=f"networks of {package} where it is installed",
            remedy=f"pip install {package}",
            argument="model",
        )
    try:
        return import_module(package)
    except Exception as error:
        raise _broken(package, error) from error


def _broken(package: str, error: Exception) -> DeviceError:
    said = f"{type(error).__name__}: {first_line(error)}"
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    if absent is None and "torchvision" in said:
        return DeviceError.because(
            "this build of torchvision does not go with this torch",
            got=f"torchvision {_version('torchvision')}, torch {torch.__version__} ({said})",
            allowed="two builds made for each other",
            remedy="install the torchvision for this torch from where torch came from",
            argument="model",
        )
    return DeviceError.because(
        f"{package} cannot be imported",
        got=said,
        allowed="a whole installation",
        remedy=f"pip install {absent or f'--force-reinstall --no-deps {package}'}",
        argument="model",
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


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


Found = TypeVar("Found")
Built = TypeVar("Built")


def on_shapes(build: Callable[[], Built], work: Callable[[Built], Found]) -> Found:
    """Return what the work makes of a network that is built on the meta device.

    Where it cannot be built there, or the work fails on it, of the network as it is built: some
    look at their own values.

    >>> on_shapes(lambda: nn.Linear(2, 3), lambda made: str(made.weight.device))
    'meta'
    >>> on_shapes(lambda: nn.Linear(2, 3), lambda made: made.weight.numel() + int(made.bias[0] < 9))
    7

    Raises: as `build` and `work` do.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = build()
        return work(model)
    except Exception as error:
        # What no values would mend is said at once.
        if isinstance(error, IfspaceError) and not error.__cause__ and error.argument == "model":
            raise
        return work(build())
