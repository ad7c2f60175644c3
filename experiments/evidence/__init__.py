"""Published trained networks by their blocks, and what the field can tell of them."""
