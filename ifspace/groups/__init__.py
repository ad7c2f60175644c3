"""Group counts: the cheapest groups, shuffles and overlaps of a composition, with proof."""
