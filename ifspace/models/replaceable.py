"""Which layers of a network a block can replace, and why it cannot replace the others.

A 3 x 3 `nn.Conv2d` of stride 1 or 2, dilated or not, with any padding by zeros; with `every`, also
square ones of another odd size, those of odd length along one axis, pointwise convolutions, and
`nn.Linear` on the channels of each pixel. A block reads the pixels of the convolution: its spatial
layers have the same dilation, padding and axis.

Reference: [3DRF] section 4.2 and [IF], kernel-level decomposer.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, Final

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized

from ifspace.block import Block, Layer, SizedBlock
from ifspace.errors import ARGUMENT, SettingError
from ifspace.models.graph import ImageSize, Size, Trace, TracedLayer
from ifspace.models.surgery import Replace
from ifspace.nn.block import Style
from ifspace.nn.checks import evaluated
from ifspace.nn.layers import Geometry
from ifspace.values import counted, set_fields, whole_number

LEAST_CHANNELS: Final = 16
# Why parameters are out of reach of blocks.
CLASSIFIER: Final = "fully connected behind the feature maps"
ATTENTION: Final = "projections of attention"
LEFT_OUT: Final = "left out"
GROUPED: Final = "grouped or depthwise already"
REST: Final = "norms, embeddings and the like"
# What the layers of blocks cannot be: their kernels have one size, and a pixel in the middle.
_NO_CENTRE: Final = ", which has no middle"
_NO_LINE: Final = ", neither square nor along one axis"
_BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, slots=True)
class Layers:
    """Which layers may be replaced: those of these names, or else those with enough channels.

    `names`: one name or several; None for all that a block fits and that read `least_channels` or
    more. `include`, `exclude`: patterns such as "*.conv2" that the full name of a layer must match,
    or must not. `skip_first`: the first layer stays. `classifier`: fully connected layers behind
    the feature maps may be replaced too.

    >>> Layers("layer1.0.conv1").names, Layers(exclude="layer4.*").exclude
    (('layer1.0.conv1',), ('layer4.*',))

    Raises: SettingError for no name at all, or channels that are no whole number from 1.
    """

    names: Iterable[str] | None = None
    least_channels: int = LEAST_CHANNELS
    include: Iterable[str] = ()
    exclude: Iterable[str] = ()
    skip_first: bool = False
    classifier: bool = False

    def __post_init__(self) -> None:
        names, include, exclude = (
            (texts,) if isinstance(texts, str) else texts
            for texts in (self.names, self.include, self.exclude)
        )
        set_fields(
            self,
            names=None if names is None else tuple(names),
            least_channels=whole_number(self.least_channels, "least_channels"),
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
        )
        if self.names == ():
            raise SettingError.because(
                "no layer named",
                got="no names",
                allowed="one or more layers of the network",
                remedy=f"leave {ARGUMENT} out for all 3 x 3 convolutions",
                argument="names",
            )

    def takes(self, name: str) -> bool:
        """Return whether the patterns let a layer be replaced.

        >>> Layers(include="*.conv?", exclude="stem.*").takes("layer1.conv1")
        True
        """
        return (not self.include or _matches(name, self.include)) and not _matches(
            name, self.exclude
        )

    def check_patterns(self, names: Iterable[str]) -> None:
        """Check that each pattern matches one of these names, and all together leave one.

        Raises: SettingError.
        """
        names = tuple(names)
        for argument in ("include", "exclude"):
            for pattern in getattr(self, argument):
                if not any(_matches(name, (pattern,)) for name in names):
                    near = get_close_matches(pattern, names, 3, 0.3)
                    raise SettingError.because(
                        f"{ARGUMENT} matches no layer",
                        got=repr(pattern),
                        allowed="patterns of full names such as "
                        + (", ".join(near) or next(iter(names))),
                        remedy="`ifspace analyze --every-layer` lists them",
                        argument=argument,
                    )
        if names and not any(map(self.takes, names)):
            within = f" of what {', '.join(self.include)} includes" if self.include else ""
            raise SettingError.because(
                f"{ARGUMENT} leaves none of {len(names)} layers",
                got=f"{', '.join(self.exclude)}{within}",
                allowed="patterns that leave a layer to replace",
                remedy="exclude fewer layers",
                argument="exclude",
            )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class ReplaceableConv:
    """A layer that a block can replace, and the sizes of each call.

    `calls`: (H, W) of the feature maps that each call reads and writes. `normed`: whether a batch
    norm reads what it writes. `is_linear`: whether it is an nn.Linear, on the last axis.
    `geometry`: which pixels it reads, if not its neighbours.
    """

    layer: TracedLayer
    calls: tuple[tuple[Size, Size], ...]
    normed: bool
    is_linear: bool = False
    geometry: Geometry = Geometry()  # noqa: RUF009 - a frozen value

    @property
    def name(self) -> str:
        """The full name of its module."""
        return self.layer.name

    @property
    def stride(self) -> int:
        """The stride in pixels, the same down and across."""
        return self.layer.stride[0]

    @property
    def kernel(self) -> int:
        """The kernel size in taps, along its axis if it has one."""
        return max(self.layer.kernel)

    def at(self, block: Block, c_in: int | None = None, c_out: int | None = None) -> SizedBlock:
        """Return a block at the widths of the layer, or others, in as many dimensions as it has.

        Raises: BlockError for a block that does not fit them.
        """
        dims = 2 if self.geometry.axis is None else 1
        layer = self.layer
        return block.at(c_in or layer.c_in, c_out or layer.c_out, dims=dims)

    def replaced_by(self, sized: SizedBlock, style: Style | None = None) -> Replace:
        """Return the step that puts a block in its place, in the default style if not given."""
        style = style or self.default_style
        return Replace(self.name, sized, self.stride, style, self.geometry)

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.layer.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all calls for one image."""
        layer = self.layer
        per_pixel = layer.macs // (layer.size_out[0] * layer.size_out[1])
        return sum(per_pixel * height * width for _, (height, width) in self.calls)

    @property
    def block(self) -> SizedBlock:
        """The layer itself as a block of one layer."""
        kind = self.layer.conv
        kernel = self.kernel if kind.spatial else None
        return self.at(Block((Layer(kind.symbol, kernel=kernel),)))

    @property
    def default_style(self) -> Style:
        """The style of a block that leaves to the network what follows it.

        Batch norm inside the block if the network has one behind the convolution, a bias at its end
        if the convolution has one, no activation.
        """
        return Style(
            self.normed,
            activation=None,
            bias=self.layer.bias,
            batch_norm_where="between",
            bias_where="last",
        )


@dataclass(frozen=True, slots=True)
class Skipped:
    """A convolution that stays, and why.

    `least_channels`: with which a block could replace it, where it has too few channels.
    `misfits`: whether another block could. `untimed`: the shapes of the layer that a table of
    latencies lacks.
    """

    name: str
    reason: str
    least_channels: int | None = None
    misfits: bool = False
    untimed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutOfReach:
    """Parameters that no block can take the place of: why, in which layers, and how many.

    `share`: of all parameters of the network.
    """

    why: str
    names: tuple[str, ...]
    params: int
    share: float


def out_of_reach(
    model: nn.Module,
    trace: Trace,
    replaceable: Collection[str],
    skipped: Iterable[Skipped],
    layers: Layers,
) -> tuple[OutOfReach, ...]:
    """Return what no block can replace, the most parameters first.

    `replaceable`: the names of the layers that have a block; `skipped`: of others, and why.
    """
    reasons = {layer.name: layer.reason for layer in skipped}
    params_of: dict[str, dict[str, int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            params = sum(parameter.numel() for parameter in module.parameters())
            params_of.setdefault(ATTENTION, {})[name] = params
    attention = tuple(params_of.get(ATTENTION, ()))
    counted = sum(params_of.get(ATTENTION, {}).values())
    for layer in trace.all_layers:  # the parameters of a layer that runs twice are those of one run
        if not layer.params or layer.name in attention or _is_inside(layer.name, attention):
            continue
        counted += layer.params
        if layer.name in replaceable:
            continue
        if not layers.takes(layer.name):
            why = LEFT_OUT
        elif layer.name in reasons:
            why = reasons[layer.name]
        elif layer.is_linear:
            why = CLASSIFIER
        else:
            why = LEFT_OUT if layer.conv.dense else GROUPED
        names = params_of.setdefault(why, {})
        names[layer.name] = names.get(layer.name, 0) + layer.params
    if trace.params > counted:
        params_of[REST] = {"": trace.params - counted}
    parts = [
        OutOfReach(
            why,
            tuple(name for name in names if name),
            sum(names.values()),
            sum(names.values()) / trace.params,
        )
        for why, names in params_of.items()
    ]
    return tuple(sorted(parts, key=lambda part: -part.params))


def _is_inside(name: str, modules: Iterable[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def replaceable_convs(
    model: nn.Module,
    trace: Trace,
    layers: Layers = Layers(),
    pointwise: bool = False,
    every: bool = False,
) -> tuple[tuple[ReplaceableConv, ...], list[Skipped]]:
    """Return the layers to replace, in the order in which they run, and the other convolutions.

    `pointwise`: whether pointwise convolutions may be named too. `every`: whether pointwise layers
    and square kernels of any odd size count as 3 x 3 convolutions do.

    Raises: SettingError for a name that is no layer, or of a layer that no block can replace, and
        for a pattern that matches no layer.
    """
    calls_of: dict[str, list[TracedLayer]] = {}
    for layer in trace.all_layers:
        calls_of.setdefault(layer.name, []).append(layer)
    chosen: list[TracedLayer] = []
    skipped: list[Skipped] = []
    names, least_channels = layers.names, layers.least_channels
    named = _checked_names(set(names or ()), calls_of)
    layers.check_patterns(name for name, calls in calls_of.items() if calls[0].conv.writes)
    first = next(iter(calls_of), None) if layers.skip_first else None
    for name, calls in calls_of.items():
        layer = max(calls, key=lambda call: call.params)  # one of several calls counts the weights
        any_kind = every and (layers.classifier or not layer.is_linear)
        left_out = not layers.takes(name) or name == first
        reason = why_not(model, layer, any_kind or (pointwise and name in named), any_kind)
        reason = LEFT_OUT if left_out else reason
        if name in named and reason:
            raise SettingError.because(
                "no block can replace this layer",
                got=f"{name} ({reason})",
                allowed="3 x 3 convolutions of stride 1 or 2, and 1 x 1 ones for blocks without a "
                "spatial kind",
                remedy=f"leave it out of {ARGUMENT}",
                argument="names",
            )
        if name in named or (names is None and not reason and layer.c_in >= least_channels):
            chosen.append(layer)
        elif (
            names is None
            and not left_out
            and layer.conv.dense
            and (layer.conv.spatial or (any_kind and layer.conv.writes))
        ):
            few = f"{counted(layer.c_in, 'input channel')}, fewer than {least_channels}"
            # A block that reads the image saves next to nothing.
            helps = not reason and layer.c_in > trace.image[0]
            skipped.append(Skipped(name, reason or few, layer.c_in if helps else None))
    observed = _observed(model, [layer.name for layer in chosen], trace.image)
    for layer in list(chosen):
        if _is_linear(model, layer.name) and layer.name not in observed.called:
            # Its weight is read by other code, which would miss it.
            chosen.remove(layer)
            skipped.append(Skipped(layer.name, "nn.Linear that is not called itself"))
    return tuple(
        ReplaceableConv(
            layer,
            # A shuffle that precedes the layer in the graph has its name.
            tuple((x.size_in, x.size_out) for x in calls_of[layer.name] if x.conv.writes),
            layer.name in observed.normed,
            _is_linear(model, layer.name),
            Geometry.of(model.get_submodule(layer.name)),
        )
        for layer in chosen
    ), skipped


def _is_linear(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name), nn.Linear)


def why_not(
    model: nn.Module, layer: TracedLayer, pointwise: bool = False, every: bool = False
) -> str:
    """Return why no block can replace a layer; an empty text if one can."""
    if not layer.name:
        return "a function that the network itself calls"
    conv: Any = model.get_submodule(layer.name)
    if every and isinstance(conv, nn.Linear):
        if type(conv) is nn.Linear or _computes_linear(conv):
            return _shared_weights(model, conv)
        return f"{type(conv).__name__}, not a plain nn.Linear"
    if layer.is_linear or not layer.conv.dense:
        return f"a layer of kind {layer.kind}"
    spatial = layer.conv.spatial
    if not spatial and isinstance(conv, nn.Conv2d) and not pointwise:
        return "a pointwise convolution, and the block has a spatial kind"
    if type(conv) is not nn.Conv2d and not _computes_conv2d(conv):
        return f"{type(conv).__name__}, not a plain nn.Conv2d"
    kernel, geometry = conv.kernel_size, Geometry.of(conv)
    is_square = kernel[0] == kernel[1]
    if not all(size % 2 for size in kernel):
        return f"kernel {_times(kernel)}{_NO_CENTRE}"
    if every and not is_square and min(kernel) > 1:
        return f"kernel {_times(kernel)}{_NO_LINE}"
    if not every and spatial and kernel != (3, 3):
        return f"kernel {_times(kernel)}"
    if conv.stride not in (((1, 1), (2, 2)) if spatial and is_square else ((1, 1),)):
        return f"stride {_times(conv.stride)}"
    if not spatial and not geometry.keeps_size:
        return f"padding {_times(conv.padding)}"
    if conv.padding_mode != "zeros":
        return f"padding of {conv.padding_mode}"
    return _shared_weights(model, conv)


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _computes_conv2d(module: Any) -> bool:
    """Return whether a subclass computes what nn.Conv2d does, from weights of its own."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and all(map(_is_norm_of_weights, _parametrizations(module)))
    )


def _computes_linear(module: nn.Linear) -> bool:
    """Return whether a subclass computes what nn.Linear does, on some values, from its weights.

    >>> _computes_linear(type("Linear", (nn.Linear,), {})(2, 3))
    True
    """
    weight = torch.linspace(-1, 1, module.weight.numel()).reshape(module.weight.shape)
    values = {"weight": weight, "bias": torch.linspace(1, 2, module.out_features)}
    parameters = dict(module.named_parameters())
    values = {name: tensor for name, tensor in values.items() if name in parameters}
    if parameters.keys() != values.keys():
        return False
    x = torch.linspace(-2, 1, 2 * module.in_features).reshape(2, -1)
    try:
        with torch.no_grad():
            y = functional_call(module, values, (x,))
    except Exception:
        return False
    expected = torch.nn.functional.linear(x, weight, values.get("bias"))
    return isinstance(y, torch.Tensor) and y.shape == expected.shape and torch.allclose(y, expected)


def _parametrizations(module: nn.Module) -> list[nn.Module]:
    """Return what computes the weights of a module from others; nothing in most."""
    if not is_parametrized(module):
        return []
    lists: Any = module.parametrizations
    return [part for parts in lists.children() for part in parts]


def weight_norm(model: nn.Module, name: str) -> str:
    """Return what computes the weights of a module from others, as torch calls it; "" in most.

    >>> weight_norm(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3))), "0")
    'weight norm'
    """
    module = model.get_submodule(name)
    hooks = [
        hook
        for hook in module._forward_pre_hooks.values()
        if type(hook).__module__.startswith("torch.nn.utils.")
    ]
    kinds = {type(part).__name__.strip("_") for part in (*hooks, *_parametrizations(module))}
    words = (re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower() for kind in sorted(kinds))
    return " and ".join(words)


def _is_norm_of_weights(part: nn.Module) -> bool:
    """Return whether it is one of torch's, such as weight norm: a block needs none of them."""
    return type(part).__module__ == nn.utils.parametrizations.__name__


def _shared_weights(model: nn.Module, conv: nn.Module) -> str:
    weights = {id(tensor) for tensor in conv.parameters()}
    for name, module in model.named_modules():
        own = module.parameters(recurse=False)
        if module not in set(conv.modules()) and any(id(tensor) in weights for tensor in own):
            return f"weights shared with {name}"
    return ""


def _checked_names(names: set[str], calls_of: Mapping[str, Any]) -> set[str]:
    if unknown := sorted(map(str, names - calls_of.keys())):
        raise SettingError.because(
            "no such layer in the network",
            got=", ".join(map(repr, unknown)),
            allowed=", ".join(get_close_matches(unknown[0], map(str, calls_of), 3))
            or f"{counted(len(calls_of), 'layer')} such as {next(iter(calls_of))}",
            remedy="`ifspace analyze --every-layer` lists them",
            argument="names",
        )
    return names


@dataclass(frozen=True, slots=True)
class _Observed:
    """Of some modules, those that write what a batch norm reads, and those that were called."""

    normed: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()


def _observed(model: nn.Module, names: list[str], image: ImageSize) -> _Observed:
    """Run a network on shapes alone, and return what modules of these names do."""
    if not names:
        return _Observed()
    called: set[str] = set()
    normed: set[str] = set()
    written: dict[int, tuple[str, Any]] = {}  # with the tensors: no other may take over their id

    def record_output(name: str) -> Any:
        def hook(_: nn.Module, __: Any, y: Any) -> None:
            called.add(name)
            written[id(y)] = name, y

        return hook

    def record_norm(_: nn.Module, inputs: Any) -> None:
        if inputs and id(inputs[0]) in written:
            normed.add(written[id(inputs[0])][0])

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [model.get_submodule(name).register_forward_hook(record_output(name)) for name in names]
    hooks += [norm.register_forward_pre_hook(record_norm) for norm in norms]
    shapes = _shapes_of(model)
    dtypes = (tensor.dtype for tensor in shapes.values() if tensor.is_floating_point())
    try:
        with evaluated(model), torch.device("meta"):
            x = torch.empty(2, *image, dtype=next(dtypes, None))
            functional_call(model, shapes, (x,), tie_weights=False)
    except Exception:
        # A forward that needs values: what follows in the module tree is taken.
        return _Observed(_followed_by_norm_in_order(model, names))
    finally:
        for hook in hooks:
            hook.remove()
    return _Observed(frozenset(normed), frozenset(called))


def _shapes_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return tensors without values for those of a network, each once for every module that has it.

    By one name for each module: `functional_call` would leave the tensors of a module with several
    names without values.
    """
    empty: dict[int, torch.Tensor] = {}
    shapes: dict[str, torch.Tensor] = {}
    for prefix, module in model.named_modules():
        own = {**module._parameters, **module._buffers}
        for name, tensor in own.items():
            if tensor is not None:
                shape = empty.setdefault(id(tensor), torch.empty_like(tensor, device="meta"))
                shapes[f"{prefix}.{name}".removeprefix(".")] = shape
    return shapes


def _followed_by_norm_in_order(model: nn.Module, names: list[str]) -> frozenset[str]:
    leaves = [
        (name, module) for name, module in model.named_modules() if not any(module.children())
    ]
    return frozenset(
        name
        for (name, conv), (_, norm) in pairwise(leaves)
        if name in names
        and isinstance(norm, _BatchNorm)
        and norm.num_features == getattr(conv, "out_channels", None)
    )
