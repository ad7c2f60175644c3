"""Rolling pointwise convolution (RPW) on a CPU, by plain torch operators: see `run`."""

from ifspace.kernels.rpw.cpu.planning import Plan, plan
from ifspace.kernels.rpw.cpu.run import forward, input_grad, weight_grad

__all__ = ["Plan", "forward", "input_grad", "plan", "weight_grad"]
