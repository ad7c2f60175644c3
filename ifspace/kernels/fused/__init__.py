"""A depthwise 3x3 convolution and the RPW behind it in one kernel, with affines and activations."""

from ifspace.kernels.fused.operator import choose_fused, fused_dw_rpw
from ifspace.kernels.fused.reference import FusedSpec

__all__ = ["FusedSpec", "choose_fused", "fused_dw_rpw"]
