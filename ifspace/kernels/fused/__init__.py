"""A depthwise and a rolling pointwise convolution in one kernel."""
