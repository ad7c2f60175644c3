"""The ways to compute an RPW layer by torch's own operators, and the layers it is compared with.

A way keeps the weights as suits it (a step of training would keep them so): only what must be done
on every call is timed. C_out is a multiple of the distinct windows, as it is when C_out = C_in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ifspace.bench.kernels.cases import Case
from ifspace.kernels.tensors import is_channels_last
from ifspace.kernels.windows import Windows, dense_weight

Tensors = tuple[Tensor, ...]


def as_given(tensors: Tensors) -> Tensors:
    """Return the tensors."""
    return tensors


@dataclass(frozen=True, slots=True)
class Way:
    """A layer as a function of x and the weights it keeps.

    `keep` makes those of the layer's own weights, `give` makes the gradients by the layer's own
    weights of the gradients by those kept; neither is timed. `note` says what was chosen inside.
    """

    forward: Callable[..., Tensor]
    keep: Callable[[Tensors], Tensors] = as_given
    give: Callable[[Tensors], Tensors] = as_given
    note: str = ""


def dense(case: Case, device: torch.device) -> Way:
    """Return the dense pointwise convolution: another function, with g times the weights."""
    square = (case.width, case.width)
    return Way(pointwise, lambda given: (torch.randn(square).to(given[0]) / case.width**0.5,))


def grouped(case: Case, device: torch.device) -> Way:
    """Return the grouped pointwise convolution of as many weights: nothing rolls."""

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return conv2d(x, weight[:, :, None, None], groups=case.groups)

    return Way(forward)


def zeros(case: Case, device: torch.device) -> Way:
    """Return the dense convolution of the weights scattered into zeros on every call."""
    channels = case.windows.read_channels(device)

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return pointwise(x, dense_weight(weight, case.width, case.windows.step, channels))

    return Way(forward)


def packed_zeros(case: Case, device: torch.device) -> Way:
    """Return the dense convolution of a weight that is kept with its zeros."""
    channels = case.windows.read_channels(device)
    return Way(
        pointwise,
        lambda given: (dense_weight(given[0], case.width, case.windows.step, channels),),
        lambda grads: (grads[0].gather(1, channels),),
    )


def published(case: Case, device: torch.device) -> Way:
    """Return the published composition: slices, one concatenation, one grouped convolution.

    Reference: [3DRF] Listing 2; here a window that wraps is cut where it wraps, and the output
    channels are put into the order of the definition.
    """
    windows = case.windows

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        stacked = torch.cat(_slices(x, windows), 1)
        return in_order(conv2d(stacked, weight[:, :, None, None], groups=windows.distinct), windows)

    return Way(forward, *_by_window(windows))


def per_window(case: Case, device: torch.device) -> Way:
    """Return one small convolution for each window, then a concatenation.

    Reference: [3DRF] section 4.2, the second implementation.
    """
    windows = case.windows

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        parts = weight[:, :, None, None].chunk(windows.distinct)
        slices = _slices(x, windows)
        each = [conv2d(piece, part) for piece, part in zip(slices, parts, strict=True)]
        return in_order(torch.cat(each, 1), windows)

    return Way(forward, *_by_window(windows))


def batched(case: Case, device: torch.device) -> Way:
    """Return a batched matrix product over the windows.

    With the channels side by side the windows, sorted by where they start, are a strided view of
    the pixels with their first channels repeated at the end: nothing is gathered.
    """
    windows, count = case.windows, case.windows.distinct
    unit = windows.in_channels // count
    # sorted_at[p]: the place of window p among the starts 0, unit, 2 unit ...
    sorted_at = torch.tensor([start // unit for start in windows.starts], device=device)
    window_at = sorted_at.argsort()

    def keep(given: Tensors) -> Tensors:
        by_window = torch.unflatten(given[0], 0, (-1, count))  # [filters of a window, P, w]
        return (by_window.permute(1, 2, 0)[window_at].contiguous(),)

    def give(grads: Tensors) -> Tensors:
        return (grads[0][sorted_at].permute(2, 0, 1).flatten(0, 1),)

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        if is_channels_last(x):
            rows = x.permute(0, 2, 3, 1).flatten(0, 2)
            views = pad(rows[None], (0, windows.width), mode="circular")[0]
            views = views.unfold(1, windows.width, unit)[:, :count].transpose(0, 1)
            y = torch.bmm(views, weight).permute(1, 2, 0)[:, :, sorted_at].flatten(1)
            return torch.unflatten(y, 0, (x.shape[0], *x.shape[2:])).permute(0, 3, 1, 2)
        rows = pad(x.flatten(2).transpose(1, 2), (0, windows.width), mode="circular")
        views = rows.transpose(1, 2).unfold(1, windows.width, unit)[:, :count]
        y = torch.matmul(weight.transpose(1, 2), views.transpose(2, 3))
        y = y[:, sorted_at].transpose(1, 2).flatten(1, 2)
        return torch.unflatten(y, 2, x.shape[2:])

    return Way(forward, keep, give)


def gather(case: Case, device: torch.device) -> Way:
    """Return a gather of every window and one einsum."""
    windows, count = case.windows, case.windows.distinct
    channels = windows.read_channels(device)[:count]

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        parts = torch.unflatten(weight, 0, (-1, count))
        if is_channels_last(x):
            pixels = x.permute(0, 2, 3, 1)[..., channels]
            y = torch.einsum("nyxpt,fpt->nyxfp", pixels, parts)
            return y.flatten(3).contiguous().permute(0, 3, 1, 2)
        y = torch.einsum("nptyx,fpt->nfpyx", x[:, channels], parts)
        return y.flatten(1, 2).contiguous()

    return Way(forward)


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """Return the 1x1 convolution of x [N, C, H, W] by weight [C_out, C]."""
    return conv2d(x, weight[:, :, None, None])


def in_order(y: Tensor, windows: Windows) -> Tensor:
    """Return y [N, C_out, H, W], whose channels stand window by window, in the filters' order."""
    count = windows.distinct
    if count == windows.out_channels:
        return y
    if y.device.type == "cpu":  # its shuffle is vectorised and keeps the layout
        return torch.channel_shuffle(y, count)
    if is_channels_last(y):
        pixels = torch.unflatten(y.permute(0, 2, 3, 1), -1, (count, -1))
        return pixels.transpose(-1, -2).flatten(-2).permute(0, 3, 1, 2)
    return torch.unflatten(y, 1, (count, -1)).transpose(1, 2).flatten(1, 2)


def _by_window(
    windows: Windows,
) -> tuple[Callable[[Tensors], Tensors], Callable[[Tensors], Tensors]]:
    """Return how the weights are kept window by window, and how their gradients come back."""
    count = windows.distinct

    def keep(given: Tensors) -> Tensors:
        return (torch.unflatten(given[0], 0, (-1, count)).transpose(0, 1).flatten(0, 1),)

    def give(grads: Tensors) -> Tensors:
        return (torch.unflatten(grads[0], 0, (count, -1)).transpose(0, 1).flatten(0, 1),)

    return keep, give


def _slices(x: Tensor, windows: Windows) -> list[Tensor]:
    pieces = []
    for start in windows.starts:
        end = start + windows.width
        piece = x[:, start:end]
        if end > windows.in_channels:
            piece = torch.cat([piece, x[:, : end - windows.in_channels]], 1)
        pieces.append(piece)
    return pieces
