"""How fast rolling pointwise convolution is, beside everything that could do its work."""
