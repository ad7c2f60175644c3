"""Validation: statistics of small tables by hand, published numbers, intervals, differences."""

import numpy as np
import pytest
from published_tables import published
from scipy.stats import spearmanr

from ifspace.errors import SettingError
from ifspace.scores import LayerList
from ifspace.scores.published import TrainedNetwork
from ifspace.scores.tables import NetworkSet, network_sets, read_table
from ifspace.scores.validation import (
    ALL,
    GROUP_SWEEPS,
    IN_BINS,
    IN_STRATA,
    SAME_STRIDES,
    UNDER_BUDGETS,
    Validation,
    ValidationRow,
    validate,
    values_of,
)


def row_of(result: Validation, score: str, where: str) -> ValidationRow:
    return next(row for row in result.rows if (row.score, row.where) == (score, where))


def trained(count: int, seed: int = 0) -> NetworkSet:
    """Networks of one to four layers: wider and deeper ones are more accurate, on average."""
    random = np.random.default_rng(seed)
    networks = []
    for index in range(count):
        depth, width = int(random.integers(1, 5)), 8 * int(random.integers(1, 9))
        rows = [f"3/1/{8 if n == 0 else width}/{width}/1/8" for n in range(depth)]
        accuracy = width + 20 * depth + float(random.normal(0, 20))
        networks.append(
            TrainedNetwork(f"n{index}", "made", LayerList.parse(";".join(rows)), accuracy, {})
        )
    (result,) = network_sets(networks)
    return result


def test_statistics_are_those_of_scipy_over_all_and_in_the_bins() -> None:
    networks = trained(60)
    result = validate([networks], resamples=20)
    accuracies = np.array(networks.accuracies)
    params = np.array(networks.measures["params"])
    bins = np.array_split(np.argsort(params, kind="stable"), 10)
    for name, values in networks.measures.items():
        column = np.array(values)
        whole = row_of(result, name, ALL)
        assert whole.statistics["spearman"].value == pytest.approx(spearmanr(column, accuracies)[0])
        by_bin = [
            0 if len(set(column[b])) == 1 else spearmanr(column[b], accuracies[b])[0] for b in bins
        ]
        in_bins = row_of(result, name, IN_BINS).statistics["spearman"]
        assert in_bins.value == pytest.approx(np.mean(by_bin))
        assert in_bins.low <= in_bins.high
    # One number orders all pairs of a stratum of equal depth alike: none.
    assert row_of(result, "depth", IN_STRATA).statistics["pairs"].value == 0.5
    assert row_of(result, "macs", SAME_STRIDES).networks == 60


def test_the_same_seed_gives_the_same_intervals_and_differences_have_their_own() -> None:
    networks = [trained(60)]
    first, second = (validate(networks, resamples=30, seed=3) for _ in range(2))
    assert first == second
    assert validate(networks, resamples=30, seed=4) != first
    against = validate(networks, "macs", resamples=30, seed=3)
    assert {row.score for row in first.rows} - {row.score for row in against.rows} == {"macs"}
    for row in against.rows:
        for name, difference in row.statistics.items():
            own, macs = (
                row_of(first, score, row.where).statistics[name].value
                for score in (row.score, "macs")
            )
            assert difference.value == pytest.approx(own - macs)
    # Paired resamples: MACs and parameters are proportional here, so they never differ.
    for statistic in row_of(against, "params", ALL).statistics.values():
        assert (statistic.low, statistic.high) == (0, 0)


def test_a_perfect_and_a_reversed_score_are_at_the_ends() -> None:
    plain = trained(60)
    order = tuple(float(rank) for rank in np.argsort(np.argsort(plain.accuracies)))
    measures = dict(plain.measures) | {"gain": order, "energy": tuple(-rank for rank in order)}
    networks = NetworkSet(
        plain.name, plain.names, plain.accuracies, measures, plain.strides, plain.sweeps
    )
    result = validate([networks], resamples=5)
    for where in (ALL, IN_BINS, IN_STRATA):
        best, worst = (row_of(result, name, where).statistics for name in ("gain", "energy"))
        assert (best["spearman"].value, worst["kendall"].value) == pytest.approx((1, -1))
        assert (best["pairs"].value, worst["pairs"].value) == (1, 0)
    assert row_of(result, "gain", UNDER_BUDGETS).statistics["pick_percentile"].value == 100


def test_sweeps_are_compared_within_themselves() -> None:
    texts = [f"1/1/{c}/{c}/{g}/4" for c in (16, 64) for g in (1, 2, 4)]
    accuracies = [70, 69, 67, 80, 81, 79]
    networks = [
        TrainedNetwork(text, "made", LayerList.parse(text), accuracy, {})
        for text, accuracy in zip(texts, accuracies, strict=True)
    ]
    result = validate(network_sets(networks), resamples=5)
    pairs = row_of(result, "params", GROUP_SWEEPS).statistics["pairs"]
    assert pairs.value == pytest.approx(5 / 6)
    assert row_of(result, "params", GROUP_SWEEPS).networks == 6


def test_wrong_arguments_are_errors() -> None:
    networks = [trained(10)]
    with pytest.raises(SettingError, match="against"):
        validate(networks, "flops")
    with pytest.raises(SettingError, match="resamples"):
        validate(networks, resamples=0)
    with pytest.raises(SettingError, match="without networks"):
        validate([])


@pytest.mark.slow
def test_the_noted_numbers_of_the_macro_networks_come_out() -> None:
    # As noted when the objectives of layouts were chosen.
    result = validate(network_sets(read_table(published("nasbench_macro.csv"))), resamples=1)
    in_bins = {"params": 0.10, "macs": 0.79, "energy": 0.74, "gain": 0.45, "log-gain": 0.87}
    for name, number in in_bins.items():
        value = row_of(result, name, IN_BINS).statistics["spearman"].value
        assert round(value, 2) == number, name
    picks = {"gain": 85, "log-gain": 97, "macs": 89, "macs-3/4": 97}
    for name, number in picks.items():
        value = row_of(result, name, UNDER_BUDGETS).statistics["pick_percentile"].value
        assert round(value) == number, name


def test_rows_have_the_keys_of_the_contract() -> None:
    row = values_of(validate([trained(20)], resamples=2).rows[0])
    keys = {"score", "where", "spearman", "kendall", "pick_percentile", "low", "high"}
    assert keys <= set(row)


@pytest.mark.parametrize(("count", "mean"), [(4, 62.5), (5, 60.0), (12, None)])
def test_small_sets_have_their_own_random_pick_and_no_bins(count: int, mean: float | None) -> None:
    layers = LayerList.parse("3/1/3/8/1/8")
    (alike,) = network_sets(
        [TrainedNetwork(f"n{i}", "alike", layers, 50.0 + i, {}) for i in range(count)]
    )
    result = validate([alike], resamples=1)
    # Every budget holds all of these networks: the mean of 1/n, 2/n ... n/n.
    mean = mean or 100 * (count + 1) / (2 * count)
    assert result.random_picks["alike"] == pytest.approx(mean)
    pick = row_of(result, "macs", UNDER_BUDGETS).statistics["pick_percentile"]
    assert pick.value == pytest.approx(mean)
    places = {row.where for row in result.rows}
    assert ({IN_BINS, IN_STRATA} <= places) == (count >= 10)
    assert bool(places & {IN_BINS, IN_STRATA}) == (count >= 10)
