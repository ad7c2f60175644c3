"""The count of networks whose grouped layers exchange no channels, on networks of a file."""

from pathlib import Path

import pytest

from experiments.coverage.networks import Candidate
from experiments.exchange_lint import grouped_networks, lint, page

FILE = """
from torch import nn


def conv(kernel, groups):
    return nn.Conv2d(16, 16, kernel, padding=kernel // 2, groups=groups)


def apart():
    return nn.Sequential(conv(3, 4), nn.ReLU(), conv(1, 4), conv(3, 16), conv(1, 4))


def shuffled():
    return nn.Sequential(conv(3, 4), nn.ChannelShuffle(4), conv(1, 4))


def dense():
    return nn.Sequential(conv(3, 16), conv(1, 1))


def text():
    return nn.Sequential(nn.Embedding(4, 16), conv(1, 4))
"""


@pytest.mark.slow
def test_networks_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(FILE)
    candidates = [
        Candidate(f"{path}:{name}", "own", params, 2, (16, 8, 8), False)
        for params, name in enumerate(("apart", "shuffled", "dense", "text"), start=1)
    ]
    counted = list(grouped_networks(candidates, most=4))
    assert [count for _, count in counted] == [3, 2, 1]
    rows = [lint(candidate, count) for candidate, count in counted]
    assert [(row.pairs, row.joined, row.needed) for row in rows] == [
        (2, 0, 2),
        (0, 0, 0),
        (None, None, None),
    ]
    assert rows[0].example.startswith("0, 2: insert SH(4) before the second")
    assert rows[0].example.endswith("field 4 → 16 of 16")
    texts = page(rows, 4)
    assert "1 of the 2 that can be traced" in texts[2]
    assert ": 2 pairs, 0 of them" in texts[2]
    assert texts[-1].startswith("Not traced: ")


def test_networks_over_the_limit_are_left_out() -> None:
    image = (3, 8, 8)
    large = Candidate("torchvision:resnext50_32x4d", "classification", 25_028_904, 53, image, False)
    assert list(grouped_networks([large], most=1_000_000)) == []
