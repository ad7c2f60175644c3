"""The kinds of convolution as torch modules: one class per kind, and the table that finds it.

Constructors follow torch.nn.Conv2d: channels first, then what the kind takes, then `stride`,
`bias`, `device` and `dtype`. Kernels are odd and padded by half of them: a map keeps its side.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from math import sqrt
from numbers import Rational
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import ChannelShuffle

from ifspace.block import Layer, SizedLayer
from ifspace.errors import BlockError, KernelError
from ifspace.kernels.rpw.operator import (
    IMPLEMENTATIONS,
    rolling_pointwise_conv2d,
)
from ifspace.kernels.tensors import check_input
from ifspace.kernels.windows import exact_overlap, windows_of
from ifspace.values import whole_number

Device = torch.device | str | None
Make = Callable[..., nn.Module]


class GroupConv2d(nn.Conv2d):
    """A group convolution (GC): each output reads k x k pixels of C_in / groups channels.

    >>> GroupConv2d(16, 32, groups=4)(torch.ones(1, 16, 8, 8)).shape
    torch.Size([1, 32, 8, 8])

    Raises: BlockError for groups that do not divide both widths or an even kernel.

    Reference: [Fog] section 2.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check("GC", in_channels, out_channels, stride, groups, kernel_size)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            kernel_size // 2,
            groups=groups,
            bias=bias,
            device=device,
            dtype=dtype,
        )


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution (DW): each output reads k x k pixels of its own channel.

    >>> DepthwiseConv2d(16, kernel_size=5, stride=2)(torch.ones(1, 16, 8, 8)).shape
    torch.Size([1, 16, 4, 4])

    Raises: BlockError for an even kernel.

    Reference: [Fog] section 2.3.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check("DW", channels, channels, stride, kernel=kernel_size)
        super().__init__(
            channels,
            channels,
            kernel_size,
            stride,
            kernel_size // 2,
            groups=channels,
            bias=bias,
            device=device,
            dtype=dtype,
        )


class PointwiseConv2d(nn.Conv2d):
    """A pointwise convolution (PW): each output reads all channels of one pixel.

    >>> PointwiseConv2d(16, 32)(torch.ones(1, 16, 8, 8)).shape
    torch.Size([1, 32, 8, 8])

    Reference: [Fog] section 2.4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check("PW", in_channels, out_channels, stride)
        super().__init__(
            in_channels, out_channels, 1, stride, bias=bias, device=device, dtype=dtype
        )


class GroupPointwiseConv2d(nn.Conv2d):
    """A group pointwise convolution (GPW): each output reads C_in / groups channels of one pixel.

    >>> GroupPointwiseConv2d(16, 32, groups=4).weight.shape
    torch.Size([32, 4, 1, 1])

    Raises: BlockError for groups that do not divide both widths.

    Reference: [Fog] section 2.5.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        stride: int = 1,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check("GPW", in_channels, out_channels, stride, groups)
        super().__init__(
            in_channels,
            out_channels,
            1,
            stride,
            groups=groups,
            bias=bias,
            device=device,
            dtype=dtype,
        )


class RollingPointwiseConv2d(nn.Module):
    """A rolling pointwise convolution (RPW): filter j reads w = C_in / groups channels from j s.

    The step is s = w - floor(overlap w); the windows wrap. `weight` is [C_out, w], `bias` [C_out].
    C_out may be any number. `impl` is that of `kernels.rpw.rolling_pointwise_conv2d`.

    >>> layer = RollingPointwiseConv2d(16, 32, groups=4, overlap=0.5)
    >>> layer(torch.ones(1, 16, 8, 8)).shape, layer.weight.shape
    (torch.Size([1, 32, 8, 8]), torch.Size([32, 4]))
    >>> layer
    RollingPointwiseConv2d(16, 32, groups=4, overlap=1/2)

    Raises: KernelError for groups that do not divide C_in, an overlap outside 0 <= o < 1, an
        implementation that does not exist, and at a call for an input that does not fit.

    Reference: [3DRF] section 4.2.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 1,
        overlap: float | str | Rational = 0,
        bias: bool = True,
        impl: str = "auto",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        windows = windows_of(in_channels, out_channels, groups, overlap)
        if impl not in IMPLEMENTATIONS:
            raise KernelError.because(
                "unknown implementation",
                got=repr(impl),
                allowed=", ".join(IMPLEMENTATIONS),
                remedy="leave it at auto",
                argument="impl",
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.overlap: Fraction = exact_overlap(overlap)
        self.impl = impl
        self.weight = nn.Parameter(
            torch.empty(out_channels, windows.width, device=device, dtype=dtype)
        )
        free = torch.empty(out_channels, device=device, dtype=dtype) if bias else None
        self.register_parameter("bias", None if free is None else nn.Parameter(free))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as torch.nn.Conv2d draws its own, by the fan-in w."""
        nn.init.kaiming_uniform_(self.weight, a=sqrt(5))
        if self.bias is not None:
            bound = 1 / sqrt(self.weight.shape[1])
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, C_out, H, W] of x [N, C_in, H, W]."""
        check_input(x, self.in_channels)
        return rolling_pointwise_conv2d(
            x, self.weight, self.bias, self.groups, self.overlap, self.impl
        )

    def extra_repr(self) -> str:
        """Return what the module's text says of it."""
        text = f"{self.in_channels}, {self.out_channels}, groups={self.groups}"
        text += f", overlap={self.overlap}"
        text += "" if self.bias is not None else ", bias=False"
        return text if self.impl == "auto" else f"{text}, impl={self.impl}"


class RollingPointwiseConv1d(RollingPointwiseConv2d):
    """The same on sequences: y [N, C_out, L] of x [N, C_in, L].

    >>> RollingPointwiseConv1d(16, 16, groups=4)(torch.ones(1, 16, 8)).shape
    torch.Size([1, 16, 8])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, C_out, L] of x [N, C_in, L], as maps of height 1."""
        check_input(x, self.in_channels, "L")
        return super().forward(x.unsqueeze(2)).squeeze(2)


def _conv1d(sized: SizedLayer, stride: int, **options: Any) -> nn.Module:
    # Every kind that is a convolution of torch is one with C_in / fan-in groups.
    return nn.Conv1d(
        sized.c_in,
        sized.c_out,
        sized.kernel,
        stride,
        sized.kernel // 2,
        groups=sized.c_in // sized.fan_in,
        **options,
    )


def _rolling(module: type[nn.Module]) -> Make:
    def make(sized: SizedLayer, stride: int, **options: Any) -> nn.Module:
        _refuse_stride(sized, stride)
        return module(sized.c_in, sized.c_out, sized.groups, sized.layer.overlap, **options)

    return make


def _shuffle(sized: SizedLayer, stride: int, **_: Any) -> nn.Module:
    _refuse_stride(sized, stride)
    return ChannelShuffle(sized.groups)


# Kind -> its module in two dimensions and in one, of (sized layer, stride, bias, device, dtype).
MODULES: Final[dict[str, tuple[Make, Make]]] = {
    "PW": (lambda x, stride, **o: PointwiseConv2d(x.c_in, x.c_out, stride, **o), _conv1d),
    "GC": (
        lambda x, stride, **o: GroupConv2d(x.c_in, x.c_out, x.kernel, stride, x.groups, **o),
        _conv1d,
    ),
    "DW": (lambda x, stride, **o: DepthwiseConv2d(x.c_in, x.kernel, stride, **o), _conv1d),
    "GPW": (
        lambda x, stride, **o: GroupPointwiseConv2d(x.c_in, x.c_out, x.groups, stride, **o),
        _conv1d,
    ),
    "RPW": (_rolling(RollingPointwiseConv2d), _rolling(RollingPointwiseConv1d)),
    "SH": (_shuffle, _shuffle),
    "CONV": (
        lambda x, stride, **o: nn.Conv2d(x.c_in, x.c_out, x.kernel, stride, x.kernel // 2, **o),
        _conv1d,
    ),
}


def layer_module(
    sized: SizedLayer,
    stride: int = 1,
    bias: bool = False,
    device: Device = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Return the module of a layer at its widths, on maps [N, C, H, W] or sequences [N, C, L].

    >>> layer_module(SizedLayer(Layer("GPW", 4), 16, 32))
    GroupPointwiseConv2d(16, 32, kernel_size=(1, 1), stride=(1, 1), groups=4, bias=False)

    Raises: BlockError for a kind without a module, or a stride on a kind that takes none.
    """
    makes: Mapping[str, tuple[Make, Make]] = MODULES
    if sized.layer.kind not in makes:
        raise BlockError.because(
            "no module for this kind",
            got=sized.layer.kind,
            allowed=", ".join(makes),
            remedy="add its row to ifspace.nn.layers.MODULES",
        )
    make = makes[sized.layer.kind][sized.dims == 1]
    return make(
        sized,
        whole_number(stride, "stride", error=BlockError),
        bias=bias,
        device=device,
        dtype=dtype,
    )


def thop_operators() -> dict[type[nn.Module], Callable[..., None]]:
    """Return `custom_ops` for `thop.profile`, which knows torch's own classes and no subclass.

    thop counts a multiply-accumulate as one:

        thop.profile(model, (x,), custom_ops=thop_operators())
    """

    def count(layer: Any, inputs: Any, y: Tensor) -> None:
        layer.total_ops += torch.DoubleTensor([y.numel() * layer.weight[0].numel()])

    ours = (
        GroupConv2d,
        DepthwiseConv2d,
        PointwiseConv2d,
        GroupPointwiseConv2d,
        RollingPointwiseConv2d,
        RollingPointwiseConv1d,
    )
    return dict.fromkeys(ours, count)


def _check(
    kind: str,
    c_in: int,
    c_out: int,
    stride: int,
    groups: int | None = None,
    kernel: int | None = None,
) -> None:
    """Refuse in one line what torch would refuse later, or would take for something else."""
    whole_number(c_in, "in_channels", error=BlockError)
    whole_number(c_out, "out_channels", error=BlockError)
    whole_number(stride, "stride", error=BlockError)
    SizedLayer(Layer(kind, groups, None, kernel), c_in, c_out)


def _refuse_stride(sized: SizedLayer, stride: int) -> None:
    if stride != 1:
        raise BlockError.because(
            f"{sized.layer.kind} takes no stride",
            got=stride,
            allowed=1,
            remedy="put the stride on a spatial layer such as DW",
            argument="stride",
        )
