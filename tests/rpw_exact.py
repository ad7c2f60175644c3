"""RPW and its gradients in float64 by one gather and one einsum: the witness of the kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ifspace.kernels.windows import Windows

KERNELS = ("forward", "input_grad", "weight_grad")


def channels_of(windows: Windows) -> Tensor:
    """The channels [C_out, w] that each filter reads, by the definition."""
    filters = torch.arange(windows.out_channels)[:, None]
    if windows.order == "blocked":
        starts = {p * windows.step % windows.in_channels for p in range(windows.in_channels)}
        filters = filters * len(starts) // windows.out_channels
    return (filters * windows.step + torch.arange(windows.width)) % windows.in_channels


def exact(kernel: str, windows: Windows, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """The exact results of a kernel for its tensors, in float64 on the CPU."""
    detached = [None if tensor is None else tensor.detach() for tensor in tensors]
    return composed(kernel, windows, detached, torch.float64)


def composed(
    kernel: str, windows: Windows, tensors: Sequence[Tensor | None], dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The results by gather and einsum in a dtype: those of eager torch."""
    read = channels_of(windows)
    first, second, *rest = (None if t is None else t.cpu().to(dtype) for t in tensors)
    if kernel == "forward":
        y = torch.einsum("nfthw,ft->nfhw", first[:, read], second)
        bias = rest[0] if rest else None
        return (y if bias is None else y + bias[:, None, None],)
    if kernel == "input_grad":
        out = first.new_zeros(first.shape[0], windows.in_channels, *first.shape[2:])
        spread = torch.einsum("nfhw,ft->nfthw", first, second)
        return (out.index_add_(1, read.flatten(), spread.flatten(1, 2)),)
    return torch.einsum("nfhw,nfthw->ft", first, second[:, read]), first.sum((0, 2, 3))


def check(
    kernel: str,
    windows: Windows,
    got: Tensor | tuple[Tensor, ...],
    *tensors: Tensor | None,
    product: float = 0.0,
) -> None:
    """Check that the results are no further from float64 than eager torch in the same dtype.

    Allowed beside that: one unit of the last place of the dtype, and for sums in float32 one
    rounding for each term. `product`: the relative error of one product (tf32), else none.
    """
    results = got if isinstance(got, tuple) else (got,)
    expected = exact(kernel, windows, *tensors)
    dtype = results[0].dtype
    eager = composed(kernel, windows, tensors, dtype)
    sizes = exact(kernel, windows, *(None if t is None else t.abs() for t in tensors))
    pixels = tensors[0].numel() // max(1, tensors[0].shape[1])
    terms = pixels if kernel == "weight_grad" else windows.width * 4 + windows.out_channels
    for name, result, want, plain, size in zip("wb", results, expected, eager, sizes, strict=False):
        assert result.shape == want.shape, (kernel, name, result.shape, want.shape)
        result = result.cpu().double()
        assert not result.isnan().any(), f"{kernel} {name}: {int(result.isnan().sum())} not written"
        unit = torch.finfo(dtype).eps * want.abs()
        sums = (terms * 2.0**-24 + product) * size
        allowed = (plain.double() - want).abs().max() if want.numel() else 0
        error = (result - want).abs()
        assert bool((error <= allowed + unit + sums + 1e-30).all()), (
            f"{kernel} {name}: off by {float(error.max())}"
        )
