"""Rolling pointwise convolution for torch: reference, CPU, Triton, and fused behind a depthwise.

This room knows nothing of blocks and could be lifted out: it needs torch, and triton on a GPU.
"""
