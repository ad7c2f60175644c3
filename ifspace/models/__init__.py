"""Real networks: where their layers see nothing new, better stages, and blocks for convolutions.

`reorganize` and `decompose` return a changed copy of the network with the plan it follows, and take
either a module or such a result; `save` writes it with the record of all steps.

>>> import ifspace.models as m
>>> model = m.network("vgg16", (3, 32, 32), seed=0)
>>> report = m.analyze(model, (3, 32, 32))
>>> report
<Report of 13 layers in 5 stages: 14,724,042 parameters, 313,201,664 MACs, 3 layers add nothing>
>>> [layer.layer.name for layer in report.layers if layer.adds_nothing]
['stages.stage4.unit3.layer0', 'stages.stage5.unit2.layer0', 'stages.stage5.unit3.layer0']
>>> better = m.reorganize(model, (3, 32, 32), m.Budgets(params="5.1M", macs="370M"))
>>> better.plan.end.depths
(5, 4, 2, 1, 1)
>>> final = m.decompose(better, (3, 32, 32), m.Blocks("DW+RPW(2,1/2)"))
>>> [sum(w.numel() for w in net.parameters()) for net in (model, better.model, final.model)]
[14724042, 5098826, 314634]

Reference: [3DRF] Listing 1.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
