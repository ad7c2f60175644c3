"""Where networks come from: timm, torchvision, a Python file of the user, or the papers by name.

timm and torchvision are imported only when one of their networks is named. A Python file is run
anew each time, under a module name of its own: what it built before stays as it was.
"""

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from errno import EHOSTUNREACH, ENETUNREACH
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
from socket import create_connection, gaierror
from traceback import walk_tb
from types import ModuleType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import torch
from torch import nn

from ifspace.errors import ARGUMENT, DeviceError, IfspaceError, SettingError
from ifspace.models import torchvision_operators
from ifspace.models.edits import EditedNetwork, Edits
from ifspace.models.graph import ImageSize
from ifspace.nn.checks import check_seed, first_line, kind_of, wrong_type
from ifspace.nn.network import (
    MAX_CLASSES,
    Network,
    named_network,
    seeded,
)
from ifspace.stages.layout import (
    MAX_STAGE_WIDTH,
)
from ifspace.stages.networks import NETWORKS
from ifspace.storage import read_bytes, reason
from ifspace.values import MAX_SIDE, parse_image_size, whole_number

Maker = Callable[[], Any]

_RGB: Final = 3
# How long the host of trained weights may take to answer, in seconds.
CONNECTION_S: Final = 5.0
# Files that hold weights or a program, which are taken for networks.
_OTHER_FILES: Final = (".pt", ".pth", ".pt2", ".ckpt", ".onnx")


def network(
    name: str,
    image: ImageSize = (_RGB, 224, 224),
    classes: int | None = None,
    *,
    seed: int | None = None,
    part: str | None = None,
) -> nn.Module:
    """Build the network of a name, with new weights, in the mode that its source returns it in.

    `name`: "timm:NAME" or "torchvision:NAME", without pretrained weights; "FILE.py:FACTORY", a
    function or class of a Python file that is called without arguments, or an nn.Module in it; or a
    network of the papers, such as "vgg16". `image` (channels, height, width) in pixels is the size
    that a network of the papers is built for; of the others, timm gets the channels. `classes`: by
    default the number that the source chooses. The same `seed` draws the same weights on the CPU
    and leaves torch's generators as they are; None draws from them. `part`: the full name of one of
    its modules, such as "backbone" of a network for detection; that module is returned. `image` is
    then what the part reads: the whole is built for three channels.

    >>> mobilenet = network("MobileNet", (3, 32, 32), classes=100, seed=0)
    >>> mobilenet(torch.ones(2, 3, 32, 32)).shape
    torch.Size([2, 100])

    Within `with torch.device("meta"):` most networks are built without memory for their weights.

    Raises: SettingError for an unknown name or part, a file or factory that does not exist, fails,
        or returns no nn.Module, and an image that a network of the papers does not take;
        DeviceError if timm or torchvision is missing, or does not fit this torch.
    """
    return from_source(name, image, classes, seed=seed, part=part).model


def from_source(
    name: str,
    image: ImageSize = (_RGB, 224, 224),
    classes: int | None = None,
    *,
    seed: int | None = None,
    part: str | None = None,
    pretrained: bool = False,
) -> EditedNetwork:
    """Build the network of a name, and return it with the record of where it comes from.

    Arguments and errors are those of `network`. `pretrained`: with the default trained weights of
    timm or torchvision, which may fetch them. A file that `save` writes of it, or of what
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
    make = _maker(name.strip(), size if part is None else (_RGB, *size[1:]), classes)
    if pretrained:
        make = _pretrained(name.strip(), make)
    with seeded(seed, None):
        model = _build(make, name)
    if part is not None:
        model = part_of(model, part)
    # A network of ifspace itself carries its layout.
    source = None if isinstance(model, Network) else name.strip()
    code = None if source is None else code_file(source)
    digest = None
    if source is not None and code is not None:
        # In full: the working directory may be another when the network is saved.
        source = f"{code.resolve()}:{source.rpartition(':')[2]}"
        digest = digest_of(code)
    return EditedNetwork(model, Edits(source, size, classes=classes, digest=digest, part=part))


def _pretrained(name: str, make: Maker) -> Maker:
    """Return the function that builds a network with the trained weights of its package."""
    package = name.partition(":")[0].lower()
    if package not in PACKAGES or not isinstance(make, partial):
        raise SettingError.because(
            f"{ARGUMENT} of a network without trained weights",
            got=name,
            allowed="networks of timm and torchvision",
            remedy="give a file of them with --weights",
            argument="pretrained",
        )
    arguments = {"pretrained": True} if package == "timm" else {"weights": "DEFAULT"}

    def trained() -> Any:
        try:
            reach = _from_cache_if_unreachable if package == "timm" else nullcontext
            with _without_retries_logged(), reach():
                return make(**arguments)
        except Exception as error:
            if any(map(_is_unreachable, _causes(error))):
                raise SettingError.because(
                    f"the weights of {name} are not in the cache and their host cannot be reached",
                    got=ARGUMENT,
                    allowed="weights that were fetched before, or a connection to their host",
                    remedy="give a file with --weights",
                    argument="pretrained",
                ) from error
            raise SettingError.because(
                f"{ARGUMENT} cannot be had",
                got=f"{name} ({type(error).__name__}: {first_line(error)})",
                allowed="trained weights that its package has, and can fetch or fetched before",
                remedy="give a file of them with --weights",
                argument="pretrained",
            ) from error

    return trained


@contextmanager
def _without_retries_logged() -> Iterator[None]:
    """Keep huggingface_hub from logging each retry: the error that is raised says it once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _from_cache_if_unreachable() -> Iterator[None]:
    """Look in huggingface_hub's cache alone if there is no connection to its host.

    Its own retries take most of a minute before it says so.
    """
    try:
        constants: Any = import_module("huggingface_hub.constants")
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    """Return whether the host of an address, or the proxy before it, takes a connection."""
    url = urlsplit(address)
    if not proxy_bypass(url.netloc):
        proxies = getproxies()
        url = urlsplit(proxies.get(url.scheme) or proxies.get("all") or address)
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        create_connection((url.hostname or "", port), CONNECTION_S).close()
    except (OSError, ValueError):
        return False
    return True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, then what it was raised from or during."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_unreachable(error: BaseException) -> bool:
    """Return whether an error is that of a host without a connection to it."""
    unreachable = isinstance(error, OSError) and error.errno in (ENETUNREACH, EHOSTUNREACH)
    return unreachable or isinstance(error, ConnectionError | TimeoutError | gaierror)


def part_of(model: nn.Module, part: str) -> nn.Module:
    """Return the module of a full name inside a network.

    >>> part_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "1")
    ReLU()

    Raises: SettingError if there is none.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if isinstance(part, str) and part and part in modules:
        return modules[part]
    names = [name for name, _ in model.named_children()]
    raise SettingError.because(
        f"{ARGUMENT} that the network does not have",
        got=part,
        allowed=f"the full name of a module, such as {', '.join(names[:_MAX_NAMES]) or 'none'}",
        remedy=nearest(str(part), list(modules), "name one of them"),
        argument="part",
    )


def parse_image(text: str) -> ImageSize:
    """Parse the size of an image, CHANNELSxHEIGHTxWIDTH, and check its limits.

    >>> parse_image("3x224x224")
    (3, 224, 224)

    Raises: SettingError.
    """
    return _image(parse_image_size(text), "input")


def _image(image: Any, argument: str = "image") -> ImageSize:
    if not isinstance(image, Sequence) or isinstance(image, str) or len(image) != 3:
        raise SettingError.because(
            f"wrong {ARGUMENT}",
            got=shortened(image),
            allowed="(channels, height, width)",
            remedy="write it like (3, 224, 224)",
            argument=argument,
        )
    channels, height, width = (
        whole_number(size, argument, 1, limit)
        for size, limit in zip(image, (MAX_STAGE_WIDTH, MAX_SIDE, MAX_SIDE), strict=True)
    )
    return channels, height, width


def _build(make: Maker, name: str) -> nn.Module:
    try:
        model = make()
    except (SettingError, DeviceError):
        raise
    except Exception as error:
        raise SettingError.because(
            "network cannot be built",
            got=f"{name} ({type(error).__name__}: {first_line(error)})",
            allowed="a network of one input that its package builds without weights",
            remedy="choose another, or build it yourself in a FILE.py:FACTORY",
            argument="model",
        ) from error
    if not isinstance(model, nn.Module):
        raise SettingError.because(
            "not a network",
            got=f"{type(model).__name__} of {name}",
            allowed="an nn.Module",
            remedy="choose another",
            argument="model",
        )
    return model


def _maker(name: str, image: ImageSize, classes: int | None) -> Maker:
    """Return the function that builds the network of a name.

    Raises: SettingError, DeviceError if there is none.
    """
    prefix, colon, rest = name.partition(":")
    if colon and prefix.lower() in PACKAGES:
        return PACKAGES[prefix.lower()](rest, image, classes)
    file, _, factory = name.rpartition(":")
    if file.lower().endswith(".py"):
        return _user_file(file, factory, classes)
    if name.lower().endswith(".py"):
        raise SettingError.because(
            "no factory named",
            got=repr(name),
            allowed="FILE.py:FACTORY",
            argument="model",
            remedy=f"write it like {name}:make, with a function or class of the file",
        )
    if name.lower().endswith(".safetensors"):
        raise SettingError.because(
            "a saved network",
            got=repr(name),
            allowed=_forms(),
            argument="model",
            remedy="read it with ifspace.models.load",
        )
    if not colon:
        return _built_in(name, image, classes)
    raise SettingError.because(
        "unknown source of a network",
        got=repr(name),
        allowed=_forms(),
        argument="model",
        remedy=_as_file(prefix, rest)
        or nearest(prefix.lower(), PACKAGES, "write a file as FILE.py:FACTORY"),
    )


def _as_file(module: str, factory: str) -> str:
    """Return how the file of a module's dotted name is written; "" if there is no such file.

    The module is looked for from the current folder, as `python -m` does.
    """
    path = Path(*module.split("."))
    try:
        files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    except (OSError, ValueError):  # a name that no file can have
        return ""
    return f"write its file: {files[0]}:{factory}" if files else ""


def _forms() -> str:
    sources = ", ".join(f"{package}:NAME" for package in PACKAGES)
    return f"{sources}, FILE.py:FACTORY, or {', '.join(NETWORKS)}"


def _user_file(file: str, factory: str, classes: int | None) -> Maker:
    if classes is not None:
        raise SettingError.because(
            f"{ARGUMENT} of a network in a file",
            got=classes,
            allowed="none: its factory chooses them",
            remedy=f"leave {ARGUMENT} out",
            argument="classes",
        )
    return partial(from_file, file, factory)


def _built_in(name: str, image: ImageSize, classes: int | None) -> Maker:
    if name.lower() not in NETWORKS:
        alternatives = " or ".join(f"{package}:{name}" for package in PACKAGES)
        is_file = name.lower().endswith(_OTHER_FILES)
        raise SettingError.because(
            "unknown network",
            got=repr(name),
            allowed=_forms(),
            argument="model",
            remedy="such a file has weights or a program: name the code that builds the network"
            if is_file
            else f"{nearest(name.lower(), NETWORKS, 'name a package')}, or is it {alternatives}?",
        )
    channels, height, width = image
    if channels != _RGB or height != width:
        raise _wrong_image(name, image, "square images of three channels, such as 3x32x32")

    def make() -> nn.Module:
        try:
            return named_network(name, height, classes=classes)
        except SettingError as error:
            with_name = SettingError(f"{name} for {_size(image)}: {error}")
            with_name.argument = "model"
            raise with_name from None

    return make


def _torchvision(name: str, image: ImageSize, classes: int | None) -> Maker:
    models = imported("torchvision").models
    _check_name("torchvision", name.lower(), models.list_models(), "torchvision.models.list_models")
    if image[0] != _RGB:
        raise _wrong_image(f"torchvision:{name}", image, "images of three channels")
    builder = models.get_model_builder(name)
    parameters = signature(builder).parameters
    arguments: dict[str, Any] = {
        name: None for name in ("weights", "weights_backbone") if name in parameters
    }
    if classes is not None:
        arguments["num_classes"] = classes
    if name.lower().endswith(_SLOW_INITIALISATION):
        arguments["init_weights"] = False
    return partial(builder, **arguments)


# Their own initialisation is several times slower than that of torch, which will replace it; they
# warn unless one of the two is chosen.
_SLOW_INITIALISATION: Final = ("inception_v3", "googlenet")


def _timm(name: str, image: ImageSize, classes: int | None) -> Maker:
    timm = imported("timm")
    # "resnet50.a1_in1k" is resnet50 with a tag of pretrained weights, which are not loaded.
    _check_name("timm", name.partition(".")[0], timm.list_models(), "timm.list_models")
    arguments: dict[str, Any] = {} if image[0] == _RGB else {"in_chans": image[0]}
    if classes is not None:
        arguments["num_classes"] = classes
    return partial(timm.create_model, name, pretrained=False, **arguments)


# Prefix of a name -> function that returns the builder of a network of that package.
PACKAGES: Final[dict[str, Callable[[str, ImageSize, int | None], Maker]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
}


def _check_name(package: str, name: str, all_names: Iterable[str], listing: str) -> None:
    names = list(all_names)
    if name in names:
        return
    raise SettingError.because(
        f"{package} has no such network",
        got=repr(name),
        allowed=f"{len(names)} names of {listing}()",
        argument="model",
        remedy=nearest(name.lower(), names, "choose one of them"),
    )


def _wrong_image(name: str, image: ImageSize, allowed: str) -> SettingError:
    return SettingError.because(
        f"{name} does not take such images",
        got=_size(image),
        allowed=allowed,
        remedy="choose another image size or network",
        argument="model",
    )


def _size(image: ImageSize) -> str:
    return "x".join(map(str, image))


def imported(package: str) -> Any:
    """Import a package.

    Raises: DeviceError if it is not installed, or cannot be imported.
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
        torchvision_operators.declare()  # timm imports torchvision too
        return import_module(package)
    except Exception as error:
        raise _broken(package, error) from error


def _broken(package: str, error: Exception) -> DeviceError:
    reason = f"{type(error).__name__}: {first_line(error)}"
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is None and "torchvision" in reason:
        return DeviceError.because(
            "this build of torchvision does not fit this torch",
            got=f"torchvision {_version('torchvision')}, torch {torch.__version__} ({reason})",
            allowed="two builds made for each other",
            remedy="install the torchvision for this torch from where torch came from",
            argument="model",
        )
    return DeviceError.because(
        f"{package} cannot be imported",
        got=reason,
        allowed="a complete installation",
        remedy=f"pip install {missing or f'--force-reinstall --no-deps {package}'}",
        argument="model",
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


_MODULE_NUMBERS: Final = count(1)
_FACTORY: Final = "a function or class that returns an nn.Module without arguments, or an nn.Module"
# Modules from the folders of the user's files, by the names under which the files imported them.
_NEIGHBOURS: Final[dict[str, ModuleType]] = {}
# The files that were the first to import torchvision, themselves or as timm does.
_WITH_TORCHVISION: Final[set[Path]] = set()
# The most names in a message.
_MAX_NAMES: Final = 8


def from_file(file: str, factory: str) -> nn.Module:
    """Build the network of a factory in a Python file, or return the nn.Module of that name.

    While the file and its factory run, other files of its folder can be imported as under
    `python FILE.py`; those that were stay imported. A file of a package (its folder has an
    `__init__.py`) is run as a module of that package, so that relative imports work. sys.argv is
    that of a program without arguments; it and sys.path are restored.

    Raises: SettingError for a file that does not exist or fails, and a factory that is not in it,
        fails, or returns no nn.Module.
    """
    path = Path(file)
    source = _read(path, file)
    path = path.resolve()
    root, package = _package_of(path)
    torchvision_operators.declare_when_imported()  # it may import timm or torchvision
    before = "torchvision" in sys.modules
    with _importable(path.parent), _importable(root), _arguments([file]):
        model = _attribute(_run(path, source, file, package), file, factory)
        if callable(model) and not isinstance(model, nn.Module):
            try:
                model = model()
            except (Exception, SystemExit) as error:
                raise _failed(f"{file}:{factory}", path, error, _FACTORY) from error
        if not before and "torchvision" in sys.modules:
            _WITH_TORCHVISION.add(path)
        if isinstance(model, nn.Module):
            return model
        raise SettingError.because(
            "factory returns no network",
            got=f"{kind_of(model)} of {file}:{factory}",
            allowed=_FACTORY,
            remedy="let it return the network",
            argument="model",
        )


def code_file(source: str) -> Path | None:
    """Return the Python file of FILE.py:FACTORY; None for another source."""
    file, _, factory = source.rpartition(":")
    return Path(file) if factory and file.lower().endswith(".py") else None


def needs_torchvision(source: str) -> bool:
    """Return whether a source that was built is of torchvision or timm, or imported them."""
    prefix, colon, _ = source.strip().partition(":")
    file = code_file(source)
    return (bool(colon) and prefix.lower() in PACKAGES) or (
        file is not None and file.resolve() in _WITH_TORCHVISION
    )


def digest_of(file: Path) -> str:
    """Return the digest of a Python file."""
    return sha256(_read(file, str(file))).hexdigest()


def nearest(name: str, names: Iterable[str], otherwise: str) -> str:
    """Return the names that resemble a mistyped one as a remedy, or the other remedy.

    >>> nearest("resnt50", ["resnet18", "resnet50", "vgg16"], "choose one")
    'nearest: resnet50, resnet18'
    >>> nearest("densenet", ["vgg16"], "choose one")
    'choose one'
    """
    near = get_close_matches(name, list(names))
    return f"nearest: {', '.join(near)}" if near else otherwise


def _read(path: Path, file: str) -> bytes:
    try:
        return read_bytes(path)
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        missing = isinstance(error, FileNotFoundError) and path.parent.is_dir()
        neighbours = [other.name for other in path.parent.glob("*.py")] if missing else []
        raise SettingError.because(
            "file of a network cannot be read",
            got=f"{file!r} ({reason(error)})",
            allowed="FILE.py:FACTORY, a Python file that exists",
            remedy=nearest(path.name, neighbours, "check its path"),
            argument="model",
        ) from None


def _package_of(path: Path) -> tuple[Path, str]:
    """Return the folder that holds the package of a file, and its full name, "" for no package."""
    root, names = path.parent, list[str]()
    while (root / "__init__.py").is_file() and root.name.isidentifier():
        names.insert(0, root.name)
        root = root.parent
    return root, ".".join(names)


@contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    """Set sys.argv for a while."""
    before = sys.argv
    sys.argv = words
    try:
        yield
    finally:
        sys.argv = before


def _run(path: Path, source: bytes, file: str, package: str) -> ModuleType:
    """Run a file, as a module of a package if it is in one, and return its module.

    It stays in sys.modules, where pickle, dataclasses and torch.compile look up what it defines.
    """
    stem = re.sub(r"\W", "_", path.stem)  # a dot would make it a submodule
    name = f"_ifspace_{stem}_{next(_MODULE_NUMBERS)}"
    if package:
        name = f"{package}.{name}"
    loader = SourceFileLoader(name, str(path))
    spec = spec_from_loader(name, loader)
    assert spec is not None  # a loader was given
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        if package:
            import_module(package)
        # Not loader.exec_module: the bytecode that it caches may be of an older text.
        exec(loader.source_to_code(source, str(path)), module.__dict__)
    except (Exception, SystemExit) as error:
        raise _failed(file, path, error, "a Python file that runs without arguments") from error
    return module


def _attribute(module: ModuleType, file: str, factory: str) -> Any:
    try:
        return vars(module)[factory]
    except KeyError:
        own = [
            name
            for name, value in vars(module).items()
            if isinstance(value, nn.Module)
            or (callable(value) and getattr(value, "__module__", None) == module.__name__)
        ]
        ellipsis = ", …" if len(own) > _MAX_NAMES else ""
        raise SettingError.because(
            "no such factory in the file",
            got=f"{file}:{factory}",
            allowed=f"{', '.join(own[:_MAX_NAMES]) or _FACTORY}{ellipsis}",
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
        # Python's own words are those of a codec.
        reason = "no UTF-8 text" if "(unicode error)" in error.msg else error.msg
    else:
        reason = str(error).strip().partition("\n")[0]
    kind = type(error).__name__
    return SettingError.because(
        "the network's own code failed",
        got=f"{what} ({kind}{': ' if reason else ''}{reason})",
        allowed=allowed,
        argument="model",
        remedy=f"see line {lines[-1]} of {path.name}" if lines else f"fix {path.name}",
    )


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Make the files of a folder importable by their names, and remember those that are imported.

    A neighbour of an earlier file is forgotten if this folder has one of the same name. After a
    failure the new modules are removed again, so that they are read anew once corrected.
    """
    for name, module in list(_NEIGHBOURS.items()):
        top = _top(name)
        is_local = (folder / f"{top}.py").exists() or (folder / top).is_dir()
        if is_local and not _lies_in(folder, top):
            del _NEIGHBOURS[name]
            if sys.modules.get(name) is module:
                del sys.modules[name]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    invalidate_caches()
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        new = [name for name in sys.modules if _top(name) not in before]
        for name in [name for name in new if _lies_in(folder, _top(name))]:
            if succeeded:
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
    locations = [spec.origin or "", *(spec.submodule_search_locations or ())]
    return any(Path(location).parent == folder for location in locations)


Result = TypeVar("Result")
Built = TypeVar("Built")


def on_shapes(build: Callable[[], Built], work: Callable[[Built], Result]) -> Result:
    """Return the result of work on a network that is built on the meta device.

    If it cannot be built there, or the work fails on it, the network is built with values: some
    networks look at their own.

    >>> on_shapes(lambda: nn.Linear(2, 3), lambda model: str(model.weight.device))
    'meta'
    >>> on_shapes(lambda: nn.Linear(2, 3), lambda model: int(model.bias[0] < 9))
    1

    Raises: as `build` and `work` do.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = build()
        return work(model)
    except Exception as error:
        # Values would not help where the model is at fault.
        at_fault = isinstance(error, IfspaceError) and error.argument in ("model", "part")
        if at_fault and not error.__cause__:
            raise
        return work(build())
