"""Compositions, blocks and their widths: the notation, parsed once into frozen values.

A `Composition` is a word over the kinds, a `Block` is a composition with its parameters chosen, a
`SizedBlock` is a block at concrete widths: the chain of `SizedLayer` that fields are taken of.
"""

from ifspace.block.block import Block, SizedBlock
from ifspace.block.composition import Composition, place_widths
from ifspace.block.layer import DEFAULT_KERNEL, Layer, SizedLayer
from ifspace.kinds import parse_overlap

__all__ = [
    "DEFAULT_KERNEL",
    "Block",
    "Composition",
    "Layer",
    "SizedBlock",
    "SizedLayer",
    "parse_overlap",
    "place_widths",
]
