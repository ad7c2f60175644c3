"""The source of a block as a plain PyTorch class, formatted as ruff formats it.

It is written from the submodules of the block, whatever kinds they come from: torch's own modules
are written as such, a rolling pointwise convolution is imported.
"""

from collections.abc import Callable, Sequence
from keyword import iskeyword
from textwrap import wrap
from typing import Any, Final
from unicodedata import normalize

from torch import nn

from ifspace.errors import BlockError, SettingError
from ifspace.nn.block import BlockModule
from ifspace.nn.checks import kind_of, wrong_type
from ifspace.nn.layers import RollingPointwiseConv1d, RollingPointwiseConv2d

_COLUMNS: Final = 100
# Names that the source itself uses.
_RESERVED: Final = ("nn", "Tensor", "super", "RollingPointwiseConv1d", "RollingPointwiseConv2d")


def to_source(module: BlockModule, name: str = "Block") -> str:
    """Return the source of a plain PyTorch class that computes the same as a block, to be pasted.

    The source imports only torch, and `ifspace.nn` for a rolling pointwise layer if there is one.
    The state_dict of the class has the keys of the block's.

    Raises: SettingError for a module that is no BlockModule or a name that no class can have;
        BlockError for a layer that cannot be written.
    """
    if not isinstance(module, BlockModule):
        raise wrong_type("module", module, "a BlockModule", "make one with build")
    if not isinstance(name, str) or not _nameable(name):
        raise SettingError.because(
            "not the name of a class",
            got=kind_of(name),
            allowed=f"letters, digits and _, no keyword, not {', '.join(_RESERVED)}",
            remedy="write it like Block",
            argument="name",
        )
    parts = dict(module.named_children())
    rolling = sorted(
        {type(part).__name__ for part in parts.values() if isinstance(part, RollingPointwiseConv2d)}
    )
    lines = [f"from ifspace.nn import {', '.join(rolling)}"] if rolling else []
    lines += ["from torch import Tensor, nn", "", "", f"class {name}(nn.Module):"]
    lines += [*_docstring(module), "", "    def __init__(self) -> None:"]
    lines += ["        super().__init__()"]
    for key, part in parts.items():
        lines += _assignment(f"self.{key}", *_call(part))
    lines += ["", "    def forward(self, x: Tensor) -> Tensor:", *_forward(module, parts)]
    return "\n".join(lines) + "\n"


def _nameable(name: str) -> bool:
    # Python normalises identifiers, so that letters that look alike are one.
    normal = normalize("NFKC", name)
    return name.isidentifier() and not iskeyword(normal) and normal not in _RESERVED


def _docstring(block: BlockModule) -> list[str]:
    sized = block.sized
    widths = f"{sized.channels} to {sized.out_channels} channels, stride {block.stride}."
    line = f'    """{sized.block}, {widths}"""'
    if len(line) <= _COLUMNS:
        return [line]
    notation = wrap(str(sized.block).replace("+", " + "), _COLUMNS - 4, break_long_words=False)
    return [f'    """A block, {widths}', "", *(f"    {line}" for line in notation), '    """']


def _forward(block: BlockModule, parts: dict[str, nn.Module]) -> list[str]:
    lines, argument = [], "x"
    for key in block.steps:
        lines.append(f"y = self.{key}({argument})")
        argument = "y"
    if block.shortcut_kind != "none":
        for key in ("shortcut", "shortcut_bn"):
            lines += [f"x = self.{key}(x)"] if key in parts else []
        lines.append("y = y + x")
        lines += ["y = self.act(y)"] if "act" in parts else []
    last = lines.pop().removeprefix("y = ")
    return [f"        {line}" for line in (*lines, f"return {last}")]


def _assignment(target: str, function: str, arguments: Sequence[str]) -> list[str]:
    """Return the lines of `target = function(arguments)`, broken if it is too long for one."""
    line = f"        {target} = {function}({', '.join(arguments)})"
    if len(line) <= _COLUMNS:
        return [line]
    inner = " " * 12 + ", ".join(arguments)
    inside = (
        [inner] if len(inner) <= _COLUMNS else [f"{' ' * 12}{argument}," for argument in arguments]
    )
    return [f"        {target} = {function}(", *inside, "        )"]


def _call(module: nn.Module) -> tuple[str, list[str]]:
    """Return the class and the arguments that build a module."""
    for cls, write in _WRITERS.items():
        if isinstance(module, cls):
            return write(module)
    raise BlockError.because(
        "no source for this module",
        got=type(module).__name__,
        allowed=", ".join(cls.__name__ for cls in _WRITERS),
        remedy="add its row to ifspace.nn.source",
    )


def _convolution(conv: Any) -> tuple[str, list[str]]:
    arguments = [str(conv.in_channels), str(conv.out_channels), str(conv.kernel_size[0])]
    for key, value, default in (
        ("stride", conv.stride[0], 1),
        ("padding", conv.padding[0], 0),
        ("groups", conv.groups, 1),
    ):
        arguments += [f"{key}={value}"] if value != default else []
    return f"nn.Conv{len(conv.kernel_size)}d", [*arguments, *_bias(conv)]


def _rolling(rolling: Any) -> tuple[str, list[str]]:
    arguments = [str(rolling.in_channels), str(rolling.out_channels), f"groups={rolling.groups}"]
    # As text, because 1/3 has no exact decimal.
    arguments += [f'overlap="{rolling.overlap}"'] if rolling.overlap else []
    arguments += _bias(rolling)
    arguments += [f'impl="{rolling.impl}"'] if rolling.impl != "auto" else []
    return type(rolling).__name__, arguments


def _bias(module: Any) -> list[str]:
    return ["bias=False"] if module.bias is None else []


def _torch(*attributes: str) -> Callable[[Any], tuple[str, list[str]]]:
    def write(module: Any) -> tuple[str, list[str]]:
        return f"nn.{type(module).__name__}", [str(getattr(module, name)) for name in attributes]

    return write


# Class -> how a module of it is written: the class and the arguments.
_WRITERS: Final[dict[type[nn.Module], Callable[[Any], tuple[str, list[str]]]]] = {
    RollingPointwiseConv1d: _rolling,
    RollingPointwiseConv2d: _rolling,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _torch("num_features"),
    nn.BatchNorm2d: _torch("num_features"),
    nn.ChannelShuffle: _torch("groups"),
    nn.ReLU: _torch(),
    nn.ReLU6: _torch(),
    nn.SiLU: _torch(),
    nn.Hardswish: _torch(),
}
