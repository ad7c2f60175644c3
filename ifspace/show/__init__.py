"""The commands `kinds` and `show`: the kinds of convolution, and one block layer by layer."""
