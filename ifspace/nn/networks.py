"""Networks: a layout of stages as a torch module, counted as the layout counts it.

Weights, biases and batch norm are those that the layout's frame counts; what it does not count
(activations, free shortcuts, pooling) is the style's.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import gcd
from typing import Any, Final

import torch
from torch import Tensor, nn

from ifspace.errors import KernelError, SettingError
from ifspace.kernels import flops  # noqa: F401 - from its import on torch counts RPW
from ifspace.nn.checks import check_dtype, check_seed, device_of, wrong_type
from ifspace.nn.joins import joins_of
from ifspace.nn.parts import Parts
from ifspace.nn.styles import NetworkStyle, network_style, style_of
from ifspace.stages.layout import (
    MAX_DEPTH,
    MAX_SIDE,
    Layout,
)
from ifspace.stages.networks import (
    SIDES,
    network,
)
from ifspace.values import whole_number

# Far above any data set.
MAX_CLASSES: Final = 10**6


class Network(nn.Module):
    """The network of a layout: stem, stages, and the classifier if there is one.

    It takes images [N, inputs, S, S] of the side S that the layout says (`layout.image`) and
    returns logits [N, classes], or without a classifier the maps of the last stage. Make it with
    `build_network` or `named_network`, which draw the weights.

    Raises: SettingError for a layout whose parts do not fit each other.
    """

    def __init__(
        self,
        layout: Layout,
        style: NetworkStyle | str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(layout, Layout):
            raise wrong_type(
                "layout",
                layout,
                "a Layout such as ifspace.stages.networks.stages returns",
                "named_network takes the name of a network",
            )
        check_dtype(dtype)
        self.layout = layout
        self.style = network_style(style, layout)
        parts = Parts(layout, self.style, device, dtype)
        joins = joins_of(layout)
        self.stem = parts.stem(joins.stem_strides)
        self.stages = nn.Sequential(
            OrderedDict(
                (f"stage{n}", parts.stage(join)) for n, join in enumerate(joins.stages, start=1)
            )
        )
        self.head = parts.head()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes] of images [N, inputs, S, S], or maps without a classifier.

        Raises: KernelError for images of another size.
        """
        dims = self.layout.stages[0].first.dims
        wanted = (self.layout.frame.inputs, *[self.layout.image] * dims)
        if tuple(x.shape[1:]) != wanted:
            raise KernelError.because(
                "input does not fit the network",
                got=list(x.shape),
                allowed=f"[N, {', '.join(map(str, wanted))}]",
                remedy="resize the images, or build the network for their size",
                argument="x",
            )
        y: Tensor = self.head(self.stages(self.stem(x)))
        return y

    def extra_repr(self) -> str:
        """Return what the module's text says of it."""
        return f"image={self.layout.image}, depths={self.layout.depths}, style={self.style}"


def build_network(
    layout: Layout,
    style: NetworkStyle | str | None = None,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """Return the network of a layout with fresh weights.

    `style`: a NetworkStyle; a network's name for its style, "plain" for no activation; None for
    ReLUs, with shortcuts where the layout counts projections. Weights of convolutions are drawn for
    ReLUs (He et al.) by their fan-in, their biases are 0; batch norm and dense layers begin as
    torch's do. The same `seed` draws the same weights and leaves torch's generators as they are;
    None draws from them.

    >>> from ifspace.stages.networks import stages
    >>> layout = stages("DW+PW", (8, 4), (16, 32), (1, 2))
    >>> made = build_network(layout, seed=0)
    >>> made(torch.ones(2, 3, 8, 8)).shape, sum(each.numel() for each in made.parameters())
    (torch.Size([2, 32, 4, 4]), 2043)
    >>> layout.params
    2043

    What the layout counts is built and nothing else. For batch norm and a classifier, say in place
    of those of a network that `ifspace layout --stages ... --save` wrote, change its frame:

    >>> from dataclasses import replace
    >>> frame = replace(made.layout.frame, batch_norm=True, classifier=(100,))
    >>> build_network(replace(made.layout, frame=frame))(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 100])

    Raises: SettingError for a layout whose parts do not fit each other or the style, or a wrong
        seed; BlockError for a stride without a spatial layer to hold it; DeviceError for a device
        that is not there.
    """
    check_seed(seed)
    if device is not None:
        device = device_of(device)
    with seeded(seed, device):
        made = Network(layout, style, device, dtype)
        _initialise(made)
    return made


def named_network(
    name: str,
    side: int = 32,
    depths: Sequence[int] | None = None,
    *,
    classes: int | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """Return a network of the papers, for images of side x side pixels.

    `depths`: those of its stages if not the network's own; `classes`: 10 for the small images and
    1000 for the large ones if not given. Weights are drawn as `build_network` does. The papers
    describe sides of 32 and 224; others scale the maps of the first up to 111, of the second from
    there on. For other widths, blocks or joins make a layout with `ifspace.stages.networks.stages`
    and a Frame, and give it to `build_network` with the network's name as its style.

    >>> made = named_network("resnet50", 224, device="meta")
    >>> sum(each.numel() for each in made.parameters())
    25557032
    >>> named_network("vgg11", 64, classes=100)(torch.ones(2, 3, 64, 64)).shape
    torch.Size([2, 100])

    Raises: SettingError for an unknown name or side, depths or classes that do not fit.
    """
    style = style_of(name)
    layout = _at_side(name, whole_number(side, "side", 1, MAX_SIDE))
    layout = layout if depths is None else layout.at_depths(_depths(depths))
    if classes is not None:
        dense = (
            *layout.frame.classifier[:-1],
            whole_number(classes, "classes", 1, MAX_CLASSES),
        )
        layout = replace(layout, frame=replace(layout.frame, classifier=dense))
    return build_network(layout, style, seed=seed, device=device, dtype=dtype)


def _at_side(name: str, side: int) -> Layout:
    small, large = SIDES
    layout = network(name, small if side < large // 2 else large)
    frame, image = layout.frame, layout.image
    sides = [each.side for each in layout.stages] + [each.side for each in frame.stem]
    step = image // gcd(image, *sides)  # the least side at which all are whole
    if side % step:
        raise SettingError.because(
            "maps of no whole number of pixels",
            got=f"side {side}",
            allowed=f"multiples of {step}",
            remedy="choose one of them",
            argument="side",
        )
    return Layout(
        tuple(replace(each, side=each.side * side // image) for each in layout.stages),
        replace(
            frame,
            stem=tuple(replace(each, side=each.side * side // image) for each in frame.stem),
            image=None if frame.image is None else side,
        ),
    )


def _depths(depths: Any) -> tuple[int, ...]:
    if isinstance(depths, str) or not isinstance(depths, Iterable):
        raise wrong_type(
            "depths", depths, "a whole number for each stage", "write them like (5, 4, 2, 1, 1)"
        )
    return tuple(whole_number(each, "depths", 1, MAX_DEPTH) for each in depths)


@contextmanager
def seeded(seed: int | None, device: torch.device | str | None) -> Iterator[None]:
    """Have torch draw from a seed for a while, on the CPU and on a device; None: from its own."""
    if seed is None:
        yield
        return
    where = torch.device("cpu" if device is None else device)
    on_cuda = where.type == "cuda"
    with torch.random.fork_rng([where] if on_cuda else []):
        # Not torch.manual_seed, which would seed devices that are not put back.
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(where):
                torch.cuda.manual_seed(seed)
        yield


def _initialise(made: Network) -> None:
    """Draw the weights of the convolutions anew.

    Reference: He et al., Delving Deep into Rectifiers, eq. 10.
    """
    for module in made.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        # Dense layers keep torch's own; what has fewer axes is batch norm.
        if isinstance(module, nn.Linear) or weight is None or weight.dim() < 2:
            continue
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")
        if bias is not None:
            nn.init.zeros_(bias)
