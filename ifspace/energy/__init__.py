"""Layout energy: the layer widths of greatest energy within a budget of weights, with proof."""
