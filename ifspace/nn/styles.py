"""How a network is built from its layout: activations, shortcuts, pooling before the classifier.

A layout says what is counted; these things are free.
"""

from dataclasses import dataclass
from typing import Any, Final

from ifspace.errors import SettingError
from ifspace.nn.blocks import ACTIVATIONS, WHERE
from ifspace.nn.checks import kind_of, wrong_type
from ifspace.stages.layout import MAX_DEPTH, Layout
from ifspace.stages.networks import NETWORKS
from ifspace.values import whole_number

HEADS: Final = ("average", "max")


@dataclass(frozen=True, slots=True)
class NetworkStyle:
    """What a network has that its layout does not count.

    `activation`: "relu", "relu6", "silu", "hardswish" or None; `where`: "each" is behind every
    convolution, of which the last before a sum gives it up to the sum; "between" leaves out the
    last of a block, and the sum; "end" is behind the sum alone, or behind a block without one. The
    stem has it always. `residual`: so many units in a row
    have a shortcut beside them, 0 for none; units that are left over at the end of a stage have
    none. `head`: how the last maps are pooled, "average" or "max". `dropout`: the share of values
    that are dropped behind each hidden dense layer, in training.

    >>> NetworkStyle(residual=1).activation
    'relu'

    Raises: SettingError for a value that is not allowed.
    """

    activation: str | None = "relu"
    where: str = "each"
    residual: int = 0
    head: str = "average"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("activation", (*ACTIVATIONS, None)),
            ("where", WHERE),
            ("head", HEADS),
        ):
            if getattr(self, name) not in allowed:
                raise SettingError.because(
                    f"unknown {name}",
                    got=repr(getattr(self, name)),
                    allowed=", ".join(map(str, allowed)),
                    remedy="choose one of them",
                    argument=name,
                )
        whole_number(self.residual, "residual", 0, MAX_DEPTH)
        if not (type(self.dropout) in (int, float) and 0 <= self.dropout < 1):
            raise SettingError.because(
                "dropout out of range",
                got=repr(self.dropout),
                allowed="0 <= dropout < 1",
                remedy="0 drops nothing",
                argument="dropout",
            )


_PLAIN: Final = NetworkStyle()
_VGG: Final = NetworkStyle(head="max", dropout=0.5)
_RESNET: Final = NetworkStyle(residual=1)
_FOG: Final = NetworkStyle(residual=1, where="end")

# Network -> its style. [Layout] Table 3 counts convolutions, of which two make a residual unit, as
# in the 32-layer network of He et al.; its single first convolution has no shortcut.
STYLES: Final[dict[str, NetworkStyle]] = {
    "vgg11": _VGG,
    "vgg13": _VGG,
    "vgg16": _VGG,
    "vgg19": _VGG,
    "resnet50": _RESNET,
    "mobilenet": _PLAIN,
    "layout-plain": _PLAIN,
    "layout-residual": NetworkStyle(residual=2),
    "fog": _FOG,
    "3drf": NetworkStyle(head="max"),
}


def style_of(name: str) -> NetworkStyle:
    """Return the style of a network of the papers.

    >>> style_of("resnet50").residual, style_of("fog").where
    (1, 'end')

    Raises: SettingError for an unknown name.

    Reference: [Layout] Fig. 2 and Table 3, [Fog] section 4.1, [3DRF] Listing 1.
    """
    if not isinstance(name, str) or name.lower() not in STYLES:
        raise SettingError.because(
            "unknown network",
            got=kind_of(name),
            allowed=", ".join(NETWORKS),
            remedy="choose one of them",
            argument="network",
        )
    return STYLES[name.lower()]


def style_for(layout: Layout) -> NetworkStyle:
    """Return the style of a layout without a name: ReLUs, and shortcuts where it counts them."""
    return _RESNET if layout.frame.projections else _PLAIN


def network_style(style: Any, layout: Layout) -> NetworkStyle:
    """Return a style, that of a network's name, or for None what fits the layout.

    "plain" has no activation, as the style of that name of a block.

    Raises: SettingError for anything else.
    """
    if style is None:
        return style_for(layout)
    if isinstance(style, str):
        if style.lower() == "plain":
            return NetworkStyle(activation=None)
        if style.lower() in STYLES:
            return STYLES[style.lower()]
    if not isinstance(style, NetworkStyle):
        raise wrong_type(
            "style",
            style,
            f"a NetworkStyle of ifspace.nn, or a name: plain, {', '.join(STYLES)}",
            "a network takes a NetworkStyle, build takes a Style",
        )
    return style
