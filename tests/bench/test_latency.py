"""The latency model: features counted by hand, fit, errors."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ifspace.bench import latency
from ifspace.bench.latency import ALONE, MODEL, Errors, FittedModel, LatencyModel, features
from ifspace.kernels import costs
from ifspace.kernels.rpw import cpu
from ifspace.kernels.rpw.cpu import plan_for, tiles_for
from ifspace.kernels.windows import windows_of


def test_every_layer_reads_and_writes_feature_maps_and_reads_weights(block, here) -> None:
    counts = features(block("DW+PW", 16, 24, stride=2), here)
    before, after = 2 * 12 * 12, 2 * 6 * 6
    assert counts == {
        "DW operations": 2 * after * 9 * 16,
        "DW bytes": 4 * (before * 16 + after * 16 + 9 * 16),
        "DW launches": 1,
        "PW operations": 2 * after * 16 * 24,
        "PW bytes": 4 * (after * 16 + after * 24 + 16 * 24),
        "PW launches": 1,
    }


def test_layers_before_the_stride_run_on_the_larger_feature_maps(block, here) -> None:
    counts = features(block("PW+DW", 8, stride=2), replace(here, dtype="bf16"))
    assert counts["PW operations"] == 2 * 2 * 144 * 64
    assert counts["DW bytes"] == 2 * (2 * 144 * 8 + 2 * 36 * 8 + 72)


def test_few_channels_to_a_group_fill_vectors_in_part(block, here) -> None:
    counts = features(block("GC(4)+SH(4)+GPW(2)", 16, 32), here)
    pixels = 2 * 36
    # Groups of 4 channels replace those of 16, twice; those of GPW are 8 and 16 wide.
    assert counts["GC padded operations"] == 2 * pixels * 4 * 16 * 16 * 9
    assert counts["GPW padded operations"] == 2 * pixels * 2 * 16 * 16
    assert counts["GC operations"] == 2 * pixels * 16 * 4 * 9
    assert counts["SH bytes"] == 4 * pixels * 32
    assert "SH operations" not in counts


def test_layers_of_one_kind_are_added_up(block, here) -> None:
    one, two = (features(block(text), here) for text in ("PW", "PW+PW"))
    assert two == {name: 2 * count for name, count in one.items()}


def test_rolling_layers_are_counted_as_they_are_run(block, here, monkeypatch) -> None:
    candidate = block("RPW(4,0)", 128, side=14, batch=16)
    counts = features(candidate, here)
    way = f"RPW {plan_for(windows_of(128, 128, 4, 0), 16 * 14**2, True).text('forward')}"
    assert {f"{way} operations", f"{way} bytes", f"{way} launches"} == set(counts)
    small = features(block("RPW(4,0)"), here)
    # Compiled loops multiply no zeros, a dense convolution does.
    assert small["RPW compiled operations"] == 2 * 72 * 16 * 4
    monkeypatch.setattr(latency, "plan_for", lambda *sizes: tiles_for(*sizes[:3]))
    assert features(block("RPW(4,0)"), here)["RPW dense operations"] == 2 * 72 * 16 * 16
    on_card = features(block("RPW(4,0)"), replace(here, device=torch.device("cuda")))
    assert on_card["RPW operations"] == 2 * 72 * 16 * 4


def test_rolling_layers_are_run_by_the_plan_for_their_type(block, here, monkeypatch) -> None:
    def choices(*sizes: object) -> dict[str, costs.Choice]:
        way = costs.DENSE if sizes[-1] is torch.bfloat16 else costs.COMPILED
        return dict.fromkeys(costs.FUNCTIONS, costs.Choice(way, (), "a machine"))

    monkeypatch.setattr(cpu, "choices", choices)
    plan_for.cache_clear()
    try:
        for dtype, way in (("fp32", "compiled"), ("bf16", "dense")):
            candidate, conditions = block("RPW(4,0)"), replace(here, dtype=dtype)
            assert f"RPW {way} operations" in features(candidate, conditions)
            assert [plan.text("forward") for plan in candidate.rpw_plans(conditions)] == [way]
    finally:
        plan_for.cache_clear()


def test_a_blocked_layer_is_counted_as_it_is_run(block, here) -> None:
    grouped = features(block("GPW(4)"), here)
    assert features(block("RPW(4,0,blocked)"), here) == grouped
    candidate = block("RPW(4,1/2,blocked)", 128, side=14, batch=16)
    windows = windows_of(128, 128, 4, 0.5, "blocked")
    way = plan_for(windows, 16 * 14**2, True).text("forward")
    assert f"RPW {way} operations" in features(candidate, here)
    assert candidate.rpw_plans(here) == (plan_for(windows, 16 * 14**2, True),)
    assert block("RPW(4,0,blocked)").rpw_plans(here) == ()


@pytest.mark.parametrize("text", ["CONV", "DW+PW", "GC(4)+SH(4)+GPW(4)", "DW+RPW(4,0,blocked)"])
def test_operations_are_those_that_a_counter_sees(text: str, block, here) -> None:
    candidate = block(text, 16, 32, stride=2)
    with FlopCounterMode(display=False) as counter:
        here.build(candidate)(here.draw(*candidate.in_shape))
    counts = features(candidate, here)
    counted = sum(
        count
        for name, count in counts.items()
        if name.endswith(" operations") and not name.endswith("padded operations")
    )
    assert counted == counter.get_total_flops()


def test_a_style_makes_passes_of_its_own(block, here) -> None:
    plain = features(block("DW+SH(4)+PW"), here)
    styled = features(block("DW+SH(4)+PW"), replace(here, style="mobilenet"))
    maps = 2 * 36 * 16
    # Batch norm and activation after DW and PW; each reads and writes.
    assert styled["elementwise bytes"] == 4 * 2 * 4 * maps
    assert {name: styled[name] for name in plain} == plain
    assert "elementwise bytes" in features(block("PW"), replace(here, style="fog"))


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


def true_ms(block, here) -> float:
    counts = features(block, here)
    return sum(
        TIMES[name.split()[-1]] * count for name, count in counts.items() if "padded" not in name
    )


@pytest.fixture
def measured(block, here):
    places = ((16, 6), (32, 12), (64, 5), (16, 24))
    every = [block(text, width, side=side) for text in TEXTS for width, side in places]
    return [(timed, true_ms(timed, here)) for timed in every]


def test_a_model_recovers_the_coefficients_of_the_times(measured, block, here) -> None:
    # One kind takes as many coefficients as it has features: so many shapes tell them apart.
    more = [block("CONV", width, side=side) for width, side in ((32, 6), (16, 12), (64, 3))]
    fit = [pair for n, pair in enumerate(measured) if n % 3]
    fit += [(candidate, true_ms(candidate, here)) for candidate in more]
    held_out = measured[::3]
    fitted = FittedModel.fit("forward", fit, held_out, partial(features, conditions=here))
    errors = fitted.errors[MODEL]
    assert errors.count == len(held_out)
    assert errors.rank_correlation == pytest.approx(1.0)
    assert errors.median_error < 1e-6
    assert errors.misses == ()
    assert fitted.fitted_to == len(fit) + len(held_out)
    assert fitted.model.coefficients["CONV bytes"] == pytest.approx(TIMES["bytes"])


def test_no_block_is_judged_by_a_model_fitted_to_it(block) -> None:
    # One block five times, each a part: what is guessed is the best for the other four.
    times = [1.0, 2.0, 3.0, 4.0, 9.0]
    fitted = FittedModel.fit(
        "forward", [], [(block("PW"), time) for time in times], lambda _: {"x": 1.0}
    )
    errors = []
    for time in times:
        others = [1 / other for other in times if other != time]
        guess = sum(others) / sum(other**2 for other in others)
        errors.append(abs(guess - time) / time)
    assert fitted.errors[MODEL].median_error == pytest.approx(sorted(errors)[2])
    assert (fitted.errors[MODEL].count, fitted.fitted_to) == (len(times), len(times))


def test_one_amount_alone_predicts_worse(measured, here, block) -> None:
    # All here have the same width: so many parameters say little of the time.
    held_out = [(x, ms) for x, ms in measured if x.side == 24][::2]
    fit = [pair for pair in measured if pair not in held_out]
    fitted = FittedModel.fit("forward", fit, held_out, partial(features, conditions=here))
    assert list(fitted.errors) == [MODEL, *ALONE]
    for name in ALONE:
        assert fitted.errors[name].median_error > 0.1 + fitted.errors[MODEL].median_error
    # They are fitted in the range of the others: blocks elsewhere make no difference.
    here_alone = FittedModel.fit(
        "forward",
        [pair for pair in fit if pair[0].side == 24],
        held_out,
        partial(features, conditions=here),
    )
    assert here_alone.errors["MACs alone"] == fitted.errors["MACs alone"]


def test_the_squared_relative_error_is_minimal() -> None:
    # (c - 1)^2 + (c / 4 - 1)^2 is least there; the squared error in milliseconds is at 2.5.
    model = LatencyModel.fit([({"bytes": 1.0}, 1.0), ({"bytes": 1.0}, 4.0)])
    assert model.coefficients["bytes"] == pytest.approx((1 + 1 / 4) / (1 + 1 / 16))


def test_a_kind_that_was_not_measured_is_not_predicted() -> None:
    model = LatencyModel.fit([({"PW bytes": 2.0}, 4.0)])
    assert model.predict({"PW bytes": 3.0}) == pytest.approx(6.0)
    assert model.predict({"PW bytes": 3.0, "GC bytes": 1.0}) is None
    assert LatencyModel.fit([]).predict({"x": 1.0}) is None


def test_errors_leave_out_what_was_not_predicted() -> None:
    measured = [1.0, 2.0, 4.0, 8.0, 10.0, 100.0]
    fitted = Errors.of([1.1, 1.8, 5.0, 8.0, 20.0, None], measured)
    assert (fitted.count, fitted.rank_correlation) == (5, pytest.approx(1.0))
    assert fitted.median_error == pytest.approx(0.1)
    assert Errors.of([1.0] * 4, measured[:4]) == Errors(4, None, None)
    alike = Errors.of([2.0] * 6, measured)
    assert (alike.rank_correlation, alike.misses) == (None, ("median error 78%, goal 20%",))


def test_missed_goals_are_named() -> None:
    assert Errors(9, 0.85, 0.25).misses == (
        "rank correlation 0.85, goal 0.9",
        "median error 25%, goal 20%",
    )
    assert Errors(9, 0.9, 0.2).misses == ()


def test_a_model_is_recorded_as_plain_values(measured, here) -> None:
    fitted = FittedModel.fit(
        "forward", measured[:20], measured[20:], partial(features, conditions=here)
    )
    values = fitted.record()
    assert values["unit"] == "ms"
    # Channels in and out, side of the output, stride: outside of these a prediction is marked.
    shapes = {(x.sized.channels, x.sized.out_channels, x.side, x.stride) for x, _ in measured}
    assert values["shapes"] == sorted(map(list, shapes))
    assert set(values["errors"]) == {MODEL, *ALONE}
    assert set(values["errors"][MODEL]) == {"count", "rank_correlation", "median_error"}
    assert min(values["coefficients"].values()) >= 0
