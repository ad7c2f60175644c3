"""How the search of a solver ended."""

from enum import Enum


class Status(Enum):
    """How a search for plans ended; the text says it to a person."""

    OPTIMAL = "proven: no legal choice with the full field is better"
    FEASIBLE = "time ran out: the best found so far, with the bound beside it"
    INFEASIBLE = "proven: no legal choice has the full field"
    UNKNOWN = "time ran out before a choice with the full field was found"
