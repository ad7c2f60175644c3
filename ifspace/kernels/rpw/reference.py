"""Rolling pointwise convolution (RPW) in eager PyTorch: the semantics, window by window.

All other implementations are tested against this one. The three functions are closed under
differentiation: the derivative of each is made of the other two.

Reference: [3DRF] section 4.2.
"""

import torch
from torch import Tensor

from ifspace.kernels.tensors import empty_with_channels
from ifspace.kernels.windows import Windows


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """Return y [N, C_out, H, W] of x [N, C_in, H, W], weight [C_out, w] and bias [C_out].

    y[n, j] = bias[j] + sum over t < w of weight[j, t] x[n, (p s + t) mod C_in], p the window that
    filter j reads.
    """
    y = empty_with_channels(x, windows.out_channels)
    for channels, filters in _readers(windows, x):
        y[:, filters] = torch.einsum("nchw,fc->nfhw", x[:, channels], weight[filters])
    return y if bias is None else y.add_(bias[:, None, None])


def input_grad(grad: Tensor, weight: Tensor, windows: Windows) -> Tensor:
    """Return the gradient [N, C_in, H, W] by x of <grad, y>, for grad [N, C_out, H, W]."""
    grad_x = empty_with_channels(grad, windows.in_channels).zero_()
    for channels, filters in _readers(windows, grad):
        grad_x[:, channels] += torch.einsum("nfhw,fc->nchw", grad[:, filters], weight[filters])
    return grad_x


def weight_grad(
    grad: Tensor, x: Tensor, windows: Windows, with_bias: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the gradients [C_out, w] and [C_out] by weight and bias of <grad, y>.

    The second is empty unless `with_bias`.
    """
    grad_weight = grad.new_empty(windows.out_channels, windows.width)
    for channels, filters in _readers(windows, x):
        grad_weight[filters] = torch.einsum("nfhw,nchw->fc", grad[:, filters], x[:, channels])
    return grad_weight, grad.sum((0, 2, 3)) if with_bias else grad.new_empty(0)


def _readers(windows: Windows, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return for every window with a filter its channels and the filters that use it."""
    device = like.device
    within = torch.arange(windows.width, device=device)
    return [
        (
            (start + within) % windows.in_channels,
            torch.arange(filters.start, filters.stop, filters.step, device=device),
        )
        for window, start in enumerate(windows.starts)
        if (filters := windows.readers(window))
    ]
