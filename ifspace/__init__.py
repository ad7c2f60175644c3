"""A block is a word over six kinds; everything said about it is derived from that word.

KINDS -> Block -> information field -> search and rules -> Catalogue. Names are imported when they
are first used, so that `import ifspace` costs nothing:

>>> import ifspace
>>> ifspace.describe("DW+PW", channels=64).params
4672
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
