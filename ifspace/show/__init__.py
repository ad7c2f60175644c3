"""What can be said of one block, layer by layer, and of the kinds it is made of."""
