"""Values as JSON: one conversion for every command and file."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from fractions import Fraction
from math import isfinite
from pathlib import Path
from typing import Any


def to_plain(value: Any) -> Any:
    """Return a value as what JSON has: dictionaries, lists, text, numbers, true, false and null.

    Dataclasses become dictionaries of their fields, but those that have a notation (`parse`) their
    text, as fractions do; members of an Enum their value, infinities and NaN null.

    >>> to_plain({"ratio": Fraction(1, 3), "gain": float("inf"), "widths": (8, 16)})
    {'ratio': '1/3', 'gain': None, 'widths': [8, 16]}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    if isinstance(value, Enum):
        return to_plain(value.value)
    if isinstance(value, Fraction | Path) or hasattr(type(value), "parse"):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"no JSON for {type(value).__name__}")


def json_text(value: Any) -> str:
    """Return a value as JSON text for people and programs, with a final newline.

    >>> print(json_text({"block": "DW+PW", "field": (3, 64)}), end="")
    {
      "block": "DW+PW",
      "field": [
        3,
        64
      ]
    }
    """
    return json.dumps(to_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
