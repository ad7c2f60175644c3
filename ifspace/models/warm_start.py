"""Blocks that begin near the convolutions that they replace, layer by layer.

Each block is fitted by least squares to its convolution, on what that convolution reads in the
original network; then the network's own training begins. A block has fewer weights than the
convolution and does not reach it: what remains is said.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import isqrt, sqrt
from typing import Any, Final

import torch
from torch import Tensor, nn

from ifspace.errors import IfspaceError, KernelError, SettingError
from ifspace.models.tracing import evaluated
from ifspace.nn.block import BlockModule
from ifspace.nn.checks import check_seed, first_line, wrong_type

# So many numbers are kept of what a layer reads and writes: 8 MB, and about 64 MB while fitting.
KEPT: Final = 2**21
# Of each image a window at least so many pixels wide is kept, rather than fewer of more images.
LEAST_WINDOW: Final = 8
# So many images go through the network at once.
AT_ONCE: Final = 8
# One image of so many is not fitted to, but kept to see what the fit is worth.
KEPT_OUT: Final = 4
IMAGES: Final = 8
# Further steps of L-BFGS change the error by little: from 50 to 300 by a hundredth or two.
STEPS: Final = 50
# Noise beside too few pixels: windows of 8 x 8 pixels, so many at least, and pixels for a channel.
_NOISE_SIDE: Final = 8
_NOISE_WINDOWS: Final = 16
_NOISE_PIXELS: Final = 8


@dataclass(frozen=True, slots=True)
class Fit:
    """What remains of a convolution's output y that its block does not give, ||y - block||²/||y||².

    `error`: of the fitted block; `random`: of the block before, as it was drawn; `scaled`: of that
    block times the best number; all on the inputs that were fitted to. `unseen`: that of the fitted
    block on images that were kept out, None where there were none to spare. `pixels`: how many
    pixels of output were fitted to.
    """

    name: str
    error: float
    random: float
    scaled: float
    unseen: float | None
    pixels: int


def warm_start(
    original: nn.Module,
    changed: nn.Module,
    names: Iterable[str],
    images: Tensor,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Fit, ...]:
    """Fit the blocks of a changed network to the convolutions of the original, and say how near.

    `names`: paths that are a convolution in the original and a BlockModule in the changed network,
    whose weights are set. `images` [N, C, H, W]: the original runs on them in evaluation; of what
    a layer reads a part is kept, drawn by the seed. All weights of a block are found together by
    L-BFGS. Batch norm inside a block is no part of the fit: afterwards it is set to change nothing
    on these inputs, in evaluation. Where the pixels are few for the weights of one filter, the fit
    is also to noise of each channel's mean and spread. `progress` is called with how many layers
    are done, and of how many.

    Raises: SettingError for images or weights on the meta device; KernelError for images that the
        network does not take.
    """
    check_seed(seed)
    names = tuple(names)
    if not isinstance(images, Tensor):
        raise wrong_type("warm_start", images, "images [N, C, H, W]", "give a tensor, or True")
    if images.is_meta or any(each.is_meta for each in original.parameters()):
        raise SettingError.because(
            "nothing to fit",
            got="images or weights on the meta device",
            allowed="a CPU or a GPU",
            remedy="build the network there",
            argument="warm_start",
        )
    if not images.numel():
        raise _empty(f"{list(images.shape)}")
    draw = torch.Generator().manual_seed(seed)
    convs: dict[str, Any] = {name: original.get_submodule(name) for name in names}
    inputs = _inputs(original, convs, images, draw)
    if not images.any():
        raise _empty(f"{list(images.shape)}, all zero")
    fits = []
    for done, (name, conv) in enumerate(convs.items()):
        if progress is not None:
            progress(done, len(convs))
        if name in inputs:
            block: Any = changed.get_submodule(name)
            fits.append(_fitted(name, conv, block, torch.cat(inputs.pop(name)), draw))
    if progress is not None:
        progress(len(convs), len(convs))
    return tuple(fits)


def _empty(got: str) -> SettingError:
    return SettingError.because(
        "nothing to fit on",
        got=got,
        allowed="images [N, C, H, W] that differ from zero",
        remedy="give some of the data, or True for noise",
        argument="warm_start",
    )


def random_images(image: Sequence[int], seed: int, like: Tensor, count: int = 1) -> Tensor:
    """Return images [N, C, H, W] of normal noise, of the type and on the device of a tensor.

    N is the count, but `IMAGES` at least.

    >>> random_images((3, 8, 8), 0, torch.zeros(1)).shape
    torch.Size([8, 3, 8, 8])
    """
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(max(count, IMAGES), *image, generator=draw).to(like.device, like.dtype)


def _inputs(
    model: nn.Module, convs: dict[str, Any], images: Tensor, draw: torch.Generator
) -> dict[str, list[Tensor]]:
    """Return for each convolution that runs the windows [n, C, h, w] that are kept of its input."""
    kept: dict[str, list[Tensor]] = {}

    def keep(name: str, conv: Any) -> Callable[[nn.Module, Any], None]:
        def hook(_: nn.Module, given: Any) -> None:
            if len(kept.setdefault(name, [])) == seen[0]:  # its first call of these images
                kept[name].append(_window(given[0], conv, len(images), draw))

        return hook

    seen = [0]
    hooks = [conv.register_forward_pre_hook(keep(name, conv)) for name, conv in convs.items()]
    try:
        with evaluated(model):
            for each in torch.split(images, AT_ONCE):
                model(each)
                seen[0] += 1
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


def _window(x: Tensor, conv: Any, images: int, draw: torch.Generator) -> Tensor:
    """Return a window of each map, so that all images together keep no more than `KEPT` numbers."""
    height, width = x.shape[2:]
    pixels = KEPT // (conv.in_channels + conv.out_channels)
    least = min(height, LEAST_WINDOW) * min(width, LEAST_WINDOW)
    share = max(pixels // images, least)  # of each image
    tall = min(height, max(isqrt(share), LEAST_WINDOW))
    wide = min(width, max(share // tall, LEAST_WINDOW))
    here = max(1, min(len(x), pixels * len(x) // (images * tall * wide)))
    found = []
    for each in x[:here]:
        top = int(torch.randint(height - tall + 1, (), generator=draw))
        left = int(torch.randint(width - wide + 1, (), generator=draw))
        found.append(each[:, top : top + tall, left : left + wide])
    return torch.stack(found).float()


def _fitted(
    name: str, conv: nn.Conv2d, block: BlockModule, x: Tensor, draw: torch.Generator
) -> Fit:
    """Set the weights of a block to those that come nearest to a convolution on inputs x."""
    wanted, trial = deepcopy(conv).float().requires_grad_(False), deepcopy(block).float()
    _without_norms(trial)
    out = len(x) // KEPT_OUT
    x, unseen = x[: len(x) - out], x[len(x) - out :]
    y = wanted(x)
    pixels = y.numel() // y.shape[1]
    with torch.no_grad():
        before = trial(x)
        random = _remaining(before, y)
        scaled = _remaining(before * ((before * y).sum() / before.square().sum()), y)
    targets = [(x, y, 1.0)]
    # Taps of one filter for each pixel: with more than one, any output could be met on these inputs
    # alone. The root keeps a balance: on images kept out it does better than the number itself.
    few = wanted.weight[0].numel() / pixels
    if few > 1 / 20:
        noise = _noise(x, draw)
        targets.append((noise, wanted(noise), sqrt(few)))
    _minimise(trial, targets)
    with torch.no_grad():
        error = _remaining(trial(x), y)
        far = _remaining(trial(unseen), wanted(unseen)) if out else None
        _set(block, trial, x)
    return Fit(name, error, random, scaled, far, pixels)


def _minimise(block: BlockModule, targets: Sequence[tuple[Tensor, Tensor, float]]) -> None:
    """Let the weights of a block minimise the remaining error, over all targets (x, y, weight)."""
    weights = [each for each in block.parameters() if each.requires_grad]
    solver = torch.optim.LBFGS(
        weights,
        max_iter=STEPS,
        history_size=20,
        tolerance_grad=0,
        tolerance_change=1e-4,
        line_search_fn="strong_wolfe",
    )
    shares = [(x, y, share / _size(y)) for x, y, share in targets]

    def loss() -> Tensor:
        solver.zero_grad()
        total = torch.stack([(block(x) - y).square().sum() * share for x, y, share in shares]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]


def _noise(x: Tensor, draw: torch.Generator) -> Tensor:
    """Return windows of noise with the mean and spread of each channel of x [n, C, h, w]."""
    channels, side = x.shape[1], _NOISE_SIDE
    many = max(_NOISE_WINDOWS, _NOISE_PIXELS * channels // side**2)
    noise = torch.randn(many, channels, side, side, generator=draw).to(x.device)
    spread, mean = torch.std_mean(x, (0, 2, 3), keepdim=True, correction=0)
    return noise * spread + mean


def _without_norms(block: BlockModule) -> None:
    """Set every batch norm of a block to change nothing, and not to learn."""
    block.eval()
    for norm in _norms(block).values():
        norm.reset_running_stats()
        norm.requires_grad_(False)
        norm.weight.fill_(1 + norm.eps).sqrt_()
        norm.bias.zero_()


def _set(block: BlockModule, trial: BlockModule, x: Tensor) -> None:
    """Take over the weights that were found; let batch norms leave their inputs as they are."""
    norms = _norms(trial)

    def keep(norm: Any) -> Callable[[nn.Module, Any], None]:
        def hook(_: nn.Module, given: Any) -> None:
            axes = [axis for axis in range(given[0].dim()) if axis != 1]
            found[norm] = torch.var_mean(given[0], axes)

        return hook

    found: dict[Any, tuple[Tensor, Tensor]] = {}
    hooks = [norm.register_forward_pre_hook(keep(norm)) for norm in norms.values()]
    trial(x)
    for hook in hooks:
        hook.remove()
    for norm in norms.values():
        spread, mean = found[norm]
        norm.running_var.copy_(spread)
        norm.running_mean.copy_(mean)
        norm.weight.copy_((spread + norm.eps).sqrt())
        norm.bias.copy_(mean)
    block.load_state_dict(trial.state_dict())


def _norms(block: nn.Module) -> dict[str, Any]:
    return {
        name: each
        for name, each in block.named_modules()
        if isinstance(each, nn.modules.batchnorm._BatchNorm)
    }


def _size(y: Tensor) -> float:
    # Of an output of zeros any remainder counts as much as itself.
    return float(y.square().sum()) or 1.0


def _remaining(found: Tensor, y: Tensor) -> float:
    return float((found - y).square().sum()) / _size(y)
