"""Linear layers without an activation between them, as the one linear layer that they are.

A run of pointwise layers (PW, GPW, RPW, a shuffle, batch norm in eval mode) is one matrix, and one
spatial layer among them makes it one convolution: of as many groups as the product has blocks. What
is summed over the border of zero padding stays in its order: a bias before a padded layer is no
bias behind it, and two padded layers are no larger one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import islice
from itertools import product as pairs
from math import inf, prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ifspace.errors import SettingError
from ifspace.kernels.windows import dense_weight
from ifspace.nn.block import BlockModule, ChainModule
from ifspace.nn.checks import has_hooks, unwrapped, wrong_type
from ifspace.nn.layers import RollingPointwiseConv1d, RollingPointwiseConv2d

# The cost of one layer of a form. Its arguments: the layer, of a collapsed one on the meta device,
# and how many pixels it writes for each pixel that enters the run.
LayerCost = Callable[[nn.Module, Fraction], float]
MACS, LAYERS = "macs", "layers"
CHOICES: Final = (MACS, LAYERS)

# The layers of a run, in one dimension and two; exact types, for a subclass may compute something
# else.
_CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d)
_ROLLING: Final = (RollingPointwiseConv1d, RollingPointwiseConv2d)
_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d)
_WEIGHTED: Final = (*_CONVOLUTIONS, *_ROLLING)
_LINEAR: Final = (*_WEIGHTED, *_NORMS, nn.ChannelShuffle, nn.Identity)


class CollapsedBlock(ChainModule):
    """A block whose linear layers are collapsed: the layers that are left under their old names.

    The shortcut and the activation after the sum are those of the block. No notation describes it.
    """

    def __init__(self, block: BlockModule) -> None:
        super().__init__()
        described = {"sized", "stride", "style", "_last"}
        self.__dict__.update((k, v) for k, v in block.__dict__.items() if k not in described)


def collapse(module: nn.Module, choose: str | LayerCost = MACS) -> nn.Module:
    """Return a copy of a module in which runs of linear layers are collapsed, exact to rounding.

    A run is a sequence of convolutions, rolling pointwise convolutions, channel shuffles and batch
    norms in eval mode in an `nn.Sequential` or a block, or in some of them in a row, with nothing
    between. Batch norm is folded into the layer before it. Then each run is cut into parts, and a
    part is left as it is or becomes one convolution of as many groups as its matrix has blocks,
    with channel shuffles around it where these give it more. The cut is the best by `choose`:

    - "macs": the fewest multiply-accumulates, of these the fewest layers with weights. The blocks
      with the fewest parameters mostly stay as they are.
    - "layers": the fewest layers with weights, of these the fewest multiply-accumulates; a spatial
      layer takes in its neighbours only where that multiplies no more. A block such as
      DW+RPW+RPW+GPW becomes DW+PW.
    - a function `cost(layer, pixels)`: the least sum over the layers; `pixels`: how many a layer
      writes for each one that enters its run. A latency model is one.

    The copy is an ordinary module with weights of its own, in the mode of `module`. It can be
    trained, but as what it is: a dense layer does not keep the factors that it came from, and batch
    norm that was folded no longer normalises.

    >>> from ifspace.nn import build
    >>> collapse(build("DW+RPW(8,0)+GPW(8)", 64).eval(), choose="layers")
    CollapsedBlock(
      (layer0): Conv2d(64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), ...)
      (layer1): Conv2d(64, 64, kernel_size=(1, 1), stride=(1, 1), bias=False)
    )

    Raises: SettingError for a value that is no module, an unknown choice, or batch norm that is
        training.
    """
    module = unwrapped(module)
    if not isinstance(module, nn.Module):
        raise wrong_type("module", module, "a torch.nn.Module", "make one with build")
    if not callable(choose) and choose not in CHOICES:
        raise SettingError.because(
            "unknown choice of a form",
            got=repr(choose),
            allowed=f"{', '.join(CHOICES)}, or a function",
            remedy="leave it at macs",
            argument="choose",
        )
    _check_norms(module)
    root = nn.Sequential(deepcopy(module))
    occurrences = Counter(id(part) for _, part in root.named_modules(remove_duplicate=False))
    changed: set[nn.Module] = set()
    for chain in _chains(root, occurrences):
        for run in _runs(chain):
            stages = _stages(run)
            if stages:
                changed.update(_put(stages, _best_parts(stages, choose)))
    blocks = {block: _described_by_layers(block) for block in changed}
    for part in list(root.modules()):
        part._modules.update(
            {name: blocks[child] for name, child in part._modules.items() if child in blocks}
        )
    return root[0]


def _described_by_layers(container: nn.Module) -> nn.Module:
    """Return a container that was changed as one whose notation no longer describes it."""
    if not isinstance(container, ChainModule):
        return container
    is_empty = not container.steps and container.shortcut_kind == "none"
    if is_empty and not has_hooks(container):
        return nn.Identity()
    return CollapsedBlock(container) if isinstance(container, BlockModule) else container


def _check_norms(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, _NORMS) and part.training:
            raise SettingError.because(
                "batch norm is training",
                got=name or type(part).__name__,
                allowed="a module in eval mode, whose batch norm is linear",
                remedy="call module.eval() first",
                argument="module",
            )


# Chains: the layers of containers that run one after the other.


@dataclass(frozen=True, slots=True)
class _Entry:
    """A layer by its name in its container."""

    container: nn.Module
    name: str
    layer: nn.Module


def _chains(part: nn.Module, occurrences: Counter[int]) -> Iterator[list[_Entry]]:
    """Yield the longest chains of layers in a module, as it is when they are asked for."""
    if not _is_container(part):
        for child in part.children():
            yield from _chains(child, occurrences)
        return
    chain = list(_entries(part, occurrences))
    yield chain
    projection = [name for name in ("shortcut", "shortcut_bn") if name in part._modules]
    if isinstance(part, ChainModule) and projection:
        yield [_Entry(part, name, part.get_submodule(name)) for name in projection]
    for entry in chain:
        yield from _chains(entry.layer, occurrences)


def _entries(container: nn.Module, occurrences: Counter[int]) -> Iterator[_Entry]:
    """Yield the layers of a container, and in their place those of containers that it holds."""
    names = container.steps if isinstance(container, ChainModule) else tuple(container._modules)
    for name in names:
        layer = container.get_submodule(name)
        # One that occurs twice has other neighbours there, and hooks see what goes in and out.
        alone = occurrences[id(layer)] == 1 and not has_hooks(layer)
        if alone and _is_container(layer) and getattr(layer, "shortcut_kind", "none") == "none":
            yield from _entries(layer, occurrences)
        else:
            yield _Entry(container, name, layer)


def _is_container(module: nn.Module) -> bool:
    """Return whether a module runs its parts in a row."""
    if isinstance(module, nn.Sequential):
        return type(module).forward is nn.Sequential.forward
    return type(module) in (BlockModule, CollapsedBlock)


# Runs: linear layers of a chain, and what each of them does to channels and pixels.


@dataclass(frozen=True, slots=True)
class _Window:
    """The pixels that a layer reads: what `nn.Conv2d` takes, a number for each dimension."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    padding_mode: str = "zeros"

    @classmethod
    def pixel(cls, dims: int) -> "_Window":
        """Return the window of a pointwise layer."""
        return cls((1,) * dims, (1,) * dims, (0,) * dims, (1,) * dims)

    @property
    def is_pointwise(self) -> bool:
        """Whether an output is a function of one pixel inside the feature map."""
        return max(self.kernel) == 1 and max(self.padding) == 0

    @property
    def is_subsampled(self) -> bool:
        """Whether there are fewer outputs than pixels."""
        return max(self.stride) > 1

    def then(self, after: "_Window") -> "_Window | None":
        """Return the window of both layers as one, None where one cannot do the same.

        Of a subsampled feature map [0, 2, 4, ...] the zeros beside it are zeros, but other padding
        is of other pixels.
        """
        stride = tuple(a * b for a, b in zip(self.stride, after.stride, strict=True))
        if after.is_pointwise:
            return replace(self, stride=stride)
        if not self.is_pointwise or (self.is_subsampled and after.padding_mode != "zeros"):
            return None
        padding, dilation = (
            tuple(a * b for a, b in zip(self.stride, numbers, strict=True))
            for numbers in (after.padding, after.dilation)
        )
        return replace(after, stride=stride, padding=padding, dilation=dilation)


@dataclass(frozen=True, slots=True)
class _Map:
    """What a linear layer reads: channels [C_out, C_in], pixels, and whether it adds a constant."""

    reads: npt.NDArray[np.bool_]
    window: _Window
    has_bias: bool

    def then(self, after: "_Map") -> "_Map | None":
        """Return both layers as one; None where no convolution is exact at the border."""
        window = self.window.then(after.window)
        pads_zeros = max(after.window.padding) > 0 and after.window.padding_mode == "zeros"
        if window is None or (self.has_bias and pads_zeros):
            return None
        reads = (after.reads.astype(np.float32) @ self.reads.astype(np.float32)) > 0
        return _Map(reads, window, self.has_bias or after.has_bias)

    @property
    def pixels(self) -> Fraction:
        """How many pixels it writes for each one that it reads, of a large feature map."""
        return Fraction(1, prod(self.window.stride))


@dataclass(frozen=True, slots=True)
class _Stage:
    """A layer of a run, batch norms behind it folded in, and the entries that it is made of."""

    entries: tuple[_Entry, ...]
    layer: nn.Module
    map: _Map


def _dims(layer: nn.Module) -> int | None:
    """Return the spatial dimensions of a linear layer; None if it takes any."""
    for dims, types in enumerate(zip(_CONVOLUTIONS, _ROLLING, _NORMS, strict=True), start=1):
        if type(layer) in types:
            return dims
    return None


def _is_linear(layer: Any) -> bool:
    """Return whether a layer can be in a run."""
    if type(layer) not in _LINEAR or has_hooks(layer):
        return False
    if isinstance(layer, _NORMS):  # without running statistics it is never linear
        return layer.running_mean is not None
    is_odd = getattr(layer, "padding", None) == "same" and any(
        d * (k - 1) % 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
    )
    return not is_odd and not any(weight.is_complex() for weight in layer.parameters())


def _tensors(*layers: nn.Module) -> list[Tensor]:
    """Return the weights of layers; not the counters of batch norm."""
    tensors = (tensor for layer in layers for tensor in (*layer.parameters(), *layer.buffers()))
    return [tensor for tensor in tensors if tensor.dim()]


def _runs(chain: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """Yield the runs of linear layers: of one number of dimensions, dtype and device."""
    run: list[_Entry] = []
    kinds: set[Any] = set()
    for entry in chain:
        layer = entry.layer
        own = {(x.dtype, x.device) for x in _tensors(layer)} | ({_dims(layer)} - {None})
        is_alike = len({*kinds, *own}) <= 2 or not kinds
        if not _is_linear(layer) or not is_alike:
            yield run
            run, kinds = [], set()
        if _is_linear(layer):
            run.append(entry)
            kinds |= own
    yield run


def _stages(run: Sequence[_Entry]) -> list[_Stage]:
    """Return the layers of a run; none where nothing says how many channels there are."""
    dims = next((dims for entry in run if (dims := _dims(entry.layer))), None)
    widths = [_widths(entry.layer) for entry in run]
    width = next((pair[0] for pair in widths if pair), None)
    if dims is None or width is None:
        return []
    stages: list[_Stage] = []
    skipped: tuple[_Entry, ...] = ()
    for entry, pair in zip(run, widths, strict=True):
        layer = entry.layer
        if isinstance(layer, nn.Identity):
            skipped += (entry,)
            continue
        entries, skipped = (*skipped, entry), ()
        if isinstance(layer, _NORMS) and stages and isinstance(stages[-1].layer, _WEIGHTED):
            last = stages.pop()
            entries, layer = (*last.entries, *entries), _with_norm(last.layer, layer)
        stages.append(_Stage(entries, layer, _map(layer, width, dims)))
        width = width if pair is None else pair[1]
    if skipped:
        stages[-1] = replace(stages[-1], entries=(*stages[-1].entries, *skipped))
    return stages


def _widths(layer: nn.Module) -> tuple[int, int] | None:
    """Return the channels in and out of a linear layer; None if it takes any."""
    if isinstance(layer, _WEIGHTED):
        return layer.in_channels, layer.out_channels
    return (layer.num_features, layer.num_features) if isinstance(layer, _NORMS) else None


def _with_norm(layer: Any, norm: Any) -> nn.Module:
    """Return a copy of a layer that does what the layer and a batch norm in eval mode do."""
    copy: nn.Module = deepcopy(layer)
    names = ("weight", "bias"), ("running_mean", "running_var"), ("weight", "bias")
    sources = zip((layer, norm, norm), names, strict=True)
    tensors = [getattr(source, name) for source, pair in sources for name in pair]
    exact: list[Any] = [None if x is None else x.detach().double() for x in tensors]
    exact.insert(4, norm.eps)
    folded = fuse_conv_bn_weights(*exact)
    is_trained = any(x.requires_grad for x in (*layer.parameters(), *norm.parameters()))
    for name, tensor in zip(("weight", "bias"), folded, strict=True):
        setattr(copy, name, nn.Parameter(tensor.to(layer.weight.dtype), is_trained))
    return copy


def _map(layer: Any, width: int, dims: int) -> _Map:
    """Return what a linear layer reads; `width`: the channels of its input."""
    window = _Window.pixel(dims)
    if isinstance(layer, _CONVOLUTIONS):
        padding = layer.padding
        if isinstance(padding, str):
            sizes = zip(layer.dilation, layer.kernel_size, strict=True)
            padding = tuple(d * (k - 1) // 2 * (padding == "same") for d, k in sizes)
        window = _Window(
            layer.kernel_size, layer.stride, padding, layer.dilation, layer.padding_mode
        )
    ones = torch.ones(tuple(layer.weight.shape) if isinstance(layer, _WEIGHTED) else (width,))
    has_bias = isinstance(layer, _NORMS) or getattr(layer, "bias", None) is not None
    return _Map(_dense(layer, ones).any(2).numpy(), window, has_bias)


def _dense(layer: Any, weight: Tensor) -> Tensor:
    """Return a weight of a layer with the zeros of what it does not read, [C_out, C_in, taps].

    Batch norms and shuffles have one number for each channel.
    """
    if isinstance(layer, nn.ChannelShuffle):
        return weight.diag()[_sources(len(weight), layer.groups)][:, :, None]
    if isinstance(layer, _NORMS):
        return weight.diag()[:, :, None]
    if isinstance(layer, _ROLLING):
        return dense_weight(weight, layer.in_channels, layer.step, order=layer.order)[:, :, None]
    groups = weight.reshape(layer.groups, -1, *weight.flatten(2).shape[1:])
    blocks = torch.diag_embed(groups.movedim(0, -1), dim1=0, dim2=2)
    return blocks.flatten(2, 3).flatten(0, 1)


def _sources(width: int, groups: int) -> Tensor:
    """Return the channels that a shuffle puts first, second, ..."""
    return torch.arange(width).view(groups, -1).T.flatten()


def _values(layer: Any, width: int) -> tuple[Tensor, Tensor | None]:
    """Return the weight [C_out, C_in, taps] and the bias of a linear layer in float64 on a CPU."""
    if isinstance(layer, nn.ChannelShuffle):
        return _dense(layer, torch.ones(width, dtype=torch.float64)), None
    names = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, variance = (
        None if (tensor := getattr(layer, name, None)) is None else tensor.detach().cpu().double()
        for name in names
    )
    if mean is not None and variance is not None:
        scale = (variance + layer.eps).rsqrt() * (1 if weight is None else weight)
        weight, bias = scale, (0 if bias is None else bias) - mean * scale
    assert weight is not None
    return _dense(layer, weight), bias


def _product(stages: Sequence[_Stage]) -> tuple[Tensor, Tensor | None]:
    """Return the weight and the bias of consecutive layers as one."""
    weight, bias = _values(stages[0].layer, stages[0].map.reads.shape[1])
    for stage in stages[1:]:
        after, shift = _values(stage.layer, len(weight))
        # One of the two is pointwise, with one tap.
        weight = torch.einsum("ois,ict->ocst", after, weight).flatten(2)
        moved = None if bias is None else after.sum(2) @ bias
        bias = shift if moved is None else moved + (0 if shift is None else shift)
    return weight, bias


# Forms: a part of a run as one convolution.


@dataclass(frozen=True, slots=True)
class _Form:
    """One convolution between channel shuffles of so many groups; one group is no shuffle."""

    map: _Map
    groups: int
    shuffles: tuple[int, int] = (1, 1)

    @classmethod
    def all_of(cls, product: _Map) -> "tuple[_Form, ...]":
        """Return the form of most groups and, if shuffles allow for more, that with them."""
        inputs, outputs = _components(product.reads)
        c_out, c_in = product.reads.shape
        plain = (1, 1)
        shuffled: tuple[_Form, ...] = ()
        for groups in range(len(set(outputs.tolist())), 0, -1):
            if c_out % groups == 0 == c_in % groups:
                if _are_blocks(inputs, outputs, groups, plain):
                    return cls(product, groups), *shuffled
                if not shuffled:
                    fits = (
                        x for x in _shuffles(c_in, c_out) if _are_blocks(inputs, outputs, groups, x)
                    )
                    shuffled = tuple(cls(product, groups, x) for x in islice(fits, 1))
        raise AssertionError("one group always is")

    @property
    def macs(self) -> int:
        """Multiply-accumulates for each pixel that it writes."""
        return self.map.reads.size // self.groups * prod(self.map.window.kernel)

    def layers(self, dtype: torch.dtype) -> tuple[nn.Module, ...]:
        """Return its layers on the meta device."""
        (c_out, c_in), window = self.map.reads.shape, self.map.window
        convolution = _CONVOLUTIONS[len(window.kernel) - 1](
            c_in,
            c_out,
            window.kernel,  # type: ignore[arg-type]
            window.stride,  # type: ignore[arg-type]
            window.padding,  # type: ignore[arg-type]
            window.dilation,  # type: ignore[arg-type]
            self.groups,
            self.map.has_bias,
            window.padding_mode,  # type: ignore[arg-type]
            "meta",
            dtype,
        )
        before, after = ([nn.ChannelShuffle(n)] * (n > 1) for n in self.shuffles)
        return *before, convolution, *after

    def built(self, stages: Sequence[_Stage]) -> nn.Module:
        """Return its layers with the weights of what it stands for."""
        sources = [tensor for stage in stages for tensor in stage.layer.parameters()]
        like = _tensors(*(stage.layer for stage in stages))[0]
        layers = self.layers(like.dtype)
        (convolution,) = (layer for layer in layers if isinstance(layer, _WEIGHTED))
        if not like.is_meta:
            weight, bias = _product(stages)
            c_out, c_in = self.map.reads.shape
            before, after = self.shuffles
            rows, columns = _sources(c_out, after).argsort(), _sources(c_in, before)
            groups = weight[rows][:, columns].chunk(self.groups)
            blocks = [x.chunk(self.groups, 1)[number] for number, x in enumerate(groups)]
            values = {"weight": torch.cat(blocks).view(convolution.weight.shape)}
            values |= {} if bias is None else {"bias": bias[rows]}
            for name, value in values.items():
                setattr(convolution, name, nn.Parameter(value.to(like.device, like.dtype)))
        convolution.requires_grad_(any(source.requires_grad for source in sources))
        module = layers[0] if len(layers) == 1 else nn.Sequential(*layers)
        return module.train(stages[0].layer.training)


@cache
def _shuffles(c_in: int, c_out: int) -> tuple[tuple[int, int], ...]:
    """Return the groups of the shuffles that there can be around a convolution, few first."""
    befores, afters = ([n for n in range(1, c) if c % n == 0] or [1] for c in (c_in, c_out))
    return tuple(sorted(pairs(befores, afters), key=lambda pair: sum(n > 1 for n in pair)))


@cache
def _places(width: int, groups: int) -> npt.NDArray[np.int64]:
    """Return where a shuffle puts each channel."""
    return _sources(width, groups).argsort().numpy()


def _components(
    reads: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the component of each input and output: of channels that must be in one group.

    It is called by the first of its inputs; what no output reads is in none, -1.

    >>> _components(np.eye(3, dtype=bool)[[0, 1, 1]])
    (array([ 0,  1, -1]), array([0, 1, 1]))
    """
    c_in = reads.shape[1]
    inputs = np.arange(c_in)
    while True:
        outputs = np.where(reads, inputs, c_in).min(1)
        joined = np.where(reads, outputs[:, None], c_in).min(0)
        if np.array_equal(joined, inputs):
            return np.where(joined == c_in, -1, joined), outputs
        inputs = joined


def _are_blocks(
    inputs: npt.NDArray[np.int64],
    outputs: npt.NDArray[np.int64],
    groups: int,
    shuffles: tuple[int, int],
) -> bool:
    """Return whether components are within the groups of a convolution between shuffles.

    The input of the convolution is shuffled, and what it writes is shuffled into the output.
    """
    own = _places(len(inputs), shuffles[0]) * groups // len(inputs)
    is_read = inputs >= 0
    of_component = np.empty(len(inputs), dtype=np.int64)
    of_component[inputs[is_read]] = own[is_read]
    if not np.array_equal(of_component[inputs[is_read]], own[is_read]):
        return False
    # An output is where the shuffle took it from.
    writes = _places(len(outputs), shuffles[1]).argsort()
    return np.array_equal(of_component[outputs], writes * groups // len(outputs))


# The choice of forms, and where they are put.

# A part of a run: its first layer, the one behind its last, its form; None for one layer as it is.
_Part = tuple[int, int, _Form | None]
_Cost = tuple[Any, ...]


def _best_parts(stages: Sequence[_Stage], choose: str | LayerCost) -> tuple[_Part, ...]:
    """Return the parts of a run that cost the least together."""
    pixels = [Fraction(1)]
    for stage in stages:
        pixels.append(pixels[-1] * stage.map.pixels)

    @cache
    def product(start: int, end: int) -> _Map | None:
        if end - start == 1:
            return stages[start].map
        rest = product(start + 1, end)
        return None if rest is None else stages[start].map.then(rest)

    @cache
    def forms(start: int, end: int) -> tuple[_Form, ...]:
        whole = product(start, end)
        return () if whole is None else _Form.all_of(whole)

    best: list[tuple[_Cost, tuple[_Part, ...]]] = [((0, 0), ())]
    for end in range(1, len(stages) + 1):
        options = []
        for start in range(end - 1, -1, -1):
            whole: list[_Form | None] = [None]
            if end - start > 1:  # channel shuffles alone are no convolution
                has_weights = bool(_tensors(*(stage.layer for stage in stages[start:end])))
                whole = list(forms(start, end)) if has_weights else []
            if whole and choose == LAYERS:
                limit = _macs_apart(stages[start:end], pixels[start : end + 1], start, forms)
                whole = [x for x in whole if x is None or x.macs * pixels[end] <= limit]
            for form in whole:
                part = start, end, form
                before, parts = best[start]
                cost = _cost(stages, part, pixels, choose)
                total = tuple(a + b for a, b in zip(before, cost, strict=True))
                options.append((total, (*parts, part)))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def _macs_apart(
    stages: Sequence[_Stage],
    pixels: Sequence[Fraction],
    offset: int,
    forms: Callable[[int, int], Sequence[_Form]],
) -> Fraction | float:
    """Return what a spatial layer and the parts before and behind it multiply, all apart.

    No bound where there is no such layer. `forms` are those of parts of the run, in which the
    layers begin at an `offset`.
    """
    spatial = next((n for n, x in enumerate(stages) if not x.map.window.is_pointwise), None)
    if spatial is None:
        return inf
    macs: Fraction = _macs(stages[spatial].layer) * pixels[spatial + 1]
    for first, last in ((0, spatial), (spatial + 1, len(stages))):
        if last - first == 1:
            macs += _macs(stages[first].layer) * pixels[last]
        elif first < last:
            least = min(form.macs for form in forms(offset + first, offset + last))
            macs += least * pixels[last]
    return macs


def _macs(layer: nn.Module) -> int:
    """Return multiply-accumulates for each pixel that a layer writes: of weights, not of norms."""
    return layer.get_parameter("weight").numel() if isinstance(layer, _WEIGHTED) else 0


def _cost(
    stages: Sequence[_Stage], part: _Part, pixels: Sequence[Fraction], choose: str | LayerCost
) -> _Cost:
    start, end, form = part
    layer = stages[start].layer
    count = 0 if form is None and isinstance(layer, nn.ChannelShuffle) else 1
    if callable(choose):
        if form is None:
            return choose(layer, pixels[end]), count
        layers = form.layers(_tensors(*(stage.layer for stage in stages[start:end]))[0].dtype)
        # A shuffle before a convolution writes what the convolution reads.
        written = [pixels[end]] * len(layers)
        written[0] = pixels[start if form.shuffles[0] > 1 else end]
        return sum(map(choose, layers, written)), count
    macs = (_macs(layer) if form is None else form.macs) * pixels[end]
    return (macs, count) if choose == MACS else (count, macs)


def _put(stages: Sequence[_Stage], parts: Sequence[_Part]) -> Iterator[nn.Module]:
    """Put the parts where the layers were that they stand for; yield the containers changed."""
    for start, end, form in parts:
        first, *others = (entry for stage in stages[start:end] for entry in stage.entries)
        if form is None and not others:
            continue
        module = stages[start].layer if form is None else form.built(stages[start:end])
        first.container._modules[first.name] = module
        yield first.container
        for entry in others:
            if isinstance(entry.container, ChainModule):
                del entry.container._modules[entry.name]
                steps = entry.container.steps
                entry.container.steps = tuple(name for name in steps if name != entry.name)
            else:  # what is counted by a place stays there
                entry.container._modules[entry.name] = nn.Identity()
            yield entry.container
