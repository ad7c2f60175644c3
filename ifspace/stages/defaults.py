"""What a layout has where its options are not given; light, so that `--help` starts quickly."""

from typing import Final

# Channels of the first stage, doubling up to the last.
FIRST_WIDTH: Final = 64
LAST_WIDTH: Final = 512
INPUTS: Final = 3
KERNEL: Final = 3
SIDE: Final = 32
# Between the choices of one stage and those of the next.
STAGE_SEPARATOR: Final = ";"
