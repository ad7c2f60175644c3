"""Peak memory of layouts: that of the network's trace, and as a budget of the exact search."""

from collections.abc import Callable
from itertools import product

import pytest

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.memory import peak_bytes
from ifspace.models.tracing import trace
from ifspace.nn import build_network
from ifspace.nn.network import STYLES
from ifspace.stages.allocate import best_stages
from ifspace.stages.entry import layout
from ifspace.stages.networks import FREE_SHORTCUTS, NETWORKS, make_layout, network
from ifspace.stages.peak import peak_elements
from ifspace.stages.problem import Blocks, Budgets, StagesProblem


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [("vgg11", 32), ("mobilenet", 32), ("fog", 224), ("resnet50", 224), ("layout-residual", 32)],
)
def test_the_peak_of_a_layout_is_that_of_its_network(name: str, side: int) -> None:
    start = network(name, side)
    start = start.at_depths([min(2, depth) for depth in start.depths])
    live = trace(build_network(start, name, device="meta"), (3, side, side)).live
    assert live is not None
    assert (peak_elements(start) == live.peak) == (name not in FREE_SHORTCUTS)


def test_a_layout_does_not_have_the_shortcuts_of_a_style() -> None:
    """But where it counts projections: then blocks have shortcuts of one block."""
    for name in NETWORKS:
        expected = int(network(name, 32).stem_and_head.projections)
        assert (STYLES[name].residual == expected) == (name not in FREE_SHORTCUTS)


@pytest.mark.slow
def test_a_peak_as_a_budget_leaves_out_what_exceeds_it() -> None:
    """The best of all layouts that keep it, tried one by one."""
    blocks, widths = [*map(Block.parse, ("CONV", "DW+PW", "PW+DW+PW"))], (8, 12, 16)
    start = make_layout([blocks[0]] * 2, (16, 8), (8, 16), (1, 1))
    kept: dict[int, float] = {}
    limits = (4 * 16**2 * 11, 4 * 16**2 * 16, 4 * 16**2 * 20)
    for first, second in product(product(blocks, widths, range(1, 4)), repeat=2):
        texts, channels, depths = zip(first, second, strict=True)
        candidate = make_layout(texts, (16, 8), channels, depths)
        for limit in limits:
            if candidate.params <= 6000 and 4 * peak_elements(candidate) <= limit:
                kept[limit] = max(kept.get(limit, 0), candidate.gain())
    for limit in limits:
        problem = StagesProblem(
            start,
            Budgets(params=6000, peak_memory=limit, dtype="fp32"),
            (widths, widths),
            (Blocks(*blocks),) * 2,
            max_depth=3,
        )
        (plan,) = best_stages(problem).plans
        assert plan.objective() == pytest.approx(kept[limit], abs=1e-7)
        assert problem.amounts(plan.layout)["peak_memory"] <= limit
    assert kept[limits[0]] < kept[limits[1]]


@pytest.mark.slow
def test_the_least_peak_is_named_where_none_keeps_the_budget(run: Callable) -> None:
    command = ("layout", "--network", "vgg16", "--widths", "start", "--dtype", "int8")
    command += ("--input", 32)
    ended = run(*command, "--peak-memory", "80k")
    assert ended.status == 3
    assert "no layout keeps the budgets: got 80,000 bytes of peak memory" in ended.err
    # The first stage cannot be narrower: a block reads 3 and writes 64 channels, the pooling
    # behind it reads them all and writes a quarter.
    least = 64 * 32**2 + 64 * 16**2
    assert f"at least {least:,} bytes of peak memory" in ended.err
    assert run(*command, "--peak-memory", least).status == 0


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        ("256k", None, "peak memory without the type of the feature maps: got 256k bytes"),
        ("256kb", "fp32", "peak_memory is no number of bytes: got '256kb'; allowed: bytes above 0"),
        ("256KB", "fp32", "k, M and G stand for powers of 1,000, KiB, MiB and GiB for powers"),
        ("0.25", "fp32", "is no number of bytes"),
        ("256 elements", "fp32", "is no number of bytes"),
        ("256k", "fp64", "unknown dtype: got 'fp64'; allowed: fp32, fp16, bf16, int8"),
        (True, "fp32", "peak_memory out of range: got True"),
    ],
)
def test_bytes_whose_unit_is_unclear_are_an_error(
    value: object, dtype: object, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        peak_bytes(value, dtype)


def test_a_network_whose_shortcuts_are_not_counted_has_no_bound() -> None:
    with pytest.raises(SettingError, match="whose shortcuts its layout does not have"):
        layout(network="layout-residual", peak_memory="256k", dtype="fp32")
