"""Every option of `ifspace optimize` beside every way to use it: it counts, or is refused."""

from typing import Any

import pytest

from ifspace.cli.options import FLOORS
from ifspace.errors import SettingError
from ifspace.models.optimize_command import check_combination, command

# The ways to use it, by the options that choose them.
WAYS: dict[str, dict[str, Any]] = {
    "organizer": {},
    "stages": {"stages_only": True, "params": 1000},
    "block": {"block": "DW+PW"},
    "blocks in stages that stay": {"blocks": ("DW+PW",), "blocks_only": True},
    "front": {"params": 1000},
    "plan": {"plan": "plan.json"},
    "widths": {"widths": True, "params": 1000},
    "widths only": {"widths_only": True, "params": 1000},
    "joint": {"joint": True, "params": 1000},
}
# Options that say something whatever else is chosen: of the network, its report, and what is saved.
ALWAYS = {
    *("model", "input", "part", "trust_code", "classes", "pretrained", "weights", "seed", "save"),
    *("params", "macs", "peak_memory", "dtype", "alpha", "cap", "latency", "batch", "device"),
    *("output", "format", "out", "quiet", "verbose", "append", "force"),
}
# Other options with a value, and the ways with which they say something.
BLOCKS = ("block", "blocks in stages that stay")
STAGES = ("organizer", "stages", "block", "widths")
WIDTHS = ("widths", "widths only", "joint")
SAYS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "moves": (0, ("organizer", "block", "widths")),
    "theta": (0.0, ("organizer", "block", "widths")),
    "tie": ("later", STAGES),
    "grow": ("identity", (*STAGES, "front")),
    "stages_only": (True, ("organizer", "stages", "front")),
    "blocks_only": (True, (*BLOCKS, "front", "plan")),
    "widths": (True, (*WIDTHS[:2], "front")),
    "widths_only": (True, (*WIDTHS[:2], "front")),
    "joint": (True, ("front", "joint")),
    "keep_widths": (("a",), WIDTHS),
    "widen": (1.5, WIDTHS),
    "importance": ("l1", (*WIDTHS, "plan")),
    "keep_depths": (True, ("joint",)),
    "block": ("DW+PW", ("organizer", "block", "front")),
    "blocks": (("DW+PW",), ("organizer", "blocks in stages that stay", "front")),
    "cheapest": (True, ("organizer", "front")),
    "plan": ("plan.json", ("organizer", "plan", "front")),
    "dry_run": (True, ("blocks in stages that stay", "front", "plan", "widths only", "joint")),
    "names": (("a",), (*BLOCKS, "front")),
    "include": (("a",), (*BLOCKS, "front", "joint")),
    "exclude": (("a",), (*BLOCKS, "front", "joint")),
    "skip_first": (True, (*BLOCKS, "front", "joint")),
    "classifier": (True, ("front", "joint")),
    "least_channels": (8, (*BLOCKS, "front", "joint")),
    "measure": (True, (*BLOCKS, "front", "plan", *WIDTHS)),
    "warm_start": ("noise", (*BLOCKS, "front", "plan", "joint")),
    "time_limit": (9.0, tuple(way for way in WAYS if way != "plan")),
    **dict.fromkeys(FLOORS, (2, (*BLOCKS, "front", "joint"))),
}


def options_of(way: str, **others: Any) -> dict[str, Any]:
    names = {parameter.name for parameter in command.params} | {*FLOORS, *SAYS, *ALWAYS}
    return dict.fromkeys(sorted(filter(None, names))) | WAYS[way] | others


def test_every_option_is_in_the_table() -> None:
    names = {parameter.name for parameter in command.params}
    tabled = {*ALWAYS, *SAYS, "objective", "latency_budget_ms", "floors"}
    assert names <= tabled, names - tabled


@pytest.mark.parametrize("way", WAYS)
def test_options_say_something_or_are_refused(way: str) -> None:
    check_combination(options_of(way))
    refused = []
    for name, (value, _) in SAYS.items():
        try:
            check_combination(options_of(way, **{name: value}))
        except SettingError:
            refused.append(name)
    expected = [name for name, (_, ways) in SAYS.items() if way not in ways]
    assert refused == expected


@pytest.mark.parametrize(
    ("objective", "ways"),
    [
        ("keep", ("front", "joint")),
        ("macs", ("front",)),
        ("macs-3/4", WIDTHS),
        ("most-params", WIDTHS),
    ],
)
def test_objectives_belong_to_ways(objective: str, ways: tuple[str, ...]) -> None:
    for way in WAYS:
        if way in BLOCKS:
            continue
        options = options_of(way, objective=objective)
        if way in ways:
            check_combination(options)
        else:
            with pytest.raises(SettingError, match="options that do not go together"):
                check_combination(options)
