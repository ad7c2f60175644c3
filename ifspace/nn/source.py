"""The source of a block as a plain PyTorch class, formatted as ruff formats it.

It is written from the submodules of the block, whatever kinds they come from: torch's own modules
are written as such. A rolling pointwise convolution whose windows do not overlap is a grouped
convolution, in rolling order with a channel shuffle behind it; only one with an overlap is imported
from `ifspace.nn`.
"""

from collections.abc import Callable, Iterator, Sequence
from keyword import iskeyword
from textwrap import wrap
from typing import Any, Final
from unicodedata import normalize

from torch import nn

from ifspace.errors import BlockError, SettingError
from ifspace.kernels.windows import BLOCKED, ROLLING
from ifspace.nn.block import BlockModule
from ifspace.nn.checks import kind_of, wrong_type
from ifspace.nn.layers import RollingPointwiseConv1d, RollingPointwiseConv2d

_COLUMNS: Final = 100
# Names that the source itself uses.
_RESERVED: Final = (
    "nn",
    "Tensor",
    "super",
    "RollingPointwiseConv1d",
    "RollingPointwiseConv2d",
    "sort_filters",
    "reshape_filters",
)
# What a grouped convolution that stands for a rolling one does to weights of ifspace when they are
# loaded, by the order of the layer.
_HOOKS: Final = {
    ROLLING: (
        "sort_filters",
        '''\
def sort_filters(conv: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Sort the filters of a rolling layer, weight [C_out, w], by the group that they read."""
    filters = state.get(prefix + "weight")
    if filters is None or filters.dim() > 2:
        return
    for name, parameter in conv.named_parameters():
        if prefix + name in state:
            by_group = state[prefix + name].unflatten(0, (-1, conv.groups)).transpose(0, 1)
            state[prefix + name] = by_group.reshape(parameter.shape)
''',
    ),
    BLOCKED: (
        "reshape_filters",
        '''\
def reshape_filters(conv: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Reshape the filters of a rolling layer in blocked order, weight [C_out, w]."""
    filters = state.get(prefix + "weight")
    if filters is not None and filters.dim() == 2:
        state[prefix + "weight"] = filters.reshape(conv.weight.shape)
''',
    ),
}


def to_source(module: BlockModule, name: str = "Block") -> str:
    """Return the source of a plain PyTorch class that computes the same as a block, to be pasted.

    The source imports only torch, and `ifspace.nn` for a rolling pointwise layer with an overlap if
    there is one. The state_dict of the class has the keys of the block's, and the class loads the
    block's weights.

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
    rolling = [part for part in parts.values() if isinstance(part, RollingPointwiseConv2d)]
    imported = sorted({type(part).__name__ for part in rolling if not _is_grouped(part)})
    orders = {part.order for part in rolling if _is_grouped(part)}
    lines = [f"from ifspace.nn import {', '.join(imported)}"] if imported else []
    lines += ["from torch import Tensor, nn", "", ""]
    for order, (_, function) in _HOOKS.items():
        lines += [*function.splitlines(), "", ""] if order in orders else []
    lines += [f"class {name}(nn.Module):"]
    lines += [*_docstring(module), "", "    def __init__(self) -> None:"]
    lines += ["        super().__init__()"]
    for key, part in parts.items():
        lines += _assignment(f"self.{key}", *_call(part))
        lines += _loading(key, part)
    lines += ["", "    def forward(self, x: Tensor) -> Tensor:", *_forward(module, parts)]
    return "\n".join(lines) + "\n"


def _is_grouped(rolling: RollingPointwiseConv2d) -> bool:
    """Return whether a rolling layer is a grouped convolution, but for the order of its filters."""
    width = rolling.weight.shape[1]
    return rolling.step == width and rolling.out_channels % rolling.groups == 0


def _has_shuffle(part: nn.Module) -> bool:
    """Return whether a channel shuffle is written behind a module."""
    return (
        isinstance(part, RollingPointwiseConv2d)
        and _is_grouped(part)
        and part.order == ROLLING
        and part.groups > 1
    )


def _loading(key: str, part: nn.Module) -> Iterator[str]:
    """Yield the lines behind a grouped convolution that stands for a rolling one."""
    if _has_shuffle(part):
        yield f"        self.{key}_shuffle = nn.ChannelShuffle({part.groups})"
    if isinstance(part, RollingPointwiseConv2d) and _is_grouped(part):
        hook, _ = _HOOKS[part.order]
        yield f"        self.{key}.register_load_state_dict_pre_hook({hook})"


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
        lines += [f"y = self.{key}_shuffle(y)"] if _has_shuffle(parts[key]) else []
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
    arguments = [str(conv.in_channels), str(conv.out_channels), str(_size(conv.kernel_size))]
    for key, value, default in (
        ("stride", _size(conv.stride), 1),
        ("padding", _size(conv.padding), 0),
        ("dilation", _size(conv.dilation), 1),
        ("groups", conv.groups, 1),
    ):
        arguments += [f"{key}={value}"] if value != default else []
    return f"nn.Conv{len(conv.kernel_size)}d", [*arguments, *_bias(conv)]


def _size(pixels: tuple[int, ...]) -> int | tuple[int, ...]:
    """Return sizes as torch takes them: one number where they are equal."""
    return pixels[0] if len(set(pixels)) == 1 else pixels


def _rolling(rolling: Any) -> tuple[str, list[str]]:
    arguments = [str(rolling.in_channels), str(rolling.out_channels)]
    if _is_grouped(rolling):
        arguments += ["1", *([f"groups={rolling.groups}"] if rolling.groups > 1 else [])]
        dims = 1 if isinstance(rolling, RollingPointwiseConv1d) else 2
        return f"nn.Conv{dims}d", [*arguments, *_bias(rolling)]
    arguments += [f"groups={rolling.groups}"]
    # As text, because 1/3 has no exact decimal.
    arguments += [f'overlap="{rolling.overlap}"'] if rolling.overlap else []
    arguments += [f'order="{rolling.order}"'] if rolling.order != ROLLING else []
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
