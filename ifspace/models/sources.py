"""Where networks come from: timm, torchvision, a person's own file, or the papers by name.

timm and torchvision are imported when one of their networks is asked for, and never else.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from inspect import signature
from reprlib import repr as shortened
from typing import Any, Final

import torch
from torch import nn

from ifspace.errors import DeviceError, SettingError
from ifspace.models.edits import Edits, attach
from ifspace.models.user_files import digest_of, from_file, nearest
from ifspace.nn.checks import check_seed, first_line, wrong_type
from ifspace.nn.networks import MAX_CLASSES, Network, named_network, seeded
from ifspace.stages.networks import (
    MAX_SIDE,
    MAX_STAGE_WIDTH,
    NETWORKS,
)
from ifspace.values import whole_within

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
    own number if not given. The network carries these (`edits_of`), so that a file of it can name
    them. The same `seed` draws the same weights on the CPU and leaves torch's
    generators as they are; None draws from them.

    >>> made = network("MobileNet", (3, 32, 32), classes=100, seed=0)
    >>> made(torch.ones(2, 3, 32, 32)).shape
    torch.Size([2, 100])

    Within `with torch.device("meta"):` most networks are built without memory for their weights.

    Raises: SettingError for a name that is not known or cannot be read, a file or factory that is
        not there, fails, or makes no nn.Module, and an image that a network of the papers does not
        take; DeviceError when timm or torchvision is missing, or does not go with this torch.
    """
    if not isinstance(name, str):
        raise wrong_type("model", name, _forms(), "write it like 'vgg16'")
    size = _image(image)
    if classes is not None:
        classes = whole_within(classes, "classes", 1, MAX_CLASSES)
    check_seed(seed)
    make = _maker(name.strip(), size, classes)
    with seeded(seed, None):
        made = _made(make, name)
    # A network of ifspace's own carries its layout.
    source = None if isinstance(made, Network) else name.strip()
    own = None if source is None else digest_of(source)
    attach(made, Edits(source, size, classes=classes, digest=own))
    return made


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
        whole_within(each, argument, 1, most)
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
