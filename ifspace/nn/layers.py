"""The layers of blocks as torch modules: a table of kinds over `torch.nn.Conv2d(groups=...)`.

RPW, which torch does not have, is `RollingPointwiseConv2d`; every other kind is a module of torch.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from numbers import Rational
from typing import Any, Final, Literal, Self

import torch
from torch import Tensor, nn

from ifspace.block import SizedBlock, SizedLayer
from ifspace.errors import BlockError, KernelError
from ifspace.kernels.rpw import cpu
from ifspace.kernels.rpw.operator import (
    IMPLEMENTATIONS,
    choose_implementation,
    rolling_pointwise_at_step,
)
from ifspace.kernels.tensors import any_requires_grad, check_input, is_watched
from ifspace.kernels.thin import thin_conv2d
from ifspace.kernels.windows import ROLLING, exact_overlap, windows_at, windows_of
from ifspace.nn.checks import is_plain
from ifspace.values import whole_number

Device = torch.device | str | None
# Numbers of pixels down and across.
Pixels = tuple[int, int]
_has_global_hook: Final[Callable[[], bool]] = torch.nn.modules.module._has_any_global_hook


class RollingPointwiseConv2d(nn.Module):
    """A rolling pointwise convolution (RPW): every filter reads a window of w = C_in / groups.

    Windows start s = w - floor(overlap w) channels apart and wrap around. `order` says which of the
    P distinct ones filter j reads: "rolling" window j mod P, "blocked" window floor(j P / C_out).
    `weight` is [C_out, w] and `bias` [C_out] or None; C_out may be any number, in blocked order any
    from P. Without overlap the layer is a grouped convolution, in rolling order with a channel
    shuffle behind it. `impl` is that of `rolling_pointwise_conv2d`.

    The metadata of a state_dict say which windows its weight is for: one of other windows is
    refused, and one that does not say (a plain dict, or of an earlier version) is loaded with a
    warning.

    >>> layer = RollingPointwiseConv2d(16, 32, groups=4, overlap=0.5)
    >>> layer(torch.ones(1, 16, 8, 8)).shape, layer.weight.shape
    (torch.Size([1, 32, 8, 8]), torch.Size([32, 4]))
    >>> layer
    RollingPointwiseConv2d(16, 32, groups=4, overlap=1/2)
    >>> RollingPointwiseConv2d(16, 32, groups=4, order="blocked")
    RollingPointwiseConv2d(16, 32, groups=4, overlap=0, order=blocked)

    Raises: KernelError for groups that do not divide C_in, an overlap outside 0 <= o < 1, an
        unknown order or implementation, blocked order with fewer filters than windows, and in a
        call for an input that does not fit.

    Reference: [3DRF] section 4.2.
    """

    bias: nn.Parameter | None
    order: str = ROLLING  # of a module that was pickled before there were two

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
        order: str = ROLLING,
    ) -> None:
        super().__init__()
        windows = windows_of(in_channels, out_channels, groups, overlap, order)
        if impl not in IMPLEMENTATIONS:
            raise KernelError.because(
                "unknown implementation",
                got=repr(impl),
                allowed=", ".join(IMPLEMENTATIONS),
                remedy="leave it at auto",
                argument="impl",
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.overlap, self.step = exact_overlap(overlap), windows.step
        self.impl, self.order = impl, order
        self.weight = nn.Parameter(
            torch.empty(out_channels, windows.width, device=device, dtype=dtype)
        )
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as torch.nn.Conv2d does, with fan-in w."""
        nn.init.kaiming_uniform_(self.weight, a=sqrt(5))
        if self.bias is not None:
            bound = 1 / sqrt(self.weight.shape[1])
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, C_out, H, W] of x [N, C_in, H, W]."""
        check_input(x, self.in_channels)
        return rolling_pointwise_at_step(
            x, self.weight, self.bias, self.step, self.impl, self.order
        )

    def explain(self, x: Tensor) -> str:
        """Return which way computes the layer and its gradients for x [N, C_in, H, W], and why.

        >>> layer = RollingPointwiseConv2d(64, 64, groups=16, overlap=0.5)
        >>> print(layer.explain(torch.ones(1, 64, 28, 28)).splitlines()[0].split(" (")[0])
        forward: compiled

        Raises: KernelError and DeviceError, as a call would.
        """
        check_input(x, self.in_channels)
        impl = choose_implementation(x, self.impl)
        if impl != "cpu":
            return f"{impl} (on {x.device.type})"
        sizes = self.in_channels, self.out_channels, self.weight.shape[1], self.step
        return cpu.explain(x, windows_at(*sizes, self.order))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Weights of other windows have the same shape. torch keeps the metadata with the tensors.
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] |= {"step": self.step, "order": self.order}

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if prefix + "weight" in state_dict:
            saved = local_metadata.get("step"), local_metadata.get("order")
            if saved == (None, None):
                warnings.warn(
                    f"{prefix}weight does not say which windows it is for; taken as step "
                    f"{self.step}, {self.order} order",
                    stacklevel=2,
                )
            elif saved != (self.step, self.order):
                error_msgs.append(
                    f"{prefix}weight is for other windows: got step {saved[0]}, {saved[1]} order; "
                    f"allowed: step {self.step}, {self.order} order; build the layer with the "
                    "overlap and the order that it was trained with"
                )
                return
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def extra_repr(self) -> str:
        """Return the arguments that the module's `repr` shows."""
        text = f"{self.in_channels}, {self.out_channels}, groups={self.groups}"
        text += f", overlap={self.overlap}"
        text += f", order={self.order}" if self.order != ROLLING else ""
        text += "" if self.bias is not None else ", bias=False"
        return text if self.impl == "auto" else f"{text}, impl={self.impl}"


class RollingPointwiseConv1d(RollingPointwiseConv2d):
    """A rolling pointwise convolution of sequences: y [N, C_out, L] of x [N, C_in, L].

    >>> RollingPointwiseConv1d(16, 16, groups=4)(torch.ones(1, 16, 8)).shape
    torch.Size([1, 16, 8])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, C_out, L] of x [N, C_in, L], computed as feature maps of height 1."""
        check_input(x, self.in_channels, "L")
        y = rolling_pointwise_at_step(
            x.unsqueeze(2), self.weight, self.bias, self.step, self.impl, self.order
        )
        return y.squeeze(2)

    def explain(self, x: Tensor) -> str:
        """Return which way computes the layer and its gradients for x [N, C_in, L], and why."""
        check_input(x, self.in_channels, "L")
        return super().explain(x.unsqueeze(2))


@dataclass(frozen=True, slots=True)
class Geometry:
    """Which pixels spatial layers read: by default k x k neighbours, padded to keep the size.

    `dilation`: pixels from one that is read to the next, (down, across). `padding`: zeros on each
    side, (down, across); None for as many as keep the spatial size at stride 1. `axis`: kernels of
    blocks in one dimension lie along the "height" or the "width" of feature maps [N, C, H, W]; None
    for kernels of the block's own dimensions.

    >>> str(Geometry((2, 2))), str(Geometry(padding=(0, 0))), str(Geometry(axis="width"))
    ('dilation 2', 'padding 0', 'along the width')
    """

    dilation: Pixels = (1, 1)
    padding: Pixels | None = None
    axis: Literal["height", "width"] | None = None

    @classmethod
    def of(cls, layer: nn.Module) -> Self:
        """Return that of a convolution of odd kernel size; the default for other layers.

        >>> str(Geometry.of(nn.Conv2d(16, 16, 3, padding=2, dilation=2)))
        'dilation 2'
        >>> str(Geometry.of(nn.Conv2d(16, 16, (1, 7))))
        'along the width, padding 0'
        """
        if not isinstance(layer, nn.Conv2d):
            return cls()
        (height, width), (down, across) = layer.kernel_size, layer.dilation
        # Along an axis of one tap there is no dilation.
        down, across = down if height > 1 else 1, across if width > 1 else 1
        same = down * (height - 1) // 2, across * (width - 1) // 2
        padding = layer.padding
        if isinstance(padding, str):
            padding = same if padding == "same" else (0, 0)
        is_square = height == width
        return cls(
            (down, across),
            None if padding == same else (padding[0], padding[1]),
            None if is_square else "height" if height > width else "width",
        )

    @property
    def is_default(self) -> bool:
        """Whether it is that of all blocks outside of a network."""
        return self == Geometry()

    @property
    def keeps_size(self) -> bool:
        """Whether feature maps keep their size at stride 1."""
        return self.padding is None

    def size_in_pixels(self, taps: int) -> Pixels:
        """Return the (height, width) of what layers see that see so many taps along an axis.

        >>> Geometry((2, 2)).size_in_pixels(3), Geometry(axis="width").size_in_pixels(7)
        ((5, 5), (1, 7))
        """
        height, width = (d * (taps - 1) + 1 for d in self.dilation)
        return 1 if self.axis == "width" else height, 1 if self.axis == "height" else width

    def dims(self, sized: SizedLayer | SizedBlock) -> int:
        """Return how many spatial dimensions the feature maps of a block have."""
        return sized.dims if self.axis is None else 2

    def options_of(self, size: int, dims: int) -> dict[str, Any]:
        """Return the kernel, padding and dilation of a convolution of so many dimensions."""
        if size == 1 or self.is_default:
            return {"kernel_size": size, "padding": size // 2}
        along = {"height": (True, False), "width": (False, True), None: (True, True)}[self.axis]
        kernel = tuple(size if is_long else 1 for is_long in along)
        same = tuple(d * (k // 2) for d, k in zip(self.dilation, kernel, strict=True))
        padding = same if self.padding is None else self.padding
        options = {"kernel_size": kernel, "padding": padding, "dilation": self.dilation}
        return {name: pixels[-dims:] for name, pixels in options.items()}

    def __str__(self) -> str:
        words = [f"along the {self.axis}"] if self.axis else []
        for name, pixels in (("dilation", self.dilation), ("padding", self.padding)):
            if pixels is not None and (name, pixels) != ("dilation", (1, 1)):
                words.append(f"{name} {' x '.join(map(str, dict.fromkeys(pixels)))}")
        return ", ".join(words)


_DEFAULT_GEOMETRY: Final = Geometry()


def _convolution(
    sized: SizedLayer, stride: int, geometry: Geometry = _DEFAULT_GEOMETRY, **options: Any
) -> nn.Module:
    dims = geometry.dims(sized)
    convolution = nn.Conv1d if dims == 1 else nn.Conv2d
    return convolution(
        sized.c_in,
        sized.c_out,
        stride=stride,
        groups=sized.c_in // sized.fan_in,
        **geometry.options_of(sized.kernel, dims),
        **options,
    )


def _rolling(
    sized: SizedLayer, stride: int, geometry: Geometry = _DEFAULT_GEOMETRY, **options: Any
) -> nn.Module:
    _check_no_stride(sized, stride)
    dims = geometry.dims(sized)
    module = RollingPointwiseConv1d if dims == 1 else RollingPointwiseConv2d
    layer = sized.layer
    options |= {"order": layer.order or ROLLING}
    return module(sized.c_in, sized.c_out, sized.groups, layer.overlap or 0, **options)


def _shuffle(sized: SizedLayer, stride: int, **_: Any) -> nn.Module:
    _check_no_stride(sized, stride)
    return nn.ChannelShuffle(sized.groups)


# Kind -> how to build its module from (sized layer, stride, geometry, bias, device, dtype). A
# convolution of torch is one with C_in / fan-in groups.
MODULES: Final[dict[str, Callable[..., nn.Module]]] = {
    "PW": _convolution,
    "GC": _convolution,
    "DW": _convolution,
    "GPW": _convolution,
    "RPW": _rolling,
    "SH": _shuffle,
    "CONV": _convolution,
}


def layer_module(
    sized: SizedLayer,
    stride: int = 1,
    bias: bool = False,
    device: Device = None,
    dtype: torch.dtype | None = None,
    geometry: Geometry = _DEFAULT_GEOMETRY,
) -> nn.Module:
    """Return the module of a layer at its widths, for [N, C, H, W] or, in 1-D, [N, C, L].

    Kernels are odd and padded by half of them, so that a feature map keeps its size at stride 1,
    but for another `geometry`.

    >>> from ifspace.block import Layer
    >>> layer_module(SizedLayer(Layer("GPW", 4), 16, 32))
    Conv2d(16, 32, kernel_size=(1, 1), stride=(1, 1), groups=4, bias=False)

    Raises: BlockError for a kind without a module, or a stride for a kind that takes none.
    """
    if sized.layer.kind not in MODULES:
        raise BlockError.because(
            "no module for this kind",
            got=sized.layer.kind,
            allowed=", ".join(MODULES),
            remedy="add its row to ifspace.nn.layers.MODULES",
        )
    stride = whole_number(stride, "stride", error=BlockError)
    return MODULES[sized.layer.kind](
        sized, stride, geometry=geometry, bias=bias, device=device, dtype=dtype
    )


def run_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """Return layer(x); for inference that of a plain Conv2d as `thin_conv2d` computes it.

    Modules of torch stay what they are, for all that looks at them. Hooks, compilers, modes,
    transforms, exporters and autograd see them called.

    >>> with torch.no_grad():
    ...     run_layer(nn.Conv2d(4, 4, 3, groups=4, padding=1), torch.ones(1, 4, 2, 2)).shape
    torch.Size([1, 4, 2, 2])
    """
    y: Tensor
    if type(layer) is nn.Conv2d and _is_free(layer, x):
        stride, padding = layer.stride[0], int(layer.padding[0])
        y = thin_conv2d(x, layer.weight, layer.bias, stride, padding, layer.groups)
    else:
        y = layer(x)
    return y


def _is_free(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether nothing sees a convolution called that `thin_conv2d` can be asked for."""
    return (
        not any_requires_grad(x, conv.weight, conv.bias)
        and not is_watched(x)
        and is_plain(conv)
        and not _has_global_hook()
        and is_simple(conv)
    )


def is_simple(conv: nn.Conv2d) -> bool:
    """Return whether a convolution is one that `thin_conv2d` can be asked for."""
    return (
        conv.padding_mode == "zeros"
        and conv.dilation == (1, 1)
        and conv.stride[0] == conv.stride[1]
        and not isinstance(conv.padding, str)
        and conv.padding[0] == conv.padding[1]
        and conv.kernel_size[0] == conv.kernel_size[1]
    )


def thop_operators() -> dict[type[nn.Module], Callable[..., None]]:
    """Return `custom_ops` for `thop.profile`: how to count rolling pointwise convolutions.

    thop counts a multiply-accumulate as one:

        thop.profile(model, (x,), custom_ops=thop_operators())
    """

    def count(layer: Any, inputs: Any, y: Tensor) -> None:
        layer.total_ops += torch.DoubleTensor([y.numel() * layer.weight[0].numel()])

    return {RollingPointwiseConv2d: count, RollingPointwiseConv1d: count}


def _check_no_stride(sized: SizedLayer, stride: int) -> None:
    if stride != 1:
        raise BlockError.because(
            f"{sized.layer.kind} takes no stride",
            got=stride,
            allowed=1,
            remedy="put the stride on a spatial layer such as DW",
            argument="stride",
        )
