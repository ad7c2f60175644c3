"""Packages that only some commands need: what to say where one is missing."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

import click

TORCH: Final[Mapping[str, str]] = {"torch": "torch", "safetensors": "torch"}


def check_installed(
    needed: Mapping[str, str], what: str, otherwise: str = "", extras: str = ""
) -> None:
    """Refuse to go on without packages, each with the extra that brings it.

    `what` is done with them; `otherwise`: how to do without. `extras`: those to install, where
    they are more than the missing packages need.
    """
    absent = [package for package in needed if find_spec(package) is None]
    if absent:
        found = extras or ",".join(dict.fromkeys(needed[package] for package in absent))
        raise click.ClickException(
            f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed: {what}; "
            f"install ifspace[{found}]{otherwise}"
        )
