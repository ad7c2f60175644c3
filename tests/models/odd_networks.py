"""Networks that are not a plain nn.Sequential of layers, in styles found in practice."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = (3, 16, 16)


def conv(c_in: int, c_out: int, kernel: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, **more)


class Two(nn.Module):
    """Two convolutions; subclasses define what happens between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


class WithoutGradients(Two):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.a(x)
        return self.b(x)


class UnderAutocast(Two):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.a(x)
        return self.b(x.float())


class Checkpointed(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.utils.checkpoint.checkpoint(self.a, x, use_reentrant=False))


class Remembers(Two):
    """Stores the feature map of its first layer and counts its calls."""

    calls = 0
    seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.a(x)
        return self.b(self.seen)


class Options(Two):
    def forward(self, x: Tensor, *others: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.b(self.a(x))


class Names(Two):
    """Returns a dict of feature maps, one of which is used twice."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        first = self.a(x)
        return {"first": first, "others": [self.b(first), None]}


class Parametrized(Two):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.a)


class WritesAPart(nn.Module):
    """Half of the channels pass through a layer and are written back in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.part, self.last = conv(3, 8), conv(4, 4), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).clone()
        x[:, :4] = self.part(x[:, :4])
        return self.last(x)


class Tied(nn.Module):
    """Two layers that share one weight and have separate biases."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 8), conv(8, 8)
        self.c.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)))


class Twice(nn.Module):
    """One layer that is called twice, and a third time by another attribute name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 8)
        self.same = self.b

    def forward(self, x: Tensor) -> Tensor:
        return self.same(self.b(self.b(self.a(x))))


class BareWeights(nn.Module):
    """Functional convolutions: two weights are parameters, the blur filter is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.ones(8, 3, 3, 3))
        self.second = nn.Parameter(torch.ones(8, 8, 3, 3))
        self.register_buffer("blur", torch.ones(8, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.conv2d(x, self.first, padding=1), self.second, padding=1)
        return F.conv2d(F.conv2d(x, self.blur, padding=1, groups=8), torch.ones(4, 8, 1, 1))


class ChannelGate(nn.Module):
    """Efficient channel attention (ECA): a Conv1d over the pooled channels scales each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.b = conv(3, 8), nn.Conv1d(1, 1, 3, padding=1), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.gate(x.mean((2, 3)).view(len(x), 1, -1)).view(len(x), -1, 1, 1)
        return self.b(x * y.sigmoid().expand_as(x))


class PixelGate(nn.Module):
    """Spatial attention of CBAM: mean and maximum over the channels scale each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.b = conv(3, 8), conv(2, 1, 7), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return self.b(x * self.gate(both).sigmoid())


class Selective(nn.Module):
    """Convolutions of two kernel sizes, stacked and summed, as in SKNet."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large, self.last = conv(3, 8), conv(3, 8, 5), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.stack([self.small(x), self.large(x)], 1).sum(1))


class Enlarged(nn.Module):
    """A pixel shuffle before the last layer, as in super-resolution networks."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.pixel_shuffle(self.a(x), 2))


class UNet(nn.Module):
    """Two poolings, a transposed convolution, an interpolation, and both skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.low = conv(3, 8), conv(8, 12), conv(12, 16)
        self.up = nn.ConvTranspose2d(16, 10, 2, 2)
        self.three, self.four = conv(22, 12), conv(20, 8)
        self.classes = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x).relu()
        two = self.two(F.max_pool2d(one, 2)).relu()
        x = self.up(self.low(F.max_pool2d(two, 2)).relu())
        x = self.three(torch.cat([two, x], 1)).relu()
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        return self.classes(self.four(torch.cat([one, x], 1)))


class Attention(nn.Module):
    """A vision transformer of one layer: a class token before the sequence of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.mix = nn.MultiheadAttention(16, 2, batch_first=True)
        self.dense, self.classes = nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.mix(x, x, x, need_weights=False)[0]
        return self.classes((x + self.dense(x))[:, 0])


class Windows(nn.Module):
    """A linear layer on windows of 4 x 4 pixels, as in Swin, and the way back to a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.dense, self.last = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 12), conv(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        x = x.view(n, h // 4, 4, w // 4, 4, c).transpose(2, 3).reshape(-1, 16, c)
        x = self.dense(x).view(n, h // 4, w // 4, 4, 4, -1).transpose(2, 3).reshape(n, h, w, -1)
        return self.last(x.permute(0, 3, 1, 2))


class Line(nn.Module):
    """A network of Conv1d layers on sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 8, 5, 2, 4, dilation=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.max_pool1d(self.b(self.a(x)), 2).mean(-1))
