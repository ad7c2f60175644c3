"""Rolling pointwise convolution (RPW): reference, CPU and Triton implementations, and operators."""

from ifspace.kernels.rpw.operator import choose_implementation, rolling_pointwise_conv2d

__all__ = ["choose_implementation", "rolling_pointwise_conv2d"]
