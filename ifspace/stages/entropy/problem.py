"""Layouts of bottlenecks that are chosen by their entropy: the problem, and plans that recount.

A network is a 3x3 stem that halves the image and stages of residual bottlenecks (1x1, k x k, 1x1);
the first of a stage has a shortcut of its own, a 1x1 convolution behind an average pooling where
the stage halves the map. Every convolution is followed by batch norm; MACs count three operations
for each number that a convolution writes, for the norm and the activation, and one for each that
the pooling reads.

The entropy at the end of stage i is H_i = 1/2 ln 27 + the sum over its blocks and those before of
1/2 ln(c_in b^2 k^2). The score is the sum over the counted ends of their ratio times
(ln c + 2 ln r) H, less 10 exp of the standard deviation of the last stages' depths. After d layers
ln d - 2 H / d may be at most ln of the effectiveness: a network that is too deep for its width
does not train.

Reference: DeepMAD (Shen et al., CVPR 2023, arXiv 2303.02165), the task of its released searches.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import exp, fsum, log
from statistics import pstdev
from typing import Final

from ifspace.block import Block, SizedLayer
from ifspace.errors import ARGUMENT, SettingError
from ifspace.stages.layout import Layout, Stage, StemAndHead, StemLayer
from ifspace.values import counted, listed

# Operations for each number that a convolution writes: norm and activation.
_AFTER: Final = 3
_IMAGE_CHANNELS: Final = 3
_STEM_KERNEL: Final = 3


@dataclass(frozen=True, slots=True)
class Bottlenecks:
    """A stage: blocks of 1x1 to `bottleneck` channels, a `kernel`, and 1x1 to `width` channels."""

    width: int
    bottleneck: int
    kernel: int
    depth: int

    def __str__(self) -> str:
        """Return the stage as width, depth, bottleneck and kernel.

        >>> print(Bottlenecks(512, 48, 5, 10))
        512 x10 (48, k5)
        """
        return f"{self.width} x{self.depth} ({self.bottleneck}, k{self.kernel})"


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution with its batch norm: `pixels` that it writes, `pooled` that its input had."""

    c_in: int
    c_out: int
    kernel: int
    pixels: int
    pooled: int = 0

    @property
    def params(self) -> int:
        """Weights, and two numbers of the norm for each channel."""
        return self.kernel**2 * self.c_in * self.c_out + 2 * self.c_out

    @property
    def macs(self) -> int:
        """Multiplications and additions of one image, norm, activation and pooling included."""
        own = (self.kernel**2 * self.c_in + _AFTER) * self.c_out * self.pixels
        return own + self.c_in * self.pooled


@dataclass(frozen=True, slots=True)
class EntropyPlan:
    """A network: channels of the stem, and its stages."""

    stem: int
    stages: tuple[Bottlenecks, ...]

    def __str__(self) -> str:
        """Return the widths, depths, bottlenecks and kernels on one line."""
        return f"stem {self.stem}; " + "; ".join(map(str, self.stages))


@dataclass(frozen=True, slots=True)
class EntropyProblem:
    """What is asked: budgets in parameters and MACs of one image, and the choices of each stage.

    `side`: of the image; `strides`: of the stages. Widths and bottlenecks are multiples of `step`;
    a stage is at most `growth` times as wide as what it reads, a bottleneck at least width /
    `squeeze`. `ratios`: of the stem and each stage, 0 where the end of a stage does
    not count. `uneven`: the price of depths that differ, from stage `even_from` on, which counts
    from 1. `depths`, `widths`: least and most blocks and
    channels of each stage. `effectiveness`: the most of d exp(-2H/d).

    >>> EntropyProblem(params=21_800_000, macs=3_680_000_000).sides
    (112, 56, 28, 14, 14, 7)

    Raises: SettingError for settings that contradict each other.
    """

    params: int
    macs: int
    side: int = 224
    strides: tuple[int, ...] = (2, 2, 2, 1, 2)
    stem_widths: tuple[int, int] = (8, 32)
    kernels: tuple[int, ...] = (3, 5)
    step: int = 8
    growth: int = 4
    squeeze: int = 10
    depths: tuple[tuple[int, int], ...] = ((1, 3), (1, 64), (1, 64), (1, 64), (1, 64))
    widths: tuple[tuple[int, int], ...] = ((8, 2048),) * 5
    ratios: tuple[int, ...] = (1, 1, 1, 0, 1, 8)
    uneven: int = 10
    even_from: int = 3
    effectiveness: float = 0.3

    def __post_init__(self) -> None:
        """Check that amounts are within reason and that the lists are as long as the stages."""
        for name, value, least in (
            ("params", self.params, 1),
            ("macs", self.macs, 1),
            ("side", self.side, 2),
            ("step", self.step, 1),
            ("uneven", self.uneven, 0),
            ("even_from", self.even_from, 1),
            ("ratios", min(self.ratios, default=0), 0),
        ):
            if value < least:
                raise SettingError.because(
                    f"{ARGUMENT} out of range",
                    got=value,
                    allowed=f"numbers from {least}",
                    remedy="raise it",
                    argument=name,
                )
        count = len(self.strides)
        for name, values, size in (
            ("depths", self.depths, count),
            ("widths", self.widths, count),
            ("ratios", self.ratios, count + 1),
        ):
            if len(values) != size:
                raise SettingError.because(
                    f"{name} of another number of stages",
                    got=len(values),
                    allowed=f"{size} for strides {listed(map(str, self.strides))}",
                    remedy=f"give one of the {name} for each",
                )

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the map behind the stem and behind each stage."""
        sides = [self.side // 2]
        for stride in self.strides:
            sides.append(-(-sides[-1] // stride))
        return tuple(sides)

    def convolutions(self, plan: EntropyPlan) -> Iterator[Convolution]:
        """Yield every convolution of a plan in the order in which they run."""
        sides = self.sides
        yield Convolution(_IMAGE_CHANNELS, plan.stem, _STEM_KERNEL, sides[0] ** 2)
        width = plan.stem
        for stage, stride, before, after in zip(
            plan.stages, self.strides, sides[:-1], sides[1:], strict=False
        ):
            inner = stage.bottleneck
            for block in range(stage.depth):
                entering = before if block == 0 else after
                yield Convolution(width, inner, 1, entering**2)
                yield Convolution(inner, inner, stage.kernel, after**2)
                yield Convolution(inner, stage.width, 1, after**2)
                if block == 0:
                    pooled = before**2 if stride > 1 else 0
                    yield Convolution(width, stage.width, 1, after**2, pooled)
                width = stage.width

    def params_of(self, plan: EntropyPlan) -> int:
        """Return the parameters of a plan."""
        return sum(layer.params for layer in self.convolutions(plan))

    def macs_of(self, plan: EntropyPlan) -> int:
        """Return the MACs of a plan for one image."""
        return sum(layer.macs for layer in self.convolutions(plan))

    def entropies(self, plan: EntropyPlan) -> tuple[float, ...]:
        """Return the entropy at the end of the stem and of each stage."""
        entropies = [0.5 * log(_STEM_KERNEL**2 * _IMAGE_CHANNELS)]
        width = plan.stem
        for stage in plan.stages:
            blocks = []
            for _ in range(stage.depth):
                blocks.append(0.5 * log(width * stage.bottleneck**2 * stage.kernel**2))
                width = stage.width
            entropies.append(fsum((entropies[-1], *blocks)))
        return tuple(entropies)

    def score_of(self, plan: EntropyPlan) -> float:
        """Return the score of a plan."""
        widths = (plan.stem, *(stage.width for stage in plan.stages))
        entropies = self.entropies(plan)
        total = fsum(
            ratio * (log(width) + 2 * log(side)) * entropy
            for ratio, width, side, entropy in zip(
                self.ratios, widths, self.sides, entropies, strict=True
            )
        )
        depths = [stage.depth for stage in plan.stages[self.even_from - 1 :]]
        return total - (self.uneven * exp(pstdev(depths)) if depths else 0.0)

    def effectiveness_of(self, plan: EntropyPlan) -> tuple[float, ...]:
        """Return d exp(-2 H / d) at the end of each stage."""
        effectiveness, depth = [], 1
        for stage, entropy in zip(plan.stages, self.entropies(plan)[1:], strict=True):
            depth += 3 * stage.depth
            effectiveness.append(depth * exp(-2 * entropy / depth))
        return tuple(effectiveness)

    def why_not(self, plan: EntropyPlan) -> str | None:
        """Return the first limit that a plan breaks, None if it keeps all."""
        if len(plan.stages) != len(self.strides):
            return f"{counted(len(plan.stages), 'stage')} instead of {len(self.strides)}"
        if not self.stem_widths[0] <= plan.stem <= self.stem_widths[1] or plan.stem % self.step:
            return f"a stem of {plan.stem} channels"
        width = plan.stem
        for number, (stage, (least, most), (narrow, wide)) in enumerate(
            zip(plan.stages, self.depths, self.widths, strict=True), 1
        ):
            where = f"in stage {number}"
            fits = narrow <= stage.width <= min(wide, self.growth * width)
            if not fits or stage.width % self.step:
                return f"{stage.width} channels {where} after {width}"
            inner = stage.bottleneck
            if inner > stage.width or self.squeeze * inner < stage.width or inner % self.step:
                return f"a bottleneck of {inner} of {stage.width} channels {where}"
            if stage.kernel not in self.kernels:
                return f"a kernel of {stage.kernel} {where}"
            if not least <= stage.depth <= most:
                return f"{stage.depth} blocks {where}"
            width = stage.width
        if self.params_of(plan) > self.params:
            return f"{self.params_of(plan):,} parameters"
        if self.macs_of(plan) > self.macs:
            return f"{self.macs_of(plan):,} MACs"
        for number, value in enumerate(self.effectiveness_of(plan), 1):
            if value > self.effectiveness:
                return f"an effectiveness of {value:.4f} after stage {number}"
        return None

    @property
    def least_plan(self) -> EntropyPlan:
        """The plan with all widths, bottlenecks, kernels and depths at their least."""
        step, widths = self.step, []
        least = 0
        for narrow, _ in reversed(self.widths):
            least = max(step, narrow, -(-least // self.growth))
            least += -least % step
            widths.append(least)
        stem = max(self.stem_widths[0], -(-least // self.growth))
        return EntropyPlan(
            stem + -stem % step,
            tuple(
                Bottlenecks(
                    width,
                    step * -(-width // (step * self.squeeze)),
                    min(self.kernels),
                    depth,
                )
                for width, (depth, _) in zip(reversed(widths), self.depths, strict=True)
            ),
        )

    def layout_of(self, plan: EntropyPlan, classes: int) -> Layout:
        """Return a plan as a layout with batch norm, projections and a head to some classes."""
        sides, strides = self.sides, self.strides
        stem: SizedLayer = Block.parse(f"CONV({_STEM_KERNEL})").at(3, plan.stem).layers[0]
        stages, width = [], plan.stem
        for stage, side, stride in zip(plan.stages, sides, strides, strict=False):
            block = Block.parse(f"PW+CONV({stage.kernel})+PW")
            ratio = Fraction(stage.bottleneck, stage.width)
            first, repeated = (
                block.at(entry, stage.width, ratio) for entry in (width, stage.width)
            )
            stages.append(Stage(side, first, repeated, stage.depth, stride))
            width = stage.width
        return Layout(
            tuple(stages),
            StemAndHead(
                stem=(StemLayer(stem, sides[0]),),
                batch_norm=True,
                projections=True,
                classifier=(classes,),
                image=self.side,
            ),
        )


# The budgets that the released networks were searched under, and these networks.
RELEASED_BUDGETS: Final = {
    "R18": (11_690_000, 1_820_000_000),
    "R34": (21_800_000, 3_680_000_000),
    "R50": (25_550_000, 4_130_000_000),
}
