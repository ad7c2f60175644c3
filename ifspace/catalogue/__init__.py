"""The catalogue: the designs of an enumeration in one file, and the best block among them.

A `Catalogue` holds settings, funnels and `Design` rows. `save` and `load` keep it in one Parquet
file, other suffixes are exports; `best` chooses from it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
