"""Warm start: fit blocks to the convolutions that they replace, layer by layer.

Each block begins with the weights nearest to those of its convolution, where they are known in
closed form, and is then fitted to it by least squares, on what the convolution reads in the
original network; training of the whole network starts from there. A block has fewer weights than
the convolution and cannot equal it: what remains is reported.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import isqrt, sqrt
from typing import Any, Final

import torch
from torch import Tensor, nn

from ifspace.errors import IfspaceError, KernelError, SettingError
from ifspace.models.least_squares import minimise, norm_squared
from ifspace.models.projection import Start, kernel_of, project
from ifspace.nn.block import BlockModule, LastAxisBlock
from ifspace.nn.checks import check_seed, evaluated, first_line, wrong_type

# How many numbers of a layer's input and output are kept: 8 MB, and about 64 MB while fitting.
KEPT: Final = 2**21
# The least width in pixels of the window kept of each image; beyond it, fewer images are kept.
LEAST_WINDOW: Final = 8
# How many images go through the network at once.
BATCH: Final = 8
# One image in so many is kept out of the fit, to see what the fit is worth.
HELD_OUT: Final = 4
IMAGES: Final = 8
# How many images of a loader or a folder are fitted to.
IMAGES_OF_DATA: Final = 64
# Noise added where pixels are few: the size of a window, the least number of windows, and pixels
# for each channel.
_NOISE_SIZE: Final = 8
_NOISE_WINDOWS: Final = 16
_NOISE_PIXELS: Final = 8


@dataclass(frozen=True, slots=True)
class Fit:
    """The relative error of a block against its convolution's output y, ||y - block||² / ||y||².

    `error`: after the fit; `random`: before it, with the weights drawn; `scaled`: before it, times
    the best number; all on the inputs of the fit. `unseen`: after the fit, on images held out, None
    if there were none to spare. `pixels`: how many output pixels were fitted to. `start`: how the
    weights were begun, a value of `ifspace.models.projection.Start`. `weights`: the relative error
    ||W - W'||² / ||W||² of the weights after the fit, where the block is one convolution with
    weights W', None elsewhere; `weights_random`: the same of weights that are drawn.
    """

    name: str
    error: float
    random: float
    scaled: float
    unseen: float | None
    pixels: int
    start: str = Start.DRAWN.value
    weights: float | None = None
    weights_random: float | None = None


def fit_blocks(
    original: nn.Module,
    changed: nn.Module,
    names: Iterable[str],
    images: Tensor,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    *,
    noise: bool = False,
) -> tuple[Fit, ...]:
    """Fit the blocks of a changed network to the convolutions of the original, in place.

    `names`: modules that are a convolution, or a linear layer on channels, in the original network,
    and a block in the changed one. `images` [N, C, H, W]: the original runs on them in evaluation
    mode; of what a layer reads a part is kept, drawn by the seed. The weights of a block are found
    by least squares from those that `project` sets. `noise`: the images are no data; then pointwise
    blocks keep the weights of the closed form, for noise does not say which channels occur
    together. Batch norm inside a block is not part of the fit: it is set to change nothing on these
    inputs in evaluation mode. If the pixels are few for the weights of one filter, the fit includes
    noise with the mean and spread of each channel. `progress` is called with (layers done, all
    layers).

    Raises: SettingError for images or weights on the meta device; KernelError for images that the
        network does not take.
    """
    check_seed(seed)
    names = tuple(names)
    if not isinstance(images, Tensor):
        raise wrong_type("warm_start", images, "images [N, C, H, W]", "give a tensor, or True")
    if images.is_meta or any(weight.is_meta for weight in original.parameters()):
        raise SettingError.because(
            "nothing to fit",
            got="images or weights on the meta device",
            allowed="a CPU or a GPU",
            remedy="build the network there",
            argument="warm_start",
        )
    if not images.numel():
        raise _no_images(f"{list(images.shape)}")
    generator = torch.Generator().manual_seed(seed)
    convs: dict[str, Any] = {name: _as_conv(original.get_submodule(name)) for name in names}
    inputs = _inputs(original, convs, images, generator)
    if not images.any():
        raise _no_images(f"{list(images.shape)}, all zero")
    fits = []
    for index, (name, conv) in enumerate(convs.items()):
        if progress is not None:
            progress(index, len(convs))
        if name in inputs:
            block: Any = changed.get_submodule(name)
            if isinstance(block, LastAxisBlock):
                block = block.block
            read = torch.cat(inputs.pop(name))
            fits.append(_fit(name, conv, block, read, generator, noise))
    if progress is not None:
        progress(len(convs), len(convs))
    return tuple(fits)


def _no_images(got: str) -> SettingError:
    return SettingError.because(
        "nothing to fit on",
        got=got,
        allowed="images [N, C, H, W] that differ from zero",
        remedy="give some of the data, or True for noise",
        argument="warm_start",
    )


def random_images(image: Sequence[int], seed: int, like: Tensor, count: int = 1) -> Tensor:
    """Return images [N, C, H, W] of normal noise, with dtype and device of a tensor.

    N is the count, but at least `IMAGES`.

    >>> random_images((3, 8, 8), 0, torch.zeros(1)).shape
    torch.Size([8, 3, 8, 8])
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(max(count, IMAGES), *image, generator=generator)
    return images.to(like.device, like.dtype)


def images_of(source: Any, like: Tensor, count: int = IMAGES_OF_DATA) -> Tensor:
    """Return images [N, C, H, W] of a tensor, or the first ones of a loader, as a tensor is.

    A loader yields batches [n, C, H, W], or tuples that begin with them; of it `count` are taken.

    >>> loader = [(torch.zeros(4, 3, 8, 8), torch.zeros(4))] * 3
    >>> images_of(loader, torch.zeros(1), 6).shape
    torch.Size([6, 3, 8, 8])

    Raises: SettingError for anything else.
    """
    if isinstance(source, Tensor):
        return source
    batches: list[Any] = []
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | dict):
        for batch in source:
            batches.append(batch[0] if isinstance(batch, tuple | list) else batch)
            if not isinstance(batches[-1], Tensor) or sum(map(len, batches)) >= count:
                break
    sizes = {batch.shape[1:] if isinstance(batch, Tensor) else None for batch in batches}
    if len(sizes) != 1 or None in sizes:
        allowed = "images [N, C, H, W], or a loader of batches of one size"
        raise wrong_type("warm_start", source, allowed, "give a tensor, a DataLoader, or True")
    return torch.cat(batches)[:count].to(like.device, like.dtype)


def _inputs(
    model: nn.Module, convs: dict[str, Any], images: Tensor, generator: torch.Generator
) -> dict[str, list[Tensor]]:
    """Return for each convolution that runs the windows [n, C, h, w] kept of its input."""
    kept: dict[str, list[Tensor]] = {}

    def keep(name: str, conv: Any) -> Callable[[nn.Module, Any], None]:
        def hook(_: nn.Module, inputs: Any) -> None:
            if len(kept.setdefault(name, [])) == batches[0]:  # its first call on these images
                on_last = isinstance(model.get_submodule(name), nn.Linear)
                x = _as_maps(inputs[0]) if on_last else inputs[0]
                kept[name].append(_windows(x, conv, len(images), generator))

        return hook

    batches = [0]
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(keep(name, conv))
        for name, conv in convs.items()
    ]
    try:
        with evaluated(model):
            for batch in torch.split(images, BATCH):
                model(batch)
                batches[0] += 1
    except IfspaceError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise KernelError.because(
            "the network does not take these images",
            got=f"{list(images.shape)} ({first_line(error)})",
            allowed="images [N, C, H, W] of its size, type and device",
            remedy="call the network with them first",
            argument="warm_start",
        ) from None
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def _as_conv(layer: nn.Module) -> nn.Module:
    """Return a linear layer as the convolution that it is on feature maps; others as they are."""
    if not isinstance(layer, nn.Linear):
        return layer
    conv = nn.Conv2d(
        layer.in_features,
        layer.out_features,
        1,
        bias=layer.bias is not None,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    with torch.no_grad():
        conv.weight.copy_(layer.weight[:, :, None, None])
        if conv.bias is not None:
            conv.bias.copy_(layer.bias)
    return conv


def _as_maps(x: Tensor) -> Tensor:
    """Return what a linear layer reads [..., C] as feature maps [n, C, h, w]."""
    while x.dim() < 4:
        x = x.unsqueeze(1)
    return x.reshape(-1, *x.shape[-3:]).movedim(-1, 1)


def _windows(x: Tensor, conv: Any, images: int, generator: torch.Generator) -> Tensor:
    """Return a window of each feature map, so that all images keep at most `KEPT` numbers."""
    height, width = x.shape[2:]
    pixels = KEPT // (conv.in_channels + conv.out_channels)
    rows, columns = (max(LEAST_WINDOW, size) for size in _reach(conv))
    least = min(height, rows) * min(width, columns)
    share = max(pixels // images, least)  # of each image
    tall = min(height, max(isqrt(share), rows))
    wide = min(width, max(share // tall, columns))
    count = max(1, min(len(x), pixels * len(x) // (images * tall * wide)))
    windows = []
    for image in x[:count]:
        top = int(torch.randint(height - tall + 1, (), generator=generator))
        column = int(torch.randint(width - wide + 1, (), generator=generator))
        windows.append(image[:, top : top + tall, column : column + wide])
    return torch.stack(windows).float()


def _reach(conv: nn.Conv2d) -> tuple[int, int]:
    """Return the (height, width) in pixels of what a convolution reads for one output."""
    height, width = (d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    return height, width


def _fit(
    name: str,
    conv: nn.Conv2d,
    block: BlockModule,
    x: Tensor,
    generator: torch.Generator,
    noise: bool,
) -> Fit:
    """Set the weights of a block to those nearest to a convolution on inputs x [n, C, h, w]."""
    target, trial = deepcopy(conv).float().requires_grad_(False), deepcopy(block).float()
    _neutralise_norms(trial)
    held_out = len(x) // HELD_OUT
    x, unseen = x[: len(x) - held_out], x[len(x) - held_out :]
    y = target(x)
    pixels = y.numel() // y.shape[1]
    with torch.no_grad():
        before = trial(x)
        random = _relative_error(before, y)
        scaled = _relative_error(before * ((before * y).sum() / before.square().sum()), y)
    targets = [(x, y, 1.0)]
    # Weights of one filter for each pixel: above 1 any output could be met on these inputs alone.
    # The root of it weighs the noise: on images held out it does better than the number itself.
    ratio = target.weight[0].numel() / pixels
    if ratio > 1 / 20:
        more = _noise(x, max(_NOISE_SIZE, *_reach(target)), generator)
        targets.append((more, target(more), sqrt(ratio)))
    weights_random = _weights_error(target, trial)
    start = project(target, trial)
    if not (noise and start is Start.CLOSED_FORM and target.kernel_size == (1, 1)):
        minimise(trial, targets)
    with torch.no_grad():
        error = _relative_error(trial(x), y)
        unseen_error = _relative_error(trial(unseen), target(unseen)) if held_out else None
        weights = _weights_error(target, trial)
        _take_over(block, trial, x)
    return Fit(
        name, error, random, scaled, unseen_error, pixels, start.value, weights, weights_random
    )


def _weights_error(conv: nn.Conv2d, block: BlockModule) -> float | None:
    """Return the relative error of a block's weights, None where it is no convolution like this."""
    kernel = kernel_of(block)
    if kernel is None or kernel.shape != conv.weight.shape:
        return None
    return _relative_error(kernel, conv.weight.detach().double().cpu())


def _noise(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return windows of noise with the mean and spread of each channel of x [n, C, h, w]."""
    channels = x.shape[1]
    count = max(_NOISE_WINDOWS, _NOISE_PIXELS * channels // size**2)
    noise = torch.randn(count, channels, size, size, generator=generator).to(x.device)
    spread, mean = torch.std_mean(x, (0, 2, 3), keepdim=True, correction=0)
    return noise * spread + mean


def _neutralise_norms(block: BlockModule) -> None:
    """Set every batch norm of a block to change nothing, and not to learn."""
    block.eval()
    for norm in _norms(block):
        norm.reset_running_stats()
        norm.requires_grad_(False)
        norm.weight.fill_(1 + norm.eps).sqrt_()
        norm.bias.zero_()


def _take_over(block: BlockModule, trial: BlockModule, x: Tensor) -> None:
    """Take over the fitted weights; set batch norms to leave their inputs unchanged."""
    norms = _norms(trial)
    statistics: dict[Any, tuple[Tensor, Tensor]] = {}

    def measure(norm: Any) -> Callable[[nn.Module, Any], None]:
        def hook(_: nn.Module, inputs: Any) -> None:
            axes = [axis for axis in range(inputs[0].dim()) if axis != 1]
            statistics[norm] = torch.var_mean(inputs[0], axes)

        return hook

    hooks = [norm.register_forward_pre_hook(measure(norm)) for norm in norms]
    trial(x)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        spread, mean = statistics[norm]
        norm.running_var.copy_(spread)
        norm.running_mean.copy_(mean)
        norm.weight.copy_((spread + norm.eps).sqrt())
        norm.bias.copy_(mean)
    block.load_state_dict(trial.state_dict())


def _norms(block: nn.Module) -> list[Any]:
    return [
        module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]


def _relative_error(output: Tensor, y: Tensor) -> float:
    return float((output - y).square().sum()) / norm_squared(y)
