"""Modules of a network taken out, put in, widened and replaced, where they stand."""
