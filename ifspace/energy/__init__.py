"""The widths of greatest layout energy: an exact program and a CP-SAT model, one problem."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
