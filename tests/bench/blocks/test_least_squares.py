"""The solver against every choice of what is used, and the order against its definition."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.bench.blocks.least_squares import nonnegative, rank_correlation


def by_subsets(table: np.ndarray, wanted: np.ndarray) -> float:
    """The least squared error with coefficients from 0: that of the best of all subsets."""
    best = float((wanted**2).sum())
    columns = table.shape[1]
    for count in range(1, columns + 1):
        for used in combinations(range(columns), count):
            found, *_ = np.linalg.lstsq(table[:, used], wanted, rcond=None)
            if (found >= 0).all():
                best = min(best, float(((table[:, used] @ found - wanted) ** 2).sum()))
    return best


numbers = st.integers(-9, 9).map(float)


@given(st.data(), st.integers(1, 4), st.integers(1, 6))
def test_no_subset_is_nearer(data, columns: int, rows: int) -> None:
    table = np.array(
        data.draw(st.lists(st.lists(numbers, min_size=columns, max_size=columns),
                           min_size=rows, max_size=rows))
    )  # fmt: skip
    wanted = np.array(data.draw(st.lists(numbers, min_size=rows, max_size=rows)))
    found = nonnegative(table, wanted)
    assert found.shape == (columns,)
    assert (found >= 0).all()
    error = float(((table @ found - wanted) ** 2).sum())
    assert error <= by_subsets(table, wanted) + 1e-6


def test_what_came_in_may_have_to_leave_again() -> None:
    # Columns that lean on each other, as the features of a kind do.
    for seed in range(60):
        random = np.random.default_rng(seed)
        table = random.normal(size=(7, 5)) + 2 * random.normal(size=(7, 1))
        wanted = random.normal(size=7)
        error = float(((table @ nonnegative(table, wanted) - wanted) ** 2).sum())
        assert error == pytest.approx(by_subsets(table, wanted), rel=1e-9, abs=1e-12)


def test_what_can_be_met_is_met() -> None:
    random = np.random.default_rng(0)
    table = random.uniform(0, 1, (40, 20))
    truth = random.uniform(0, 1, 20) * (random.uniform(0, 1, 20) > 0.5)
    assert np.allclose(nonnegative(table, table @ truth), truth, atol=1e-8)


def test_columns_alike_and_empty_tables_are_no_trouble() -> None:
    table = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]])
    found = nonnegative(table, np.array([2.0, 4.0]))
    assert np.allclose(table @ found, [2.0, 4.0])
    assert nonnegative(np.zeros((3, 0)), np.ones(3)).shape == (0,)
    assert (nonnegative(-np.ones((3, 2)), np.ones(3)) == 0).all()


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([10, 20, 30, 40], 1.0), ([4, 3, 2, 1], -1.0),
        # 1 - 6 (1 + 1) / (4 * 15), ranks that differ by one twice
        ([1, 2, 4, 3], 0.8),
        # ranks 1.5 1.5 3 4 against 1 2 3 4
        ([5, 5, 6, 7], 4.5 / np.sqrt(4.5 * 5)),
    ],
)  # fmt: skip
def test_the_correlation_is_that_of_the_ranks(second: list[float], expected: float) -> None:
    assert rank_correlation([1, 2, 3, 4], second) == pytest.approx(expected)


def test_of_equal_values_there_is_no_order() -> None:
    assert np.isnan(rank_correlation([1, 2, 3], [4, 4, 4]))
