"""Rolling pointwise convolution (RPW) on a CPU, by plain torch operators: see `run`."""

from ifspace.kernels.cpu.planning import Plan, plan
from ifspace.kernels.cpu.run import forward, input_grad, weight_grad

__all__ = ["Plan", "forward", "input_grad", "plan", "weight_grad"]
