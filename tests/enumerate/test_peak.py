"""Peak memory as a bound on the enumeration: what is left is what an enumeration without it has."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError


@pytest.mark.parametrize(
    "setting",
    [
        EnumerationSetting(channels=16, max_len=3, bottleneck=Fraction(2)),
        EnumerationSetting(channels=8, out_channels=16, max_len=3, stride=2),
        EnumerationSetting(channels=8, max_len=3, stride=2, front=True),
    ],
)
def test_the_rows_within_a_peak_are_those_that_keep_it(setting: EnumerationSetting) -> None:
    every = enumerate_designs([setting], jobs=1)
    peaks = sorted({design.peak_per_pixel for design in every.designs})
    assert len(peaks) > 1
    for most in (peaks[0] - 1, peaks[0], peaks[-2], peaks[-1]):
        within = enumerate_designs([replace(setting, most_peak=most)], jobs=1)
        kept = [design for design in every.designs if design.peak_per_pixel <= most]
        assert [str(x.block) for x in within.designs] == [str(x.block) for x in kept]
        assert within.funnels[0].survivors == len({design.composition for design in kept})
        assert within.funnels[0].words_searched <= every.funnels[0].words_searched


def test_the_command_takes_bytes_or_elements(run: Callable) -> None:
    command = ("enumerate", "-C", 16, "--max-len", 2, "--bottleneck", 2, "--format", "json")
    both = ("--side", 8, "--dtype", "int8", "--peak-memory", "3k")
    answer = run(*command, *both).json
    assert answer["arguments"]["most_peak"] == 46
    assert answer["designs"] == []
    ended = run(*command[:-2], *both)
    assert "(--bottleneck 2 " not in ended.out
    assert ended.out.splitlines()[0].endswith("(--peak-memory 3k --side 8 --dtype int8)")
    reason = "48 elements per output pixel are live at once at least, 46 may be"
    assert (ended.status, reason in ended.err.splitlines()[-1]) == (3, True)
    answer = run(*command, "--most-peak", 48).json
    assert {design["peak_per_pixel"] for design in answer["designs"]} == {48}
    for options, message in (
        (both[2:], "peak memory without the side of the feature map"),
        (both[:2] + both[4:], "peak memory without the type of the feature maps"),
        ((*both, "--most-peak", 48), "peak memory bounded twice"),
        (("--most-peak", 0), "most_peak out of range"),
        ((*both[:-1], 63), "--peak-memory holds not one feature map of one channel: got 63 bytes"),
    ):
        ended = run(*command, *options)
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert message.replace("most_peak", "--most-peak") in ended.err


def test_peak_memory_is_an_order_and_a_column(run: Callable) -> None:
    command = ("enumerate", "-C", 16, "--max-len", 2, "--stride", 2, "--quiet")
    rows = run(*command, "--by", "peak-memory").out.split("The 5 with the least peak memory")[1]
    header, _, *cells = rows.split("\n\n")[1].splitlines()
    place = header.index("peak/px")
    peaks = [int(row[place : place + 7]) for row in cells]
    # PW before the stride is live at four times the pixels, beside its input.
    assert peaks == [80, 80, 128, 128, 128]
    rows = run(*command, "--by", "least-fan-in", "--limit", 2).out
    assert "The 2 with the greatest least fan-in of 5 networks" in rows
    assert "peak/px" not in rows


def test_a_bound_below_one_is_an_error() -> None:
    with pytest.raises(SettingError, match="most_peak out of range: got 0"):
        EnumerationSetting(most_peak=0)
