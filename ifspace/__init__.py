"""Convolution blocks by their information field: a block is a sequence of layers of six kinds.

KINDS -> Block -> information field -> enumeration -> Catalogue. Names are imported when they are
first used, so that `import ifspace` is fast:

>>> import ifspace
>>> ifspace.describe("DW+PW", channels=64).params
4672
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
