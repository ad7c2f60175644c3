"""A model finds the times that it was made of, and says how far it is from others."""

from functools import partial

import pytest

from ifspace.bench.latency import (
    ALONE,
    MODEL,
    Errors,
    Model,
    features,
    fitted,
)

TIMES = {"operations": 2e-7, "bytes": 3e-6, "launches": 0.05}
TEXTS = (
    "CONV",
    "DW+PW",
    "PW+DW",
    "GC(4)+PW",
    "GPW(4)+SH(4)+DW+GPW(4)",
    "GC(2)+SH(2)+GPW(4)",
    "PW",
    "DW",
    "GC(8)+SH(8)+PW",
    "PW+PW",
    "GPW(2)+SH(2)+GC(4)",
    "DW+GPW(4)+SH(4)+GPW(4)",
    "CONV+PW",
)


def true_ms(each, here) -> float:
    counts = features(each, here)
    return sum(
        TIMES[name.split()[-1]] * count for name, count in counts.items() if "padded" not in name
    )


@pytest.fixture
def measured(block, here):
    places = ((16, 6), (32, 12), (64, 5), (16, 24))
    every = [block(text, width, side=side) for text in TEXTS for width, side in places]
    return [(each, true_ms(each, here)) for each in every]


def test_a_model_finds_what_times_are_made_of(measured, block, here) -> None:
    # One kind takes as many coefficients as it has features: so many shapes tell them apart.
    more = [block("CONV", width, side=side) for width, side in ((32, 6), (16, 12), (64, 3))]
    fit = [pair for n, pair in enumerate(measured) if n % 3]
    fit += [(each, true_ms(each, here)) for each in more]
    held_out = measured[::3]
    found = fitted("forward", fit, held_out, partial(features, conditions=here))
    errors = found.errors[MODEL]
    assert errors.count == len(held_out)
    assert errors.rank_correlation == pytest.approx(1.0)
    assert errors.median_error < 1e-6
    assert errors.misses == ()
    assert found.fitted_to == len(fit) + len(held_out)
    assert found.model.coefficients["CONV bytes"] == pytest.approx(TIMES["bytes"])


def test_nothing_is_judged_by_a_model_that_has_seen_it(block) -> None:
    # One block five times, a part each: what is guessed is the best for the other four.
    times = [1.0, 2.0, 3.0, 4.0, 9.0]
    found = fitted("forward", [], [(block("PW"), time) for time in times], lambda _: {"x": 1.0})
    errors = []
    for time in times:
        others = [1 / other for other in times if other != time]
        guess = sum(others) / sum(each**2 for each in others)
        errors.append(abs(guess - time) / time)
    assert found.errors[MODEL].median_error == pytest.approx(sorted(errors)[2])
    assert (found.errors[MODEL].count, found.fitted_to) == (len(times), len(times))


def test_one_amount_alone_knows_less(measured, here, block) -> None:
    # All here have the same width: so many parameters say little of the time.
    held_out = [(x, ms) for x, ms in measured if x.side == 24][::2]
    fit = [pair for pair in measured if pair not in held_out]
    found = fitted("forward", fit, held_out, partial(features, conditions=here))
    assert list(found.errors) == [MODEL, *ALONE]
    for name in ALONE:
        assert found.errors[name].median_error > 0.1 + found.errors[MODEL].median_error
    # They are fitted where the others stand: blocks elsewhere make no difference.
    here_alone = fitted(
        "forward",
        [pair for pair in fit if pair[0].side == 24],
        held_out,
        partial(features, conditions=here),
    )
    assert here_alone.errors["MACs alone"] == found.errors["MACs alone"]


def test_the_relative_error_is_what_is_least() -> None:
    # (c - 1)^2 + (c / 4 - 1)^2 is least there; the squared error in milliseconds is at 2.5.
    model = Model.fit([({"bytes": 1.0}, 1.0), ({"bytes": 1.0}, 4.0)])
    assert model.coefficients["bytes"] == pytest.approx((1 + 1 / 4) / (1 + 1 / 16))


def test_a_kind_that_was_never_seen_is_not_predicted() -> None:
    model = Model.fit([({"PW bytes": 2.0}, 4.0)])
    assert model.predict({"PW bytes": 3.0}) == pytest.approx(6.0)
    assert model.predict({"PW bytes": 3.0, "GC bytes": 1.0}) is None
    assert Model.fit([]).predict({"x": 1.0}) is None


def test_errors_are_those_of_what_was_predicted() -> None:
    measured = [1.0, 2.0, 4.0, 8.0, 10.0, 100.0]
    found = Errors.of([1.1, 1.8, 5.0, 8.0, 20.0, None], measured)
    assert (found.count, found.rank_correlation) == (5, pytest.approx(1.0))
    assert found.median_error == pytest.approx(0.1)
    assert Errors.of([1.0] * 4, measured[:4]) == Errors(4, None, None)
    alike = Errors.of([2.0] * 6, measured)
    assert (alike.rank_correlation, alike.misses) == (None, ("median error 78%, goal 20%",))


def test_misses_are_said() -> None:
    assert Errors(9, 0.85, 0.25).misses == (
        "rank correlation 0.85, goal 0.9",
        "median error 25%, goal 20%",
    )
    assert Errors(9, 0.9, 0.2).misses == ()


def test_a_model_is_plain_values(measured, here) -> None:
    found = fitted("forward", measured[:20], measured[20:], partial(features, conditions=here))
    values = found.to_json()
    assert values["unit"] == "ms"
    assert set(values["errors"]) == {MODEL, *ALONE}
    assert set(values["errors"][MODEL]) == {"count", "rank_correlation", "median_error"}
    assert min(values["coefficients"].values()) >= 0
