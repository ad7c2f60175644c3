"""Random networks: layers, sums, concatenations and shuffles of feature maps of one size."""

import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[["Drawn", list[Tensor]], Tensor]


class Drawn(nn.Module):
    """Every step computes a feature map from any of the earlier ones; the spatial size is kept."""

    def __init__(self, seed: int, length: int, dilations: Sequence[int] = (1,)) -> None:
        super().__init__()
        self.dilations = dilations
        self.draw = random.Random(seed)
        self.channels = self.draw.choice((4, 6))
        self.widths = [self.channels]
        self.layers = nn.ModuleList()
        self.steps: list[Step] = [self._step() for _ in range(length)]
        self.steps.append(self._conv(len(self.widths) - 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for step in self.steps:
            maps.append(step(self, maps))
        return maps[-1]

    def _step(self) -> Step:
        last = len(self.widths) - 1
        width, draw = self.widths[last], self.draw
        choices = [self._any_conv, self._any_conv, self._grown, self._moved, self._pooled]
        same = [place for place in range(last) if self.widths[place] == width]
        if same:
            other = draw.choice(same)
            choices += [lambda at: self._wrote(width, lambda _, maps: maps[at] + maps[other])] * 2
        if width > 12:
            return self._conv(last, 6)
        return draw.choice(choices)(last)

    def _wrote(self, width: int, step: Step) -> Step:
        self.widths.append(width)
        return step

    def _conv(self, place: int, width: int, groups: int = 1) -> Step:
        kernel = [self.draw.choice((1, 3, 5)) for _ in range(2)]
        dilation = [self.draw.choice(self.dilations) for _ in range(2)]
        padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
        layer = nn.Conv2d(
            self.widths[place], width, kernel, 1, padding, dilation, groups, bias=False
        )
        number = len(self.layers)
        self.layers.append(layer)
        # The layer is looked up in `net`, because a copy has its own layers.
        return self._wrote(width, lambda net, maps: net.layers[number](maps[place]).relu())

    def _any_conv(self, place: int) -> Step:
        width = self.widths[place]
        groups = self.draw.choice([g for g in range(1, width + 1) if width % g == 0])
        return self._conv(place, groups * self.draw.choice((1, 2)) if groups > 2 else width, groups)

    def _pooled(self, place: int) -> Step:
        return self._wrote(self.widths[place], lambda _, maps: F.avg_pool2d(maps[place], 3, 1, 1))

    def _grown(self, place: int) -> Step:
        """A concatenation of two feature maps, or a padding of the channels with zeros."""
        width, other = self.widths[place], self.draw.randrange(place + 1)
        if self.draw.random() < 0.3:
            return self._wrote(width + 2, lambda _, maps: F.pad(maps[place], (0, 0, 0, 0, 1, 1)))
        more = self.widths[other]
        return self._wrote(width + more, lambda _, maps: torch.cat([maps[place], maps[other]], 1))

    def _moved(self, place: int) -> Step:
        """A channel shuffle written in one of three ways, swapped halves, or a rotation."""
        width = self.widths[place]
        sizes = [g for g in range(2, width) if width % g == 0]
        if not sizes:
            return self._pooled(place)
        groups = self.draw.choice(sizes)
        moves: list[Callable[[Tensor], Tensor]] = [
            lambda x: F.channel_shuffle(x, groups),
            lambda x: x.view(x.shape[0], groups, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
            lambda x: (
                x.permute(0, 2, 3, 1).unflatten(3, (groups, -1)).mT.flatten(3).permute(0, 3, 1, 2)
            ),
            lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
            lambda x: torch.cat([x[:, 1:], x[:, :1]], 1),
        ]
        move = self.draw.choice(moves)
        return self._wrote(width, lambda _, maps: move(maps[place]))
