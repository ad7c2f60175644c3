"""Blocks and networks as torch modules: layers, blocks in a style, their source, files, ONNX.

>>> from ifspace.nn import MOBILENET, build
>>> build("DW+PW", 16, 32, style=MOBILENET)
BlockModule(
  DW+PW, 16 to 32 channels
  (layer0): Conv2d(16, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), ...)
  (layer0_bn): BatchNorm2d(16, ...)
  (layer0_act): ReLU()
  (layer1): Conv2d(16, 32, kernel_size=(1, 1), stride=(1, 1), bias=False)
  (layer1_bn): BatchNorm2d(32, ...)
  (layer1_act): ReLU()
)
"""

from importlib.util import find_spec

if absent := [name for name in ("torch", "safetensors") if find_spec(name) is None]:
    raise ImportError(
        f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed: ifspace.nn "
        "builds modules with torch and saves them with safetensors; pip install 'ifspace[torch]'",
        name=absent[0],
    )

from ifspace.nn.block import (
    FOG,
    MOBILENET,
    PLAIN,
    BlockModule,
    Style,
    build,
)
from ifspace.nn.collapse import CollapsedBlock, collapse
from ifspace.nn.explain import explain
from ifspace.nn.export import export_onnx
from ifspace.nn.files import (
    load,
    save,
)
from ifspace.nn.fuse import fuse
from ifspace.nn.layers import (
    RollingPointwiseConv1d,
    RollingPointwiseConv2d,
    layer_module,
    thop_operators,
)
from ifspace.nn.network import (
    Network,
    NetworkStyle,
    build_network,
    named_network,
    style_of,
)
from ifspace.nn.source import to_source

__all__ = [
    "FOG",
    "MOBILENET",
    "PLAIN",
    "BlockModule",
    "CollapsedBlock",
    "Network",
    "NetworkStyle",
    "RollingPointwiseConv1d",
    "RollingPointwiseConv2d",
    "Style",
    "build",
    "build_network",
    "collapse",
    "explain",
    "export_onnx",
    "fuse",
    "layer_module",
    "load",
    "named_network",
    "save",
    "style_of",
    "thop_operators",
    "to_source",
]
