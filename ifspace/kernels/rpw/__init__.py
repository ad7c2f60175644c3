"""Rolling pointwise convolution (RPW): reference, CPU and Triton implementations."""
