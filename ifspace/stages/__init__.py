"""Stages of a network: how many blocks each has, how wide, and of which kind."""
