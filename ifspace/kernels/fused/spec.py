"""What a fused DW + RPW block is, apart from its tensors."""

from dataclasses import dataclass
from typing import Final

from ifspace.errors import KernelError
from ifspace.kernels.windows import Windows

KERNEL: Final = 3
ACTIVATIONS: Final = (None, "relu", "relu6", "silu")
STRIDES: Final = (1, 2)


@dataclass(frozen=True, slots=True)
class FusedSpec:
    """A depthwise 3x3 convolution with its affine and activation, then an RPW with its own.

    y = activation2(scale2 * rpw(activation1(scale1 * dw(x) + shift1)) + shift2): the padding is 1,
    the stride sits on the depthwise convolution. An affine is a batch norm folded, or is left out.

    >>> from ifspace.kernels.windows import windows_of
    >>> spec = FusedSpec(windows_of(16, 8, groups=4, overlap=0.5), stride=2, activation1="relu")
    >>> spec.output_shape((4, 16, 7, 1)), spec.macs((4, 16, 7, 1))
    ((4, 8, 4, 1), 2816)

    Raises: KernelError for another stride or activation.
    """

    windows: Windows
    stride: int = 1
    activation1: str | None = None
    activation2: str | None = None

    def __post_init__(self) -> None:
        check_options(self.stride, self.activation1, self.activation2)

    def middle_shape(self, x_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return the shape [N, C_in, H_out, W_out] between the two convolutions."""
        n, channels, height, width = x_shape
        return n, channels, -(-height // self.stride), -(-width // self.stride)

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return the shape [N, C_out, H_out, W_out] of y."""
        n, _, height, width = self.middle_shape(x_shape)
        return n, self.windows.out_channels, height, width

    def macs(self, x_shape: tuple[int, ...]) -> int:
        """Return the multiply-accumulates of a forward pass, 9 C_in + C_out w per output pixel."""
        n, channels, height, width = self.middle_shape(x_shape)
        return n * height * width * (KERNEL * KERNEL * channels + self.windows.params)


def check_options(stride: int, activation1: str | None, activation2: str | None) -> None:
    """Refuse what is no option of the block.

    Raises: KernelError for another stride or activation.
    """
    if type(stride) is not int or stride not in STRIDES:
        raise KernelError.because(
            "stride out of range",
            got=repr(stride),
            allowed="1 or 2",
            remedy="pool before the block for a larger one",
            argument="stride",
        )
    for name, given in (("activation1", activation1), ("activation2", activation2)):
        if given not in ACTIVATIONS:
            raise KernelError.because(
                f"unknown {name}",
                got=repr(given),
                allowed=", ".join(map(str, ACTIVATIONS)),
                remedy="choose one of them",
                argument=name,
            )
