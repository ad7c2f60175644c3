"""Networks: a layout of stages as a torch module, counted as the layout counts it.

Weights, biases and batch norm are those that the layout's frame counts; what it does not count
(activations, free shortcuts, pooling) is the style's.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ifspace.errors import KernelError
from ifspace.kernels import flops  # noqa: F401 - from its import on torch counts RPW
from ifspace.nn.joins import joins_of
from ifspace.nn.parts import Parts
from ifspace.nn.styles import NetworkStyle, style_for, style_of
from ifspace.plan.networks import network
from ifspace.plan.stages import Layout


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
        style: NetworkStyle | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.style = style_for(layout) if style is None else style
        parts = Parts(layout, self.style, device, dtype)
        joins = joins_of(layout)
        self.stem = parts.stem(joins.stem_strides)
        self.stages = nn.Sequential(OrderedDict(
            (f"stage{n}", parts.stage(join)) for n, join in enumerate(joins.stages, start=1)
        ))  # fmt: skip
        self.head = parts.head()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes] of images [N, inputs, S, S], or maps without a classifier.

        Raises: KernelError for images of another size.
        """
        dims = self.layout.stages[0].first.dims
        wanted = (self.layout.frame.inputs, *[self.layout.image] * dims)
        if tuple(x.shape[1:]) != wanted:
            raise KernelError.because(
                "input does not fit the network", got=list(x.shape),
                allowed=f"[N, {', '.join(map(str, wanted))}]",
                remedy="resize the images, or build the network for their size", argument="x",
            )  # fmt: skip
        y: Tensor = self.head(self.stages(self.stem(x)))
        return y

    def extra_repr(self) -> str:
        """Return what the module's text says of it."""
        return f"image={self.layout.image}, depths={self.layout.depths}, style={self.style}"


def build_network(
    layout: Layout,
    style: NetworkStyle | None = None,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """Return the network of a layout with fresh weights.

    `style`: `style_of` a network's name; None for ReLUs, with shortcuts where the layout counts
    projections. Weights of convolutions are drawn for ReLUs (He et al.) by their fan-in, their
    biases are 0; batch norm and dense layers begin as torch's do. The same `seed` draws the same
    weights and leaves torch's generators as they are; None draws from them.

    >>> from ifspace.plan.networks import stages
    >>> layout = stages("DW+PW", (8, 4), (16, 32), (1, 2))
    >>> made = build_network(layout, seed=0)
    >>> made(torch.ones(2, 3, 8, 8)).shape, sum(each.numel() for each in made.parameters())
    (torch.Size([2, 32, 4, 4]), 2043)
    >>> layout.params
    2043

    Raises: SettingError for a layout whose parts do not fit each other or the style; BlockError for
        a stride without a spatial layer to hold it.
    """
    with _seeded(seed, device):
        made = Network(layout, style, device, dtype)
        _initialise(made)
    return made


def named_network(
    name: str,
    side: int = 32,
    depths: Sequence[int] | None = None,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """Return a network of the papers, for images of 32 x 32 or 224 x 224 pixels.

    `depths`: those of its stages if not the network's own. Weights are drawn as `build_network`
    does.

    >>> made = named_network("resnet50", 224, device="meta")
    >>> sum(each.numel() for each in made.parameters())
    25557032

    Raises: SettingError for an unknown name or side, or depths that do not fit.
    """
    layout = network(name, side)
    layout = layout if depths is None else layout.at_depths(depths)
    return build_network(layout, style_of(name), seed=seed, device=device, dtype=dtype)


@contextmanager
def _seeded(seed: int | None, device: torch.device | str | None) -> Iterator[None]:
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
