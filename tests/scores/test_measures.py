"""Scores and counts: numbers of the papers, a layout's objectives, hand counts, their constants."""

import ast
from math import exp, fsum, log
from pathlib import Path

import pytest

import ifspace.scores.layers
import ifspace.scores.measures
import ifspace.stages.objectives
from ifspace.errors import SettingError
from ifspace.scores import COUNTS, SCORES, LayerList, score
from ifspace.scores.measures import CONSTANTS, entropy
from ifspace.stages.networks import network
from ifspace.stages.objectives import OBJECTIVES, total


def vgg(depths: tuple[int, ...], side: int) -> LayerList:
    rows, c_in = [], 3
    for width, depth in zip((64, 128, 256, 512, 512), depths, strict=True):
        for _ in range(depth):
            rows.append(f"3/1/{c_in}/{width}/1/{side}")
            c_in = width
        side //= 2
    return LayerList.parse(";".join(rows))


def test_the_gains_are_those_of_the_first_table() -> None:
    # [IF] Table 1: a field of 1152, 3200, 6272 of 8 x 8 x 128, gains 1.166 and .297.
    result = score("3/1/128/128/1/8;3/1/128/128/1/8;3/1/128/128/1/8")
    (stage,) = result.stages
    assert (stage.field, stage.raw_gain) == (6272, 6272 - 1152)
    assert stage.gain == pytest.approx(1.166 + 0.297, abs=1e-3)
    by_hand = log(3200 / 1152) * exp(-3 * 1152 / 8192) + log(6272 / 3200) * exp(-3 * 3200 / 8192)
    assert stage.log_gain == pytest.approx(by_hand)


@pytest.mark.parametrize(("number", "gain"), [(0, 1.73), (1, 1.60), (2, 0.30), (3, 0.0), (4, 0.0)])
def test_one_more_convolution_of_vgg11_gains_what_the_second_table_has(
    number: int, gain: float
) -> None:
    depths = (1, 1, 2, 2, 2)
    more = tuple(depth + (index == number) for index, depth in enumerate(depths))
    gained = score(vgg(more, 32)).scores["gain"] - score(vgg(depths, 32)).scores["gain"]
    assert gained == pytest.approx(gain, abs=0.006)


@pytest.mark.parametrize("side", [32, 224])
def test_a_list_scores_as_the_layout_of_the_same_network(side: int) -> None:
    layout = network("vgg16", side)
    result = score(vgg((2, 2, 3, 3, 3), side))
    for name, objective in OBJECTIVES.items():
        assert result.scores[name] == pytest.approx(total(objective, layout, 3)), name


def test_the_channel_field_is_that_at_free_permutation() -> None:
    # 64 channels in 8 groups: fields of 8, 8 and 64 channels, whatever the order between them.
    result = score("1/1/64/64/8/8;3/1/64/64/64/8;1/1/64/64/8/8")
    assert result.stages[0].field == 3 * 3 * 64
    assert score("1/1/64/64/16/8;3/1/64/64/64/8;1/1/64/64/16/8").stages[0].field == 9 * 16


def test_the_field_starts_anew_where_the_size_changes() -> None:
    # The strided layer reads 16 pixels and is the last of its stage.
    result = score("3/1/3/8/1/16;3/2/8/8/1/8;3/1/8/8/1/8;3/1/8/8/1/4")
    assert [(stage.size[0], stage.layers) for stage in result.stages] == [(16, 2), (8, 1), (4, 1)]


def test_the_entropy_of_bottlenecks_is_that_of_its_closed_form() -> None:
    # A stem of 27 weights a filter, then 1x1, 3x3, 1x1: ½ ln(c_in · b² · k²) a block.
    text = (
        "3/2/3/16/1/112;1/1/16/8/1/112;3/2/8/8/1/56;1/1/8/32/1/56;"
        "1/1/32/8/1/56;3/2/8/8/1/28;1/1/8/64/1/28"
    )
    stem = 0.5 * log(27)
    first = stem + 0.5 * log(16 * 8**2 * 3**2)
    second = first + 0.5 * log(32 * 8**2 * 3**2)
    # Stages by the size written: the first 1x1 of a block still has the size before it.
    sums = (
        log(8 * 112**2) * (stem + 0.5 * log(16)),
        log(8 * 56**2) * (first + 0.5 * log(32)),
        8 * log(64 * 28**2) * second,
    )
    assert entropy(LayerList.parse(text)) == pytest.approx(fsum(sums))


def test_counts_that_are_known_replace_those_of_the_layers() -> None:
    layers = "3/1/3/8/1/4;1/1/8/16/1/4"
    plain, replaced = score(layers), score(layers, counts={"params": 7})
    assert plain.counts["params"] == 216 + 128
    assert dict(plain.counts) | {"params": 7} == replaced.counts
    assert plain.scores == replaced.scores
    assert (tuple(plain.scores), tuple(plain.counts)) == (tuple(SCORES), tuple(COUNTS))


def test_a_wrong_alpha_is_an_error() -> None:
    with pytest.raises(SettingError, match="alpha"):
        score("3/1/3/8/1/4", -1)


def numbers_of(path: Path) -> set[float]:
    """The numbers of a module's code: of what it computes, not of its texts."""
    return {
        float(node.value)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float)
    }


def test_no_score_has_a_constant_that_came_from_accuracies() -> None:
    # 0, 1 and 2 count; 0.5 is a root or a half; the others have a source, or are limits of input.
    sources = {value for value, _ in CONSTANTS.values()} | {0.0, 1.0, 2.0, 0.5}
    limits = {10.0, 1_000_000.0, 100_000.0}
    assert numbers_of(Path(ifspace.scores.measures.__file__)) <= sources
    assert numbers_of(Path(ifspace.stages.objectives.__file__)) <= sources
    assert numbers_of(Path(ifspace.scores.layers.__file__)) <= sources | limits
    assert all(source for _, source in CONSTANTS.values())
    # Nor does one read a table of them: none of these modules opens a file of accuracies.
    for module in (ifspace.scores.measures, ifspace.stages.objectives):
        names = {
            name
            for node in ast.walk(ast.parse(Path(module.__file__).read_text("utf-8")))
            if isinstance(node, ast.ImportFrom)
            for name in [node.module or ""]
        }
        assert not any("reliability" in name or "validation" in name for name in names)
