"""The catalogue: what the enumeration found, kept in one file and asked for the best block.

A `Catalogue` holds settings, funnels and `Design` rows. `save` and `load` keep it in one Parquet
file, other suffixes are exports; `best` chooses from it.
"""

from ifspace.catalogue.choose import best, ranked
from ifspace.catalogue.dominance import dominators, mark_dominated
from ifspace.catalogue.export import to_json_dict
from ifspace.catalogue.published import published_names
from ifspace.catalogue.rows import Catalogue, Design, Funnel
from ifspace.catalogue.store import check_writable, load, save

__all__ = [
    "Catalogue",
    "Design",
    "Funnel",
    "best",
    "check_writable",
    "dominators",
    "load",
    "mark_dominated",
    "published_names",
    "ranked",
    "save",
    "to_json_dict",
]
