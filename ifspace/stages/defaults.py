"""What a layout has where its options are not given; light, so that `--help` starts quickly."""

from typing import Final

# Channels of the first stage, doubling up to the last.
FIRST_WIDTH: Final = 64
LAST_WIDTH: Final = 512
INPUTS: Final = 3
KERNEL: Final = 3
# Blocks of each stage where no depths are given and widths are free, and the most of each where
# widths are fixed.
DEPTH: Final = 2
MOST_DEPTH: Final = 8
# Widths are offered at these multiples of those of the start, in whole multiples of WIDTH_STEP.
WIDTH_STEP: Final = 8
AROUND: Final = (1 / 2, 5 / 8, 3 / 4, 7 / 8, 1, 5 / 4, 3 / 2, 7 / 4, 2)
# The word for the widths of the start, as the only choice.
OWN_WIDTHS: Final = "start"
SIDE: Final = 32
# Between the choices of one stage and those of the next.
STAGE_SEPARATOR: Final = ";"
# What stands around the stages that are described, and the classes of its head: see
# `ifspace.stages.networks.styled`.
STYLES: Final = ("resnet", "mobilenet", "plain", "bare")
STYLE: Final = "resnet"
BARE: Final = "bare"
CLASSES: Final = 10
# The types of stages (`ifspace.stages.choices`), and how wide their blocks are inside: ratios of
# the width that enters, and of the width that leaves.
TYPES: Final = ("plain", "basic", "bottleneck", "inverted")
EXPANSIONS: Final = (1, 2, 3, 4, 6)
BOTTLENECKS: Final = ("1/4",)
# What is offered where widths inside are given and no blocks.
INNER_BLOCKS: Final = {"expansions": "PW+DW+PW", "bottlenecks": "PW+CONV+PW"}
# Which groups an open block may have at a pair of widths: the cheapest, or one for each least
# fan-in that costs more.
FORMS: Final = ("cheapest", "front")
# The word for strides that are chosen.
FREE: Final = "free"
# What is maximised where widths are free, and where they are fixed as in the papers.
FREE_OBJECTIVE: Final = "macs-3/4"
FIXED_OBJECTIVE: Final = "gain"
# The objective that stages of bottlenecks are chosen for, `ifspace.stages.entropy`, and the seconds
# after which its search ends where none are given.
ENTROPY: Final = "entropy"
ENTROPY_S: Final = 60.0
