"""Scores of a network from its list of convolutions, and what they can tell on published data.

>>> from ifspace import scores
>>> vgg = scores.LayerList.parse("3/1/3/64/1/32;3/1/64/64/1/32;3/1/64/128/1/16;3/1/128/128/1/16")
>>> result = scores.score(vgg)
>>> round(result.scores["gain"], 2), result.counts["params"], result.counts["depth"]
(3.33, 259776, 4)

`validate(network_sets(read_table(path)))` compares every score and count with the accuracies of a
table.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
