"""[Fog]'s funnel, by a brute force of its own, and what the preset prints of it."""

import re
from collections.abc import Callable
from itertools import product
from math import prod

import pytest

from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.fog import fog_funnel, fog_setting, merged
from ifspace.enumerate.search import enumerate_designs

EIGHT = {
    "DW+PW",
    "PW+DW",
    "GC+PW",
    "PW+GC",
    "GC+GPW",
    "GPW+GC",
    "GPW+DW+GPW",
    "GPW+GC+GPW",
}
LETTERS = {"g": "GC", "d": "DW", "p": "PW", "w": "GPW"}
FOUR = ("DW+PW", "GC+GPW", "GPW+DW+GPW", "PW+DW+PW")


def compositions() -> list[str]:
    """Those of one to six layers without a repetition: by the expression that the paper prints."""
    words = ["".join(word) for n in range(1, 7) for word in product(LETTERS, repeat=n)]
    assert len(words) == 5460
    return [word for word in words if re.search(r"(.+?)\1+", word) is None]


def full(fan_ins: tuple[int, ...], word: str, channels: int) -> bool:
    side = 1 + 2 * sum(letter in "gd" for letter in word)
    return side >= 3 and min(channels, prod(fan_ins)) == channels


def survives(word: str, channels: int) -> bool:
    """Whether some group counts give the field of a CONV(3) and leave no layer that could go."""
    if sum(letter in "gd" for letter in word) != 1:
        return False
    fan_ins = [channels // g for g in range(2, channels) if channels % g == 0]
    choices = {"d": [1], "p": [channels], "g": fan_ins, "w": fan_ins}
    return any(
        full(choice, word, channels)
        and not any(
            full(choice[:n] + choice[n + 1 :], word[:n] + word[n + 1 :], channels)
            for n in range(len(word))
        )
        for choice in product(*(choices[letter] for letter in word))
    )


def by_brute_force(channels: int, most: int = 6) -> set[str]:
    return {
        "+".join(LETTERS[letter] for letter in word)
        for word in compositions()
        if len(word) <= most and survives(word, channels)
    }


def survivors(channels: int) -> tuple[EnumerationSetting, list[str]]:
    setting = fog_setting(channels)
    designs = enumerate_designs([setting], 1).designs
    return setting, [design.composition for design in designs]


@pytest.mark.slow
@pytest.mark.parametrize("channels", [12, 16, 24])
def test_eight_compositions_survive_by_brute_force_too(channels: int) -> None:
    assert len(compositions()) == 1108
    assert by_brute_force(channels) == EIGHT
    (funnel,) = enumerate_designs([fog_setting(channels)], 1).funnels
    assert (funnel.compositions, funnel.after_patterns, funnel.survivors) == (5460, 1108, 8)
    assert set(survivors(channels)[1]) == EIGHT


# Of 4 p, of powers and of products; twice a prime, a prime squared and a prime.
@pytest.mark.parametrize("channels", [12, 18, 27, 30, 48, 64, 81, 105, 128])
def test_the_three_designs_at_widths_of_three_factors_and_more(channels: int) -> None:
    setting, compositions = survivors(channels)
    assert set(compositions) == EIGHT
    assert fog_funnel(setting, compositions, 1).of_fog == (FOUR if channels % 4 == 0 else FOUR[:3])


@pytest.mark.parametrize(("channels", "missing"), [(14, 1), (25, 1), (122, 1), (13, 6), (127, 6)])
def test_at_widths_of_two_factors_one_composition_is_missing_and_at_primes_six(
    channels: int, missing: int
) -> None:
    compositions = set(survivors(channels)[1])
    assert compositions == by_brute_force(channels, 4)
    assert len(EIGHT - compositions) == missing
    if missing == 1:
        assert EIGHT - compositions == {"GPW+GC+GPW"}
    designs = merged(compositions)
    assert [design.name for design in designs] == list(FOUR[:3] if missing == 1 else FOUR[:1])


def test_a_design_is_named_with_gc_where_the_depthwise_one_does_not_survive() -> None:
    (first, second) = merged(["GC+PW", "PW+DW", "GPW+GC"])
    assert (first.name, first.compositions, first.in_fog) == ("PW+DW", ("PW+DW", "GC+PW"), False)
    assert (second.name, second.compositions) == ("GPW+GC", ("GPW+GC",))
    assert [design.name for design in merged(["GC+PW"])] == ["GC+PW"]


def test_the_bottleneck_brings_in_the_fourth_design_and_two_that_the_paper_has_not() -> None:
    funnel = fog_funnel(*survivors(64), 1)
    assert [design.name for design in funnel.designs] == list(FOUR[:3])
    assert [design.name for design in funnel.added] == ["PW+DW+PW", "PW+DW+GPW", "DW+GPW+PW+GPW"]
    assert funnel.narrow == 24
    # No designs are added to a setting with a bottleneck of its own, nor at an odd width.
    assert fog_funnel(EnumerationSetting(bottleneck=2), ["DW+PW"]).narrow is None
    assert fog_funnel(*survivors(27), 1).narrow is None


def test_sixteen_survive_under_early_stop(run: Callable) -> None:
    ended = run(
        "enumerate", "--preset", "fog", "-C", 16, "--rule", "early-stop", "--format", "json"
    )
    assert ended.json["funnel"]["by_length"] == [0, 6, 8, 2, 0, 0]
    assert ended.json["arguments"]["patterns"] == "any"
    assert ended.err.startswith("ifspace: --rule early-stop is stronger than --preset fog\n")


@pytest.mark.parametrize("arguments", [(), ("--bottleneck", "1/4")], ids=str)
def test_the_text_of_the_preset(
    run: Callable, snapshot: object, arguments: tuple[str, ...]
) -> None:
    ended = run("enumerate", "--preset", "fog", "-C", 64, "--limit", 0, *arguments)
    assert ended.status == 0
    assert ended.out == snapshot


def test_an_option_beside_the_preset_is_stronger_and_the_defaults_are_not(run: Callable) -> None:
    fog = run("enumerate", "--preset", "fog", "-C", 16, "--format", "json").json
    assert fog["arguments"]["kinds"] == ["PW", "GC", "DW", "GPW"]
    assert [design["name"] for design in fog["merged"][0]["designs"]] == list(FOUR[:3])
    ended = run(
        *("enumerate", "--preset", "fog", "-C", "16,12", "--kinds", "dw,pw", "--max-len", 2),
        *("--patterns", "whole", "--format", "json"),
    )
    assert ended.json["arguments"]["kinds"] == ["PW", "DW"]
    assert (ended.json["arguments"]["max_len"], ended.json["arguments"]["patterns"]) == (2, "whole")
    assert ended.json["arguments"]["permutation"] == "free"
    assert len(ended.json["merged"]) == 2
    assert ended.err.count("is stronger than --preset fog") == 3


def test_a_width_without_a_bottleneck_of_a_quarter_says_so(run) -> None:
    ended = run("enumerate", "--preset", "fog", "-C", 14, "--max-len", 3)
    assert ended.status == 0
    assert "needs a bottleneck of 1/4, and that of 14 channels is no whole number" in " ".join(
        ended.out.split()
    )
