"""Cases of the fused DW + RPW block, and the check of its results against float64."""

from dataclasses import dataclass

import torch
from rpw_exact import channels_of
from torch import Tensor
from torch.nn import functional

from ifspace.kernels.fused.reference import FusedSpec
from ifspace.kernels.windows import windows_of

NAMES = ("x", "dw_weight", "scale1", "shift1", "weight", "scale2", "shift2")


@dataclass(frozen=True)
class Case:
    """A block and an input; the tensors are random, the affines optional one by one."""

    c_in: int
    c_out: int
    groups: int
    overlap: str
    shape: tuple[int, int, int]
    stride: int = 1
    activations: tuple[str | None, str | None] = (None, None)
    affines: tuple[str, ...] = NAMES[2:4] + NAMES[5:]
    order: str = "rolling"

    @property
    def spec(self) -> FusedSpec:
        windows = windows_of(self.c_in, self.c_out, self.groups, self.overlap, self.order)
        return FusedSpec(windows, self.stride, *self.activations)

    def tensors(self, device, dtype=torch.float32, layout=torch.contiguous_format):
        """The seven tensors, and a gradient of the loss by y."""
        images, height, width = self.shape
        shapes = {
            "x": (images, self.c_in, height, width),
            "dw_weight": (self.c_in, 1, 3, 3),
            "scale1": (self.c_in,),
            "shift1": (self.c_in,),
            "weight": (self.c_out, self.c_in // self.groups),
            "scale2": (self.c_out,),
            "shift2": (self.c_out,),
        }
        tensors = [
            torch.randn(shape, device=device).to(dtype)
            if name in self.affines or name in ("x", "dw_weight", "weight")
            else None
            for name, shape in shapes.items()
        ]
        grad = torch.randn(self.spec.output_shape(shapes["x"]), device=device).to(dtype)
        tensors[0], grad = (t.contiguous(memory_format=layout) for t in (tensors[0], grad))
        return tensors, grad


def composed(tensors, spec: FusedSpec) -> Tensor:
    """The block by torch's own operators: gather and einsum for RPW."""
    x, dw_weight, scale1, shift1, weight, scale2, shift2 = tensors
    middle = functional.conv2d(x, dw_weight, None, spec.stride, 1, groups=x.shape[1])
    middle = finished(middle, scale1, shift1, spec.activation1)
    read = channels_of(spec.windows).to(x.device)
    mixed = torch.einsum("nfthw,ft->nfhw", middle[:, read], weight)
    return finished(mixed, scale2, shift2, spec.activation2)


def finished(x, scale, shift, activation):
    if scale is not None:
        x = x * scale[:, None, None]
    if shift is not None:
        x = x + shift[:, None, None]
    return x if activation is None else getattr(functional, activation)(x)


def results(tensors, grad, spec, dtype):
    """y and the gradients of <grad, y> by autograd in a dtype, on the CPU, by name."""
    leaves = [None if t is None else t.detach().cpu().to(dtype).requires_grad_() for t in tensors]
    y = composed(leaves, spec)
    gradients = torch.autograd.grad(y, [t for t in leaves if t is not None], grad.cpu().to(dtype))
    names = [name for name, leaf in zip(NAMES, leaves, strict=True) if leaf is not None]
    return {"y": y.detach(), **dict(zip(names, gradients, strict=True))}


def perturbed(tensors, eps: float, seed: int):
    """The tensors in float64 with every number moved by one rounding step, up or down."""
    random = torch.Generator().manual_seed(seed)

    def perturb(tensor):
        signs = torch.randint(0, 2, tensor.shape, generator=random) * 2.0 - 1
        return tensor.detach().cpu().double() * (1 + eps * signs)

    return [None if tensor is None else perturb(tensor) for tensor in tensors]


def check(got: dict[str, Tensor | None], tensors, grad, spec, roundings: int = 4) -> None:
    """Check that all results are no further from float64 than eager torch in the same dtype.

    Allowed beside that: some roundings (of the tensor between the convolutions, the product, the
    sum, the output): of the largest value, and as much as the result moves in float64
    when the inputs are rounded differently.
    """
    eps = torch.finfo(tensors[0].dtype).eps
    moved = [results(perturbed(tensors, eps, n), grad, spec, torch.float64) for n in range(2)]
    exact = results(tensors, grad, spec, torch.float64)
    eager = results(tensors, grad, spec, tensors[0].dtype)
    for name, value in got.items():
        if name not in exact:
            assert value is None, f"{name}: a gradient of nothing"
            continue
        assert value is not None, f"{name}: no gradient"
        want = exact[name]
        assert value.shape == want.shape, (name, value.shape, want.shape)
        assert value.dtype == tensors[0].dtype, (name, value.dtype)
        value = value.cpu().double()
        assert not value.isnan().any(), f"{name}: {int(value.isnan().sum())} not written"
        error = float((value - want).abs().max())
        plain = float((eager[name].double() - want).abs().max())
        shift = max(float((result[name] - want).abs().max()) for result in moved)
        rounding = roundings * (eps * float(want.abs().max()) + shift)
        assert error <= plain + rounding, f"{name}: off by {error}, eager by {plain}"
