"""Blocks and networks fused for inference: each block computed in one pass over tiles.

`fuse` finds the parts of a module that are a chain of convolutions (see
`ifspace.kernels.chain.stages`): blocks, residual blocks, and runs of plain layers in an
nn.Sequential. Batch norm is folded into weights and biases, activations and shortcuts are applied
to a tile before it is written, channel shuffles are indices.

A fused part is of a subclass of its own class and has the same submodules, parameters and names.
Where the engine cannot run it computes what its own class does, layer by layer.
"""

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Final, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.optim.optimizer import register_optimizer_step_post_hook

from ifspace.errors import SettingError
from ifspace.kernels.chain import operator
from ifspace.kernels.chain.operator import (
    DTYPES,
    MOST_SHAPES,
    as_under_autocast,
    chain_operator,
    check_no_forward_mode,
    obstacle,
    run_chain,
)
from ifspace.kernels.chain.stages import Chain, Stage
from ifspace.kernels.rpw.operator import is_transforming
from ifspace.kernels.tensors import is_autocast, is_watched, memory_format
from ifspace.kernels.thin import is_torch_faster
from ifspace.kernels.windows import BLOCKED
from ifspace.nn.block import ACTIVATIONS, BlockModule, ChainModule
from ifspace.nn.checks import is_plain, unwrapped, wrong_type
from ifspace.nn.collapse import CollapsedBlock
from ifspace.nn.layers import RollingPointwiseConv1d, RollingPointwiseConv2d
from ifspace.nn.network import FreeShortcut, Residual

# What computes an input: the layers themselves, torch's convolution with folded weights, the chain.
LAYERS, TORCH, CHAIN = "layers", "torch", "chain"

Module = TypeVar("Module", bound=nn.Module)
_ACTIVATION_NAMES: Final = {module: name for name, module in ACTIVATIONS.items()}
_CONVOLUTIONS: Final[dict[type[nn.Module], int]] = {nn.Conv1d: 1, nn.Conv2d: 2}
_ROLLING: Final[dict[type[nn.Module], int]] = {RollingPointwiseConv1d: 1, RollingPointwiseConv2d: 2}
_NORMS: Final[dict[type[nn.Module], int]] = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2}
_BLOCKS: Final = (BlockModule, CollapsedBlock)
# They pass their input on in evaluation mode.
_IDENTITIES: Final = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
# Convolutions with a kernel larger than 1 x 1 in one chain. Each widens the border of a tile that
# is computed twice; among the layers of an nn.Sequential a chain has one.
_MOST_SPATIAL: Final = 4
# Weights of a filter. A wider convolution does so much with each number it reads that nothing is
# gained by its neighbours' results in the caches, and torch's own is the faster.
_MOST_TAPS: Final = 512


def fuse(module: Module) -> Module:
    """Return a copy of a module for inference, its blocks computed in one pass over tiles.

    The copy shares the parameters and buffers of `module`, has its names in the state_dict, and is
    in evaluation mode. Fused are blocks (collapsed ones too), the residual blocks of a Network, and
    in an nn.Sequential each run of convolutions, RPW, batch norm, activations and channel shuffles,
    wherever they are inside `module`. Layers with hooks, of subclasses, or with settings that a
    chain does not have (dilation, another padding mode) are left as they are, blocks with a
    convolution of more than 512 weights a filter, which torch computes faster, and what `module`
    does around its blocks. Hooks that are added later to a layer of a fused block are not
    called.

    Convolutions that stand alone, such as a stem, are torch's own where they are expected to take
    less time so, with folded weights.

    Folded weights are computed once, and again when a parameter or a running statistic was changed,
    replaced or loaded; only a change in place through `.data` is not seen before `fuse` is called
    again. In float32, bfloat16 and float16 the result differs from that of `module` by rounding: on
    a CPU, and on CUDA in channels_last where a part has one convolution of more than 1x1 and, but
    for DW and linear layers behind it, at most 128 channels. In float64, on other devices and for
    inputs that do not fit, its own layers run.

    >>> from ifspace.nn import MOBILENET, build
    >>> block = build("DW+RPW(4,0)+GPW(4)", 16, style=MOBILENET)
    >>> fused, x = fuse(block), torch.ones(1, 16, 8, 8)
    >>> with torch.no_grad():
    ...     torch.allclose(fused(x), block.eval()(x), atol=1e-6)
    True

    Raises: SettingError for a value that is no module, and later for training: `train()`, or a call
        that would have to compute gradients.
    """
    module = unwrapped(module)
    if not isinstance(module, nn.Module):
        raise wrong_type("module", module, "a torch.nn.Module", "make one with build")
    shared: dict[int, Any] = {id(x): x for x in (*module.parameters(), *module.buffers())}
    fused = copy.deepcopy(module, shared).eval()
    if not _fuse_inside(fused):
        warnings.warn(
            f"nothing in {type(module).__name__} can be fused: its copy has its own layers",
            stacklevel=2,
        )
    return fused


def _fuse_inside(module: nn.Module) -> bool:
    """Fuse what can be fused in a module, in place; return whether anything is fused.

    From the outside in: what is part of a chain is not looked at again.
    """
    if not isinstance(module, Fused):
        segments = _segments_of(module)
        if any(segment.run for segment in segments):
            module.__class__ = _FUSED_CLASSES[type(module)]
            cast(Fused, module).segments = segments
    segments = module.segments if isinstance(module, Fused) else ()
    inside = {name for segment in segments if segment.run for name in segment.names}
    others = [_fuse_inside(part) for name, part in module.named_children() if name not in inside]
    return bool(segments) or any(others)


# ---- a part of a module as a chain


@dataclass(frozen=True)
class Filters:
    """Where the weights and biases of a stage come from: a convolution and batch norms behind it.

    Without a convolution every filter is 1: it copies the channel that it reads.
    """

    convolution: nn.Module | None
    norms: tuple[nn.Module, ...] = ()

    @property
    def has_bias(self) -> bool:
        """Whether a bias is added."""
        return bool(self.norms) or getattr(self.convolution, "bias", None) is not None

    def folded(self, stage: Stage, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the weights, flat, and the bias [C_out] in float64, batch norm folded in.

        With s = gamma / sqrt(var + eps) they are w s and (b - mean) s + beta. `device`: of those
        that no convolution has.
        """
        if self.convolution is None:
            ones = torch.ones(stage.weights, dtype=torch.float64, device=device)
            return ones, ones.new_zeros(stage.c_out)
        weight = _double(self.convolution.weight)
        if weight.dim() == 3 and stage.kernel > 1:  # 1-D: the middle row of a square kernel
            half = stage.kernel // 2
            weight = nn.functional.pad(weight.unsqueeze(2), (0, 0, half, half))
        weight = weight.reshape(stage.c_out, -1)
        bias = weight.new_zeros(stage.c_out)
        if self.convolution.bias is not None:
            bias = _double(self.convolution.bias)
        for norm in self.norms:
            scale = (_double(norm.running_var) + cast(float, norm.eps)).rsqrt()
            if norm.weight is not None:
                scale = scale * _double(norm.weight)
            weight, bias = weight * scale[:, None], (bias - _double(norm.running_mean)) * scale
            if norm.bias is not None:
                bias = bias + _double(norm.bias)
        return weight.flatten(), bias


def _double(tensor: Any) -> Tensor:
    return cast(Tensor, tensor).double()


# A dictionary of a module and a name in it: where a submodule, parameter or buffer is.
Slot = tuple[dict[str, Any], str]


@dataclass
class Folded:
    """The flat float32 weights and biases of a chain, and the tensors that they were made of.

    `state`: slot, tensor, version and address of each; `modules`: the slots of layers and of what
    they are set to; `steps`: of optimizers before. `ways`: what computes inputs of a shape,
    dtype and, where they matter, device and strides.
    """

    weights: Tensor
    biases: Tensor | None
    state: tuple[tuple[dict[str, Any], str, Tensor | None, int, int], ...] = ()
    modules: tuple[tuple[Slot, Any], ...] = ()
    steps: int = -1
    ways: dict[Any, str] = field(default_factory=dict)

    def is_fresh(self) -> bool:
        """Return whether the layers and tensors are still the same, unchanged."""
        if self.steps != _steps.count:
            return False
        try:
            for values, name, tensor, version, address in self.state:
                now = values[name]
                if now is not tensor or (
                    now is not None and (now._version != version or now.data_ptr() != address)
                ):
                    return False
        except (RuntimeError, KeyError):
            return False  # an inference tensor has no version, a fake one no address
        return all(values.get(name) is value for (values, name), value in self.modules)


class _Steps:
    """Counts the steps of all optimizers: some change parameters without a new version."""

    count = 0

    @cached_property
    def hook(self) -> Any:
        """The hook of torch that counts, once it is asked for."""

        def step(*_: Any) -> None:
            self.count += 1

        return register_optimizer_step_post_hook(step)


_steps: Final = _Steps()


class Run:
    """A chain, and the modules of which it consists.

    `modules`: the slot of each with the module. `dims`: spatial dimensions of the input; a sequence
    is computed as a feature map of height 1. `heard`: what is told of each call what computes it.
    """

    heard: Callable[[str], None] | None = None

    def __init__(
        self,
        chain: Chain,
        filters: Sequence[Filters],
        modules: Sequence[tuple[Slot, nn.Module]],
        dims: int,
    ) -> None:
        self.text, self.filters, self.dims = chain.text, tuple(filters), dims
        self.modules = tuple(modules)
        self.chain = operator.parse(self.text)
        self._folded: Folded | None = None

    @cached_property
    def sole(self) -> Stage | None:
        """The stage of a chain that has one, if torch's conv2d computes it too."""
        (first, *others) = self.chain.stages
        shuffles = first.shuffle_in or first.shuffle_out
        is_plain = first.is_grouped and not shuffles and first.residual is None
        return first if is_plain and not others and self.dims == 2 else None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"chain": None, "_folded": None, "heard": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.chain = operator.parse(self.text)

    def forget(self) -> None:
        """Fold the weights anew at the next call."""
        self._folded = None

    def __call__(self, x: Tensor) -> Tensor | None:
        """Return the result for x, or None for an x that the layers themselves must take.

        Raises: SettingError if gradients would have to be computed; KernelError for a feature map
            that leaves no pixel.
        """
        if torch.is_grad_enabled():
            self._check_no_gradient(x)
        if is_watched(x) or is_autocast(x):
            return self._call_watched(x)
        folded = self._folded
        if folded is None or not folded.is_fresh():
            folded = self.fold()
        key = x.shape, x.dtype, (x.is_cpu and self.sole is None) or (x.device, x.stride())
        way = folded.ways.get(key) or self._choose(x, folded, key)
        if self.heard is not None:
            self.heard(way)
        if way == LAYERS:
            return None
        if way == TORCH:
            return self._by_torch(x, folded)
        if self.dims == 1:
            x = x.unsqueeze(2)
            return run_chain(x, folded.weights, folded.biases, self.chain).squeeze(2)
        return run_chain(x, folded.weights, folded.biases, self.chain)

    def _choose(self, x: Tensor, folded: Folded, key: Any) -> str:
        """Return what computes an input that looks like x, and remember it."""
        way, sole = CHAIN, self.sole
        if not self._takes(x, is_cast=False):
            way = LAYERS
        elif (reason := obstacle(x, self.chain)) is not None:
            note(reason)
            way = LAYERS
        else:
            self.chain.shape_of(x.shape if self.dims == 2 else (*x.shape[:2], 1, x.shape[2]))
            if sole is not None and x.is_cpu and x.dtype == torch.float32:
                way = TORCH if is_torch_faster(sole, x) else CHAIN
        if len(folded.ways) >= MOST_SHAPES:
            folded.ways.clear()
        folded.ways[key] = way
        return way

    def _by_torch(self, x: Tensor, folded: Folded) -> Tensor:
        """Return the result of the only stage by torch's conv2d, the activation in place."""
        stage = cast(Stage, self.sole)
        weight = folded.weights.view(stage.c_out, stage.fan_in, stage.kernel, stage.kernel)
        groups = stage.c_in // stage.fan_in
        with torch.no_grad():
            y = conv2d(x, weight, folded.biases, stage.stride, stage.padding, 1, groups)
            if stage.activation is not None:
                y = getattr(nn.functional, stage.activation)(y, inplace=True)
        return y.contiguous(memory_format=memory_format(x))

    def _takes(self, x: Tensor, is_cast: bool) -> bool:
        """Return whether x suits the layers; `is_cast`: whether autocast converts it."""
        if x.dim() != self.dims + 2 or x.shape[1] != self.chain.stages[0].c_in:
            return False
        weight = next(self._weights(), x)
        if x.layout != torch.strided or x.device != weight.device:
            return False
        return x.dtype == weight.dtype or (is_cast and {x.dtype, weight.dtype} <= set(DTYPES))

    def _weights(self) -> Iterator[Tensor]:
        """Yield the weights of the convolutions."""
        for part in self.filters:
            if part.convolution is not None:
                yield cast(Tensor, part.convolution.weight)

    def _call_watched(self, x: Tensor) -> Tensor | None:
        """Return the result by the operator, for a call that something of torch has to see."""
        kind = x.device.type
        is_cast = is_autocast(x)
        if kind != "cpu" or not self._takes(x, is_cast):
            return None
        if not torch.compiler.is_compiling():
            check_no_forward_mode()
        if torch.compiler.is_exporting() and self._folded is not None:
            weights, biases = self._folded.weights, self._folded.biases  # see `Fused.named_modules`
        elif torch.compiler.is_compiling() or is_transforming():
            # Written into the graph, so that it follows the parameters as the layers would. Under a
            # transform these may be tensors of its own, with tangents.
            weights, biases = self._fold()
        else:
            if (reason := obstacle(x, self.chain)) is not None:
                note(reason)
                return None
            folded = self._folded
            if folded is None or not folded.is_fresh():
                folded = self.fold()
            weights, biases = folded.weights, folded.biases
        if is_cast:
            x = as_under_autocast(x, self.chain)
        x = x.unsqueeze(2) if self.dims == 1 else x
        if is_watched(x):
            y: Tensor = chain_operator(x, weights, biases, self.text)
        else:
            y = run_chain(x, weights, biases, self.chain)
        return y.squeeze(2) if self.dims == 1 else y

    def refresh(self) -> None:
        """Fold the weights anew if something changed; of traced tensors nothing is kept."""
        if self._folded is None or not self._folded.is_fresh():
            self.fold()

    def fold(self) -> Folded:
        """Fold the weights and biases, and keep them with the state of their tensors."""
        for (values, name), module in self.modules:
            if values.get(name) is not module:
                raise _changed(f"another {name}")
        slots = [slot for part in self.filters for slot in _tensor_slots(part)]
        for values, name in slots:
            if name not in values or (values[name] is None and name.startswith("running")):
                raise _changed(f"a layer without its {name}")
        assert _steps.hook is not None
        steps = _steps.count
        with torch.inference_mode(False), torch.no_grad():
            state = tuple((values, name, *_state(values[name])) for values, name in slots)
            if any(tensor is not None and tensor.is_inference() for _, _, tensor, *_ in state):
                note_inference()
            own = (*self.modules, *_settings(self.filters))
            folded = Folded(*self._fold(), state, own, steps)
        if type(folded.weights) is Tensor:
            self._folded = folded
        return folded

    def _fold(self) -> tuple[Tensor, Tensor | None]:
        device = next((weight.device for weight in self._weights()), torch.device("cpu"))
        pairs = [
            part.folded(stage, device)
            for part, stage in zip(self.filters, self.chain.stages, strict=True)
        ]
        weights = torch.cat([weight for weight, _ in pairs]).float()
        if not any(part.has_bias for part in self.filters):
            return weights, None
        return weights, torch.cat([bias for _, bias in pairs]).float()

    def _check_no_gradient(self, x: Tensor) -> None:
        if torch.compiler.is_exporting():
            return
        for name, tensor in (("an input", x), *self._trained()):
            if tensor.requires_grad:
                raise SettingError.because(
                    "a fused module computes no gradients",
                    got=f"{name} that requires one",
                    allowed="calls under torch.no_grad() or torch.inference_mode()",
                    remedy="train the module that was fused",
                )

    def _trained(self) -> list[tuple[str, Tensor]]:
        return [
            ("a parameter", tensor)
            for part in self.filters
            for module in (part.convolution, *part.norms)
            if module is not None
            for tensor in module._parameters.values()
            if tensor is not None
        ]


def _changed(got: str) -> SettingError:
    return SettingError.because(
        "a fused module was changed",
        got=got,
        allowed="its own layers",
        remedy="change the module that was fused, and fuse it again",
    )


def _tensor_slots(part: Filters) -> list[Slot]:
    """Return the slots of parameters and buffers: training changes no version but the counter's."""
    modules = [module for module in (part.convolution, *part.norms) if module is not None]
    slots: list[Slot] = []
    for module in modules:
        parameters = cast(dict[str, Any], module._parameters)
        slots += [(parameters, name) for name in dict.fromkeys(("weight", *parameters))]
        slots += [(cast(dict[str, Any], module._buffers), name) for name in module._buffers]
    return slots


def _settings(filters: Sequence[Filters]) -> Iterator[tuple[Slot, Any]]:
    """Yield the slots of what norms are set to, with it."""
    for part in filters:
        for norm in part.norms:
            yield (vars(norm), "eps"), norm.eps


def _state(tensor: Tensor | None) -> tuple[Tensor | None, int, int]:
    if tensor is None or tensor.is_inference() or type(tensor) not in (Tensor, nn.Parameter):
        return tensor, -1, -1
    return tensor, tensor._version, tensor.data_ptr()


@cache
def note_inference() -> None:
    """Warn, once in a process, that weights are folded at every call."""
    warnings.warn(
        "a fused module folds its weights at every call: its parameters were made under "
        "torch.inference_mode(), where changes are not counted; make it outside",
        stacklevel=6,
    )


@cache
def note(reason: str) -> None:
    """Warn, once in a process, that fused modules run layer by layer."""
    warnings.warn(f"a fused module runs layer by layer: {reason}", stacklevel=5)


# ---- which parts of a module are chains


@dataclass(frozen=True)
class Segment:
    """Consecutive submodules by name, and their chain if they are fused."""

    names: tuple[str, ...]
    run: Run | None = None


@dataclass
class Builder:
    """Stages that are collected layer by layer.

    `value`: the one that the next layer reads, behind `shuffles` that no stage has done yet.
    `dims`: spatial dimensions, 0 before the first layer. `closed`: whether the chain is a block,
    which no other convolution joins.
    """

    stages: list[Stage] = field(default_factory=list)
    filters: list[Filters] = field(default_factory=list)
    modules: list[tuple[Slot, nn.Module]] = field(default_factory=list)
    channels: list[int] = field(default_factory=lambda: [0])
    value: int = 0
    shuffles: tuple[int, ...] = ()
    dims: int = 0
    closed: bool = False
    most_spatial: int = _MOST_SPATIAL

    def copy(self) -> Self:
        """Return a builder with the same stages, to try a layer on."""
        return replace(
            self,
            stages=self.stages.copy(),
            filters=self.filters.copy(),
            modules=self.modules.copy(),
            channels=self.channels.copy(),
        )

    def run(self) -> Run | None:
        """Return the chain of the stages, if there are any."""
        if not self.stages:
            return None
        if self.shuffles:
            self.stages[-1] = replace(self.stages[-1], shuffle_out=self.shuffles)
        return Run(Chain(tuple(self.stages)), self.filters, self.modules, self.dims or 2)

    def add(self, parent: nn.Module, name: str) -> bool:
        """Add the submodule `name`; return whether it is one that a chain can have there.

        After False the builder is of no use.
        """
        module = parent._modules.get(name)
        if module is None or not is_plain(module):
            return False
        self.modules.append(((cast(dict[str, Any], parent._modules), name), module))
        kind = type(module)
        if kind in _CONVOLUTIONS or kind in _ROLLING:
            return not self.closed and self._convolution(module)
        if kind in _NORMS:
            return self._norm(module)
        if kind in _ACTIVATION_NAMES:
            return self._activate(_ACTIVATION_NAMES[kind])
        if kind is nn.ChannelShuffle:
            self.shuffles = (*self.shuffles, cast(int, module.groups))
            return True
        if kind in _IDENTITIES:
            return True
        if kind.forward is nn.Sequential.forward:
            return all(self.add(module, child) for child in module._modules)
        if kind is FreeShortcut:
            return self._subsampling(cast(FreeShortcut, module))
        return False

    def block(self, block: ChainModule) -> bool:
        """Add the layers of a block and its shortcut, as `add`."""
        start = self.value if block.shortcut_kind == "none" else self._settled()
        shortcut = start
        if block.shortcut_kind == "projection":
            names = [name for name in ("shortcut", "shortcut_bn") if name in block._modules]
            if not all(self.add(block, name) for name in names):
                return False
            shortcut, self.value = self.value, start
        if not all(self.add(block, name) for name in block.steps):
            return False
        if block.shortcut_kind == "none":
            return True
        if not self.channels[self.value]:  # channel shuffles alone do not say how many there are
            return False
        self._add_value(shortcut)
        return "act" not in block._modules or self.add(block, "act")

    def residual(self, module: Residual) -> bool:
        """Add the blocks of a residual block and its shortcut, as `add`."""
        start = self._settled()
        if not self.add(module, "shortcut"):
            return False
        shortcut, self.value = self._settled(), start
        blocks = module.units
        if not is_plain(blocks):
            return False
        for name, block in blocks._modules.items():
            if not (type(block) in _BLOCKS and isinstance(block, ChainModule) and is_plain(block)):
                return False
            self.modules.append(((cast(dict[str, Any], blocks._modules), name), block))
            if not self.block(block):
                return False
        self._add_value(shortcut)
        return self.add(module, "act")

    def _convolution(self, module: nn.Module) -> bool:
        conv = cast(nn.Conv2d, module)
        is_rolling = type(module) in _ROLLING
        kernel: tuple[int, ...] = (1,)
        stride: tuple[int, ...] = (1,)
        padding: tuple[int, ...] = (0,)
        if not is_rolling:
            if conv.padding_mode != "zeros" or set(conv.dilation) != {1}:
                return False
            kernel, stride, padding = conv.kernel_size, conv.stride, _padding(conv)
        if any(len(set(sizes)) > 1 for sizes in (kernel, stride, padding)):
            return False
        dims = (_ROLLING | _CONVOLUTIONS)[type(module)]
        if padding[0] >= kernel[0] or (dims == 1 and 2 * padding[0] != kernel[0] - 1):
            return False
        if not self._has_dims(dims, conv.in_channels):
            return False
        rolling = cast(RollingPointwiseConv2d, module)
        fan_in = conv.in_channels // conv.groups
        if fan_in * kernel[0] ** dims > _MOST_TAPS:
            return False
        self._stage(
            Filters(module),
            c_in=conv.in_channels,
            c_out=conv.out_channels,
            fan_in=fan_in,
            step=rolling.step if is_rolling else fan_in,
            order=rolling.order if is_rolling else BLOCKED,
            kernel=kernel[0],
            stride=stride[0],
            padding=padding[0],
        )
        return sum(stage.kernel > 1 for stage in self.stages) <= self.most_spatial

    def _has_dims(self, dims: int, channels: int) -> bool:
        """Return whether the current value has these spatial dimensions and channels."""
        if not self.dims:
            self.dims, self.channels[0] = dims, channels
        return (self.dims, self.channels[self.value]) == (dims, channels)

    def _stage(self, filters: Filters, **sizes: Any) -> None:
        source = -1 if self.value == len(self.stages) else self.value
        self.stages.append(Stage(shuffle_in=self.shuffles, source=source, **sizes))
        self.filters.append(filters)
        self.channels.append(sizes["c_out"])
        self.value, self.shuffles = len(self.stages), ()

    def _copy(self, channels: int, stride: int = 1) -> None:
        """Add a stage that copies channels 0 ... `channels` - 1."""
        c_in = self.channels[self.value]
        self._stage(Filters(None), c_in=c_in, c_out=channels, fan_in=1, step=1, stride=stride)

    def _settled(self) -> int:
        """Return the current value, its shuffles done."""
        if self.shuffles:
            self._copy(self.channels[self.value])
        return self.value

    @property
    def _last(self) -> Stage | None:
        """The stage whose output is the current value, while it can still be changed."""
        return self.stages[-1] if self.value == len(self.stages) > 0 else None

    def _norm(self, module: nn.Module) -> bool:
        norm, last = cast(nn.BatchNorm2d, module), self._last
        if last is None or self.shuffles or norm.running_mean is None or norm.running_var is None:
            return False
        if last.activation or last.residual is not None or norm.num_features != last.c_out:
            return False
        filters = self.filters[-1]
        self.filters[-1] = replace(filters, norms=(*filters.norms, module))
        return self.dims == _NORMS[type(module)] and filters.convolution is not None

    def _activate(self, name: str) -> bool:
        last = self._last  # an activation and a shuffle can change places
        if last is None or last.activation:
            return False
        self.stages[-1] = replace(last, activation=name)
        return True

    def _add_value(self, shortcut: int) -> None:
        """Add a value to the current one."""
        last = self._last
        if last is None or self.shuffles or last.activation or last.residual is not None:
            self._copy(self.channels[self.value])
        self.stages[-1] = replace(self.stages[-1], residual=shortcut)

    def _subsampling(self, shortcut: FreeShortcut) -> bool:
        if shortcut.out_channels > shortcut.in_channels:  # the others are zeros that read nothing
            return False
        if not self.dims:  # known by the blocks beside it, that follow
            self.dims, self.channels[0] = 2, shortcut.in_channels
        self._copy(shortcut.out_channels, shortcut.stride)
        return True


def _padding(conv: nn.Conv2d) -> tuple[int, ...]:
    """Return the padding of each axis; that of an even kernel and "same" is uneven, none fits."""
    if isinstance(conv.padding, tuple):
        return conv.padding
    if conv.padding == "valid":
        return (0,)
    return tuple(size // 2 if size % 2 else size for size in conv.kernel_size)


def _segments_of(module: nn.Module) -> tuple[Segment, ...]:
    """Return the segments of a module with their chains, none for one that is not fused."""
    kind = type(module)
    if kind not in _FUSED_CLASSES or not is_plain(module):
        return ()
    if kind is nn.Sequential:
        return _segments_of_sequence(module)
    builder = Builder()
    if isinstance(module, ChainModule):
        fits = builder.block(module)
    else:
        fits = builder.residual(cast(Residual, module))
    return (Segment(tuple(module._modules), builder.run()),) if fits else ()


def _segments_of_sequence(sequence: nn.Module) -> tuple[Segment, ...]:
    """Return the runs of plain layers of an nn.Sequential, and what is between them."""
    segments: list[Segment] = []
    builder, names = Builder(most_spatial=1), list[str]()

    def close() -> None:
        run = builder.run() if len(names) > 1 or not builder.closed else None
        if names:
            segments.append(Segment(tuple(names), run))

    for name, child in sequence._modules.items():
        trial = builder.copy()
        if trial.add(sequence, name):
            builder = trial
            names.append(name)
            continue
        close()
        builder, names = Builder(most_spatial=1), [name]
        if type(child) in _BLOCKS and isinstance(child, ChainModule) and is_plain(child):
            block = Builder(modules=[((cast(dict[str, Any], sequence._modules), name), child)])
            if block.block(child):
                block.closed, builder = True, block
                continue
        elif (trial := builder.copy()).add(sequence, name):
            builder = trial
            continue
        segments.append(Segment((name,)))
        names = []
    close()
    return tuple(segments)


# ---- fused modules


class Fused(nn.Module):
    """A module whose chains are computed in one pass; see `fuse`."""

    segments: tuple[Segment, ...]

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode.

        Raises: SettingError for training mode.
        """
        if mode:
            raise SettingError.because(
                "a fused module cannot be trained",
                got="train()",
                allowed="evaluation mode, eval()",
                remedy="train the module that was fused, whose parameters it shares",
            )
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Return the result of the module for x."""
        (segment,) = self.segments
        assert segment.run is not None
        y = segment.run(x)
        return cast(Tensor, super().forward(x)) if y is None else y

    def named_modules(self, *arguments: Any, **options: Any) -> Any:
        """Return the iterator of nn.Module, the weights folded.

        torch.export walks through the modules before it puts traced tensors in the place of their
        parameters. The exported program then has the folded weights as constants.
        """
        for segment in self.segments:
            if segment.run is not None:
                segment.run.refresh()
        return super().named_modules(*arguments, **options)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        for segment in self.segments:
            if segment.run is not None:
                segment.run.forget()
        return cast(Self, super()._apply(fn, recurse))  # type: ignore[no-untyped-call]


class FusedBlock(Fused, BlockModule):
    """A block that is computed in one pass; see `fuse`."""


class FusedCollapsedBlock(Fused, CollapsedBlock):
    """A collapsed block that is computed in one pass; see `fuse`."""


class FusedResidual(Fused, Residual):
    """A residual block that is computed in one pass; see `fuse`."""


class FusedSequential(Fused, nn.Sequential):
    """An nn.Sequential with runs of layers that are computed in one pass; see `fuse`.

    A slice of it is an nn.Sequential whose own runs are fused.
    """

    def __getitem__(self, index: Any) -> Any:
        """Return a layer, or an nn.Sequential of some."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        part = nn.Sequential(OrderedDict(list(self._modules.items())[index])).eval()
        _fuse_inside(part)
        return part

    def forward(self, x: Tensor) -> Tensor:
        """Return the result of the last layer for x."""
        if len(self._modules) != sum(len(segment.names) for segment in self.segments):
            raise _changed("another number of layers")
        for segment in self.segments:
            y = None if segment.run is None else segment.run(x)
            if y is None:
                for name in segment.names:
                    x = self._modules[name](x)
            else:
                x = y
        return x


_FUSED_CLASSES: Final[dict[type[nn.Module], type[Fused]]] = {
    BlockModule: FusedBlock,
    CollapsedBlock: FusedCollapsedBlock,
    Residual: FusedResidual,
    nn.Sequential: FusedSequential,
}
