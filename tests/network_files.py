"""The text of a user's Python file with networks, and a count of parameters."""

from typing import Any

FILE = """
import torch
from torch import nn

print("the file runs")


def row(depth, width):
    return [nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(depth)]


def make():
    print("weights on", torch.empty(0).device)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), *row(2, 16), nn.MaxPool2d(4), *row(4, 16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )


class Rigid(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b = nn.Conv2d(16, 24, 3, 2, padding=1)
        self.c = nn.Conv2d(24, 32, 3, 2, padding=1)

    def forward(self, x):
        return self.c(self.b(self.a(x)))
"""


def params(model: Any) -> int:
    """Return the number of parameters of a network."""
    return sum(parameter.numel() for parameter in model.parameters())
