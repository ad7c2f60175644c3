"""What the commands on stage layouts share: their options, and the layout that these describe."""

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from ifspace.cli.options import Output, numbers

if TYPE_CHECKING:
    from ifspace.block import Block
    from ifspace.stages.layout import Layout


FIRST_WIDTH, LAST_WIDTH = 64, 512
INPUTS, KERNEL, SIDE = 3, 3, 32


def image(text: str) -> int:
    """Return the side of a square image of three channels.

    >>> image("32"), image("3x224x224")
    (32, 224)
    """
    packed = text.strip().lower().replace("×", "x")
    match = re.fullmatch(r"([0-9]{1,6})|3x([0-9]{1,6})x\2", packed)
    if match is None:
        raise click.BadParameter(f"got {text!r}; allowed: 32, 224, 3x32x32 or 3x224x224")
    return int(match[1] or match[2])


stage_options: Final = (
    click.option(
        "--stages",
        type=numbers,
        metavar="LIST",
        help="Sides of the stages in pixels, such as 32,16,8,4,2.",
    ),
    click.option(
        "--depths",
        type=numbers,
        metavar="LIST",
        help="Blocks of each stage; those of the network if not given.",
    ),
    click.option(
        "--widths",
        type=numbers,
        metavar="LIST",
        help=f"Channels of each stage; {FIRST_WIDTH} doubling up to {LAST_WIDTH} if not given.",
    ),
    click.option(
        "--inputs",
        type=click.IntRange(1),
        metavar="N",
        help=f"Channels that enter the first stage; {INPUTS} if not given.",
    ),
    click.option(
        "--kernel",
        type=int,
        metavar="N",
        help="Kernel of CONV and of each spatial kind that is written without one; "
        f"{KERNEL} if not given.",
    ),
    click.option(
        "--network",
        metavar="NAME",
        help="A network of the papers instead of --stages, such as vgg16 or resnet50.",
    ),
    click.option(
        "--input",
        type=image,
        metavar="SIDE",
        help="With --network: 32 or 224, or 3x32x32 or 3x224x224; 32 if not given.",
    ),
)


def block_list(text: str) -> tuple[str, ...]:
    """Return the blocks between commas; those inside parentheses belong to the block.

    >>> block_list("CONV, DW+RPW(8,1/2)")
    ('CONV', 'DW+RPW(8,1/2)')
    """
    found = tuple(part.strip() for part in re.split(r",(?![^()]*\))", text))
    if not all(found):
        raise click.BadParameter(f"got {text!r}; allowed: blocks between commas")
    return found


def read_layout(
    stages: tuple[int, ...] | None,
    depths: tuple[int, ...] | None,
    widths: tuple[int, ...] | None,
    inputs: int | None,
    kernel: int | None,
    network: str | None,
    input: int | None,
    blocks: tuple[str, ...] | None = None,
) -> "Layout":
    """Return the layout that the options describe.

    Raises: SettingError for options that do not go together or lists that do not fit.
    """
    if network is not None:
        own = {
            "stages": stages,
            "widths": widths,
            "inputs": inputs,
            "kernel": kernel,
            "blocks": blocks,
        }
        if given := ", ".join(f"--{name}" for name, value in own.items() if value is not None):
            raise _refused(
                "options that do not go together",
                f"{given} with --network",
                "--depths, --input",
                "leave them out, or --network",
            )
        return _network(network, SIDE if input is None else input, depths)
    if input is not None:
        raise _refused(
            "options that do not go together",
            "--input without --network",
            "--input with --network",
            "use --stages for sides, --inputs for channels",
        )
    if stages is None or depths is None:
        absent = [name for name, value in (("stages", stages), ("depths", depths)) if not value]
        raise _refused(
            "stages half described" if len(absent) == 1 else "no stages",
            " and ".join(f"no --{name}" for name in absent),
            "--stages and --depths, or --network",
            "say what is missing",
        )
    from ifspace.stages.frame import Frame
    from ifspace.stages.networks import stages as made_of

    texts = blocks or ("CONV",)
    texts = texts * len(stages) if len(texts) == 1 else texts
    units = [_own_block(text, KERNEL if kernel is None else kernel) for text in texts]
    wide = widths or tuple(min(FIRST_WIDTH << n, LAST_WIDTH) for n in range(len(stages)))
    return made_of(units, stages, wide, depths, frame=Frame(inputs=inputs or INPUTS))


def note_left_open(
    output: Output, layout: "Layout", network: str | None, widths: tuple[int, ...] | None
) -> None:
    """Say which widths stand for none given, and what a layout without a network's name lacks."""
    if network is None:
        said = "" if widths else f"widths {', '.join(map(str, layout.widths))}; "
        output.note(f"{said}counted without batch norm, biases and classifier, which --network has")


def _network(name: str, side: int, depths: tuple[int, ...] | None) -> "Layout":
    from ifspace.stages.networks import (
        MAX_DEPTH,
        network,
    )
    from ifspace.values import whole_within

    layout = network(name, side)
    if depths is None:
        return layout
    return layout.at_depths([whole_within(each, "depths", 1, MAX_DEPTH) for each in depths])


def _refused(fact: str, got: str, allowed: str, remedy: str) -> Exception:
    from ifspace.errors import SettingError

    return SettingError.because(fact, got=got, allowed=allowed, remedy=remedy)


def _own_block(text: str, kernel: int) -> "Block":
    """Return the block; what is wrong with it is said of --blocks or --kernel."""
    from ifspace.errors import IfspaceError

    try:
        return read_block(text, kernel)
    except IfspaceError as error:
        if error.argument != "kernel":
            error.argument = "blocks"
        raise


def read_block(text: str, kernel: int = KERNEL) -> "Block":
    """Return a block whose spatial layers have a kernel of their own or else the one given.

    >>> str(read_block("CONV+DW(3)+PW", 5))
    'CONV(5)+DW+PW'

    Raises: BlockError for what is no block; SettingError for one without its groups, or an even
        kernel.
    """
    from ifspace.block import Block, split_terms
    from ifspace.errors import SettingError
    from ifspace.kinds import find_kind
    from ifspace.values import (
        MAX_WIDTH,
        odd_within,
    )

    odd_within(kernel, "kernel", 1, MAX_WIDTH - 1)
    terms, _ = split_terms(text)
    for term in terms:
        kind = find_kind(term.partition("(")[0])
        if kind.takes_groups and "(" not in term:
            raise SettingError.because(
                "a block without its groups",
                got=f"{kind.symbol} in {text}",
                allowed=f"groups behind each kind that takes them, such as {kind.symbol}(4)",
                remedy="write them, or let `ifspace groups` or `ifspace layout` find them",
                argument="blocks",
            )
    block = Block.parse(text)
    layers = [
        layer
        if layer.kernel is None or _has_kernel(term, layer.conv.takes_groups)
        else replace(layer, kernel=kernel)
        for layer, term in zip(block.layers, terms, strict=True)
    ]
    return replace(block, layers=tuple(layers))


def _has_kernel(term: str, takes_groups: bool) -> bool:
    return "k=" in term.lower() or (not takes_groups and "(" in term)
