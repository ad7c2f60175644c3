"""What is measured: conditions, blocks and layers in cases, and the trials that a runner times.

Blocks and kernels are two lists of cases. A case is what its candidates have in common, so that
their times may be compared: for blocks the widths, stride and spatial size, for kernels one layer.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import torch
from torch import Tensor

from ifspace.bench.forms import FORMS, layers_of
from ifspace.bench.machine import DTYPES, Work, passes, rounding
from ifspace.block import SizedBlock, SizedLayer
from ifspace.kernels.windows import ROLLING, Windows, windows_of
from ifspace.kinds import ConvKind, find_kind, grouped_pointwise_kind, rolling_pointwise_kind
from ifspace.measurements import (
    AS_IS,
    BOTH_WAYS,
    CALIBRATION,
    CATALOGUE,
    FORWARD,
    LAYOUTS,
    MODES,
)
from ifspace.nn.block import BlockModule, block_style, build
from ifspace.values import counted

if TYPE_CHECKING:
    from ifspace.catalogue.design import Design
    from ifspace.kernels.rpw.cpu import Plan

Tensors = tuple[Tensor, ...]
CandidateT = TypeVar("CandidateT")
ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)
MEMORY_FORMATS: Final = {LAYOUTS[0]: torch.channels_last, LAYOUTS[1]: torch.contiguous_format}

# The layers whose kernels are timed, as the file of their times names them; no kinds of `KINDS`.
RPW: Final = "RPW"
FUSED: Final = "DW+RPW"
# Kernel size of the depthwise convolution of the fused layer.
KERNEL: Final = 3
OURS: Final = "ours"
# What the ratios of a layer's candidates are to.
BASELINE_LAYER: Final = {RPW: "dense", FUSED: "DW, then dense"}
COMPILED_PREFIX: Final = "compiled "
# torch.compile unrolls a slice of every window.
MAX_UNROLLED: Final = 32


@dataclass(slots=True, eq=False)
class Trial(Generic[CandidateT]):
    """One candidate in one mode: its seconds, round by round, or the reason why there are none.

    `note`: what the candidate chose inside. `every_round`: it takes part in every round, however
    slow. `replayed`: on CUDA its launches are captured in a graph. `checked`: its output is
    compared before the rounds.
    """

    candidate: CandidateT
    mode: str = FORWARD
    compiled: bool = False
    reason: str = ""
    note: str = ""
    seconds: list[float] = field(default_factory=list)
    every_round: bool = True
    replayed: bool = True
    checked: bool = False


@dataclass(frozen=True, slots=True)
class Conditions:
    """What all blocks of a run have in common; `threads` are those of a CPU."""

    device: torch.device
    dtype: str
    layout: str = LAYOUTS[0]
    threads: int = 1
    style: str = "plain"
    modes: tuple[str, ...] = MODES
    compiled: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the tensors."""
        return DTYPES[self.dtype]

    def draw(self, *shape: int, seed: int = 0) -> Tensor:
        """Return a random feature map [N, C, H, W] in type and memory layout."""
        generator = torch.Generator(self.device).manual_seed(seed)
        drawn = torch.randn(shape, generator=generator, device=self.device)
        return self.in_layout(drawn.to(self.torch_dtype))

    def in_layout(self, tensor: Tensor) -> Tensor:
        """Return a tensor of four dimensions in the memory layout."""
        return tensor.contiguous(memory_format=MEMORY_FORMATS[self.layout])

    def build(self, candidate: "BlockCandidate", seed: int = 0) -> BlockModule:
        """Return the module of a candidate with fresh weights in type and memory layout."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build(
                candidate.sized, stride=candidate.stride, style=self.style, dtype=self.torch_dtype
            )
        return self._with_layout(module.to(self.device))

    def in_form(self, module: BlockModule, form: str) -> torch.nn.Module:
        """Return the module of a block in a form; another form than as it is in eval mode."""
        if form == AS_IS:
            return module
        was_training = module.training
        changed = FORMS[form].apply(module.eval())
        module.train(was_training)
        return self._with_layout(changed)

    def _with_layout(self, module: ModuleT) -> ModuleT:
        for weight in module.parameters():
            if weight.dim() == 4:
                weight.data = self.in_layout(weight.data)
        return module


# Blocks.

# Name, input shape, output shape and form: a block, whatever it is measured for.
BlockKey = tuple[str, tuple[int, ...], tuple[int, ...], str]


@dataclass(frozen=True, slots=True)
class BlockCandidate:
    """A block from [batch, C, size * stride, size * stride] to [batch, F, size, size].

    `side`: size of the output feature map, in pixels. `provider`: where the block comes from.
    `design`: the catalogue's row, whose claims are checked. `calibrates`: the block is measured for
    the latency model alone. `form`: as what it runs, of `FORMS`.
    """

    sized: SizedBlock
    side: int
    batch: int
    stride: int = 1
    provider: str = CATALOGUE
    design: "Design | None" = None
    calibrates: bool = False
    form: str = AS_IS

    @property
    def name(self) -> str:
        """The block, and its bottleneck if it has one."""
        bottleneck = self.sized.bottleneck
        return str(self.sized.block) + ("" if bottleneck is None else f", bottleneck {bottleneck}")

    @property
    def label(self) -> str:
        """The name, and the form if it is another than the block as it is."""
        return self.name if self.form == AS_IS else f"{self.name}, {self.form}"

    @property
    def key(self) -> BlockKey:
        """Name, shapes and form: equal for the same block from two sources."""
        return self.name, *self.shapes, self.form

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of input and output: blocks with the same can replace each other."""
        return self.in_shape, self.out_shape

    @property
    def in_shape(self) -> tuple[int, int, int, int]:
        """[N, C, H, W] of the input."""
        return self.batch, self.sized.channels, self.side * self.stride, self.side * self.stride

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """[N, F, H, W] of the output."""
        return self.batch, self.sized.out_channels, self.side, self.side

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a batch."""
        return self.sized.macs_per_pixel(self.stride) * self.batch * self.side**2

    @property
    def sides(self) -> tuple[int, ...]:
        """Spatial size before the first layer and after each layer.

        >>> from ifspace.block import Block
        >>> BlockCandidate(Block.parse("PW+DW+PW").at(16), side=7, batch=1, stride=2).sides
        (14, 14, 7, 7)
        """
        sides = [self.side * self.stride]
        for stride in self.sized.strides(self.stride):
            sides.append(sides[-1] // stride)
        return tuple(sides)

    def layers(self, conditions: Conditions) -> tuple[tuple[SizedLayer, int, int], ...]:
        """Return what its form computes: layers, each with its spatial sizes before and after."""
        style = block_style(conditions.style)
        sides = [self.side * self.stride]
        layers = []
        for layer, stride in layers_of(self.form, self.sized, self.stride, style):
            sides.append(sides[-1] // stride)
            layers.append((layer, sides[-2], sides[-1]))
        return tuple(layers)

    def params(self, conditions: Conditions) -> int:
        """Return the number of weights of its form, biases left out."""
        return sum(layer.params for layer, *_ in self.layers(conditions))

    def macs_per_pixel(self, conditions: Conditions) -> int:
        """Return the multiply-accumulates of its form for each pixel of the output."""
        layers = self.layers(conditions)
        return sum(layer.params * side**2 for layer, _, side in layers) // self.side**2

    def modes(self, conditions: Conditions) -> tuple[str, ...]:
        """Return the modes that its form is timed in.

        A module whose batch norm is folded is no training step of the block.
        """
        style = block_style(conditions.style)
        trains = self.form == AS_IS or (FORMS[self.form].trains and not style.batch_norm)
        return tuple(mode for mode in conditions.modes if trains or mode == FORWARD)

    def case(self, conditions: Conditions) -> str:
        """Return in words what it has in common with the candidates it is compared with."""
        text = (
            f"{self.sized.channels} to {self.sized.out_channels} channels, side {self.side}, "
            f"stride {self.stride}, {conditions.style} style"
        )
        text = CALIBRATION + text if self.calibrates else text
        if conditions.device.type != "cpu":
            return text
        return f"{text}, {counted(conditions.threads, 'thread')}"

    def columns(self, conditions: Conditions, mode: str) -> dict[str, Any]:
        """Return the columns of a row that say what was measured."""
        batch, out_channels, height, width = self.out_shape
        return {
            "case": self.case(conditions),
            "candidate": self.name,
            "provider": self.provider,
            "mode": mode,
            "dtype": conditions.dtype,
            "layout": conditions.layout,
            "N": batch,
            "C": self.sized.channels,
            "F": out_channels,
            "H": height,
            "W": width,
            "form": self.form,
        }

    def passes(self, conditions: Conditions, mode: str) -> tuple[Work, ...]:
        """Return the least work of each pass: that of a block whose layers are fused into one."""
        n, c_in, height, width = self.in_shape
        _, c_out, *_ = self.out_shape
        return passes(
            n * c_in * height * width,
            n * c_out * self.side**2,
            self.sized.params,
            self.macs,
            conditions.torch_dtype.itemsize,
            mode == BOTH_WAYS,
        )

    def bytes_needed(self, conditions: Conditions) -> int:
        """Return about how many bytes it holds: all that its layers write, with gradients."""
        n, c_in, height, width = self.in_shape
        written = self.sized.activations_per_pixel(self.stride) * n * self.side**2
        pass_count = 2 if BOTH_WAYS in conditions.modes else 1
        held = pass_count * (written + n * c_in * height * width) + 4 * self.sized.params
        return held * conditions.torch_dtype.itemsize

    def rpw_plans(self, conditions: Conditions) -> "tuple[Plan, ...]":
        """Return how the CPU kernel runs each rolling layer, by pixels and type."""
        if conditions.device.type != "cpu":
            return ()
        from ifspace.kernels.rpw.cpu import plan_for

        channels_last, dtype = conditions.layout == LAYOUTS[0], conditions.torch_dtype
        return tuple(
            plan_for(windows_of_layer(layer), self.batch * side**2, channels_last, dtype)
            for layer, side in zip(self.sized.layers, self.sides[1:], strict=True)
            if is_rolling(layer)
        )


def kind_of_run(layer: SizedLayer) -> ConvKind:
    """Return the kind that a layer runs as.

    A rolling pointwise convolution in blocked order without overlap runs as a grouped one.

    >>> from ifspace.block import Block
    >>> layers = Block.parse("RPW(4,0)+RPW(4,0,blocked)").at(16).layers
    >>> [kind_of_run(layer).symbol for layer in layers]
    ['RPW', 'GPW']
    """
    kind = find_kind(layer.layer.kind)
    is_grouped = kind is rolling_pointwise_kind() and windows_of_layer(layer).is_grouped
    return grouped_pointwise_kind() if is_grouped else kind


def is_rolling(layer: SizedLayer) -> bool:
    """Return whether a layer runs by the kernels of RPW."""
    return kind_of_run(layer) is rolling_pointwise_kind()


def windows_of_layer(layer: SizedLayer) -> Windows:
    """Return the windows table of a rolling pointwise convolution."""
    overlap, order = layer.layer.overlap or 0, layer.layer.order or ROLLING
    return windows_of(layer.c_in, layer.c_out, layer.groups, overlap, order)


class BlockInputs:
    """Inputs of blocks and gradients of their outputs, drawn once for each shape."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._drawn: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def draw(self, candidate: BlockCandidate, mode: str) -> tuple[Tensor, Tensor]:
        """Return x and, both ways, a gradient shaped as y; else x again."""
        x = self._draw(0, candidate.in_shape)
        if mode != BOTH_WAYS:
            return x, x
        return x.detach().requires_grad_(), self._draw(1, candidate.out_shape)

    def _draw(self, seed: int, shape: tuple[int, ...]) -> Tensor:
        if (seed, shape) not in self._drawn:
            self._drawn[seed, shape] = self._conditions.draw(*shape, seed=seed)
        return self._drawn[seed, shape]


def block_call(
    candidate: BlockCandidate, mode: str, conditions: Conditions, inputs: BlockInputs | None = None
) -> tuple[torch.nn.Module, Callable[[torch.nn.Module], Tensors]]:
    """Return the module of a candidate, and a function that runs such a module in a mode.

    The function returns y or, both ways, y and the gradients by x and every parameter.
    """
    x, grad = (inputs or BlockInputs(conditions)).draw(candidate, mode)
    module = conditions.in_form(conditions.build(candidate).eval(), candidate.form)
    module = module.train() if mode == BOTH_WAYS else module
    return module, partial(_both_ways if mode == BOTH_WAYS else _forward, x=x, grad=grad)


def run_block(candidate: BlockCandidate, mode: str, conditions: Conditions) -> None:
    """Build a block and run it once."""
    module, call = block_call(candidate, mode, conditions)
    call(module)


def _forward(module: torch.nn.Module, x: Tensor, grad: Tensor) -> Tensors:
    with torch.no_grad():
        return (module(x),)


def _both_ways(module: torch.nn.Module, x: Tensor, grad: Tensor) -> Tensors:
    """Return y, detached so that no graph lives on (`LayerCall`), and the gradients."""
    y = module(x)
    return (y.detach(), *torch.autograd.grad(y, (x, *module.parameters()), grad))


# Layers.


@dataclass(frozen=True, slots=True)
class LayerCase:
    """One layer to be timed: x [N, C, H, H] to y [N, C, H, H].

    >>> case = LayerCase(128, 512, 14, 4, "0.33")
    >>> case.name, case.windows.distinct
    ('RPW(4,0.33)', 256)
    >>> LayerCase(128, 512, 14, 4, "1/2", order="blocked").name
    'RPW(4,1/2,blocked)'
    """

    batch: int
    width: int
    side: int
    groups: int
    overlap: str
    layout: str = LAYOUTS[0]
    mode: str = FORWARD
    dtype: str = "fp32"
    kind: str = RPW
    order: str = ROLLING

    @property
    def name(self) -> str:
        """The layer without its shape."""
        order = "" if self.order == ROLLING else f",{self.order}"
        return f"{self.kind}({self.groups},{self.overlap}{order})"

    @property
    def shape(self) -> str:
        """Batch, width and side, as `--cases` takes them."""
        return f"{self.batch}x{self.width}x{self.side}"

    @property
    def windows(self) -> Windows:
        """The windows table of the RPW."""
        return windows_of(self.width, self.width, self.groups, self.overlap, self.order)

    @property
    def pixels(self) -> int:
        """N H W."""
        return self.batch * self.side * self.side

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the tensors."""
        return DTYPES[self.dtype]

    @property
    def rounding(self) -> float:
        """The relative distance of neighbouring numbers of the type."""
        return rounding(self.dtype)

    @property
    def both_ways(self) -> bool:
        """Whether the gradients by input and weights are computed too."""
        return self.mode == BOTH_WAYS

    def at_most(self, batch: int, side: int) -> "LayerCase":
        """Return the same layer on fewer pixels."""
        return replace(self, batch=min(self.batch, batch), side=min(self.side, side))

    def columns(self, candidate: "LayerCandidate", note: str = "") -> dict[str, Any]:
        """Return the columns of a row that say what was measured."""
        return {
            "case": self.name,
            "candidate": candidate.name,
            "provider": candidate.provider + (f": {note}" if note else ""),
            "mode": self.mode,
            "dtype": self.dtype,
            "layout": self.layout,
            "N": self.batch,
            "C": self.width,
            "F": self.width,
            "H": self.side,
            "W": self.side,
        }

    def passes(self) -> tuple[Work, ...]:
        """Return the least work of each pass.

        >>> LayerCase(1, 4, 2, 2, "1/2", mode="forward+backward").passes()
        (Work(moved=160, operations=64), Work(moved=256, operations=128))
        """
        elements = self.pixels * self.width
        weights, macs = self.windows.params, self.pixels * self.windows.params
        if self.kind == FUSED:
            weights += KERNEL * KERNEL * self.width
            macs += KERNEL * KERNEL * elements
        return passes(elements, elements, weights, macs, self.torch_dtype.itemsize, self.both_ways)

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.layout} {self.dtype} {self.mode}"


def unchanged(tensors: Tensors) -> Tensors:
    """Return the tensors."""
    return tensors


@dataclass(frozen=True, slots=True)
class Implementation:
    """A layer as a function of x and of its weights as the implementation keeps them.

    `pack` returns these from the layer's own weights; `unpack` returns the gradients by the layer's
    own weights from the gradients by the packed ones. Neither is timed: a training step would keep
    the packed weights. `note` says what was chosen inside.
    """

    forward: Callable[..., Tensor]
    pack: Callable[[Tensors], Tensors] = unchanged
    unpack: Callable[[Tensors], Tensors] = unchanged
    note: str = ""


@dataclass(frozen=True, slots=True)
class LayerCandidate:
    """One implementation of a layer to be timed.

    `exact`: it computes the layer itself, and must pass the gate. `expands`: it holds every window
    of x at once. `unrolled`: it has a step for every window. `forward_only`, `cuda_only`: its
    limits. `compiled`: by torch.compile.
    """

    name: str
    provider: str
    build: Callable[[LayerCase, torch.device], Implementation]
    kind: str = RPW
    exact: bool = True
    expands: bool = False
    unrolled: bool = False
    forward_only: bool = False
    cuda_only: bool = False
    compiled: bool = False

    def refusal(self, case: LayerCase, device: torch.device, max_bytes: float) -> str | None:
        """Return why the candidate cannot run in a case, or None."""
        if self.cuda_only and device.type != "cuda":
            return "a Triton kernel, for CUDA only"
        if self.cuda_only and find_spec("triton") is None:
            return "Triton is not installed"
        if self.forward_only and case.both_ways:
            return "it has no backward"
        if self.compiled and self.unrolled and case.windows.distinct > MAX_UNROLLED:
            return f"more than {MAX_UNROLLED} windows to unroll"
        if self.compiled and device.type == "cpu" and not _has_compiler():
            return "no C++ compiler"
        needed = self.bytes_needed(case)
        if needed > max_bytes:
            return f"it needs {needed / 2**30:.0f} GiB of {max_bytes / 2**30:.0f}"
        return None

    def bytes_needed(self, case: LayerCase) -> int:
        """Return about how many bytes it holds at once: tensors, windows, and copies of those."""
        elements = case.pixels * case.width
        held = elements * (5 if case.both_ways else 2)
        if self.expands:
            expanded = case.pixels * case.windows.distinct * case.windows.width
            held += expanded * (3 if case.both_ways else 2)
        return held * case.torch_dtype.itemsize


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
