"""Parameters of a network that no layer of its analysis has, and whose they are."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from ifspace.models.report import Report
from ifspace.nn import RollingPointwiseConv2d

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, RollingPointwiseConv2d)


@dataclass(frozen=True, slots=True)
class Others:
    """How many parameters stand beside the layers: by class of module, and of idle layers by name.

    Idle layers do not run in evaluation: a second classifier, say, that is there for training.
    """

    classes: Mapping[str, int] = field(default_factory=dict)
    idle: Mapping[str, int] = field(default_factory=dict)


def others_of(model: nn.Module, report: Report) -> Others:
    """Return whose the parameters outside the layers of a report are, the most first.

    Where they cannot be told apart, as weights that modules share, nothing is said.

    >>> from ifspace.models.analysis import analyze
    >>> row = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU())
    >>> others_of(row, analyze(row, (3, 8, 8)))
    Others(classes={'BatchNorm2d': 16, 'PReLU': 1}, idle={})
    """
    layers = (*(each.layer for each in report.layers), *report.gates, *report.head)
    run = {layer.name for layer in layers}
    classes: Counter[str] = Counter()
    idle: dict[str, int] = {}
    for name, module in model.named_modules():
        own = sum(each.numel() for each in module.parameters(recurse=False))
        if not own or name in run:
            continue
        if isinstance(module, _LAYERS):
            idle[name] = own
        else:
            classes[type(module).__name__] += own
    if classes.total() + sum(idle.values()) == report.other_params:
        return Others(dict(classes.most_common()), idle)
    return Others()
