"""Runs of convolutions in one pass over tiles, on a CPU."""
