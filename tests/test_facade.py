import subprocess
import sys
from pathlib import Path

import pytest

import ifspace

ROOT = Path(__file__).resolve().parent.parent


def test_every_name_of_the_facade_is_there() -> None:
    for name in ifspace.__all__:
        assert getattr(ifspace, name) is not None
        assert name in dir(ifspace)


def test_the_facade_is_one_door_to_the_same_objects() -> None:
    from ifspace.block import Block
    from ifspace.catalogue.choose import best

    assert ifspace.Block is Block
    assert ifspace.best is best


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = ifspace.nothing


@pytest.mark.parametrize(
    ("module", "slow"),
    [("ifspace", ("sympy", "numpy")), ("ifspace.nn", ("torch._dynamo", "scipy"))],
)
def test_importing_imports_nothing_slow(module: str, slow: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*(n for n in {slow} if n in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == ""


def test_the_functions_of_commands_are_not_hidden_by_packages() -> None:
    # A package that is imported takes its own name in `ifspace`, whatever the facade has there.
    import ifspace.bench.entry
    import ifspace.groups.entry
    import ifspace.stages.entry

    assert ifspace.run_bench is ifspace.bench.entry.run_bench
    assert ifspace.find_groups is ifspace.groups.entry.find_groups
    assert ifspace.layout is ifspace.stages.entry.layout


def test_groups_take_widths_or_a_budget() -> None:
    for both in ({}, {"channels": 16, "budget": 100}):
        with pytest.raises(ifspace.IfspaceError, match="channels or a budget"):
            ifspace.find_groups("GC+PW", **both)
