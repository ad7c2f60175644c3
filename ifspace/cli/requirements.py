"""Packages that only some commands need: what to say where one is missing."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

import click

TORCH: Final[Mapping[str, str]] = {"torch": "torch", "safetensors": "torch"}
ONNX: Final[Mapping[str, str]] = {"onnx": "onnx", "onnxscript": "onnx"}


def check_installed(
    packages: Mapping[str, str], purpose: str, alternative: str = "", extras: str = ""
) -> None:
    """Check that packages are installed, each with the extra that brings it.

    `purpose`: what is done with them; `alternative`: how to do without. `extras`: those to install,
    where they are more than the missing packages need.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        names = extras or ",".join(dict.fromkeys(packages[package] for package in missing))
        raise click.ClickException(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: "
            f"{purpose}; install ifspace[{names}]{alternative}"
        )


def check_solver(purpose: str, alternative: str = "") -> None:
    """Check that OR-Tools is installed, with which `purpose` is found."""
    if find_spec("ortools") is None:
        raise click.ClickException(
            f"OR-Tools is not installed: {purpose} are found with it; "
            f"install ifspace[solver]{alternative}"
        )
