"""What `torch.export` writes down of a network, read operator by operator into maps and layers."""
