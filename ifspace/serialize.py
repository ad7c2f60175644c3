"""Values as JSON: one conversion for every command and file."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from fractions import Fraction
from functools import cache
from math import isfinite
from pathlib import Path
from reprlib import repr as shortened
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ifspace.errors import IfspaceError, SettingError
from ifspace.values import whole_number

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Between:
    """The range of a whole number, or of the number of parts, in an annotation for `from_plain`.

    >>> Width = Annotated[int, Between(1, 4096)]
    """

    least: int
    most: int | None = None


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


def from_plain(kind: type[T], value: Any, where: str = "") -> T:
    """Return the value of a type that `to_plain` wrote.

    Dataclasses are read by the annotations of their fields: other dataclasses, tuples, fractions,
    members of an Enum, Literals, classes with a notation, and `X | None`. `Annotated[int,
    Between(1, 9)]` gives the range of a number, or how many parts a tuple may have. A field with a
    default may be missing. `where` is the path of the value, for errors.

    >>> from_plain(tuple[Fraction, ...], ["1/3", 2])
    (Fraction(1, 3), Fraction(2, 1))
    >>> from_plain(Between, {"least": "1"})
    Traceback (most recent call last):
    ifspace.errors.SettingError: wrong value of least: got '1'; allowed: a whole number; ...

    Raises: SettingError with the path of the first field that is wrong, missing or unknown.
    """
    result: T = _read(kind, value, where)
    return result


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return _in_range(_read(arguments[0], value, where), hint.__metadata__, where)
    if origin in (Union, UnionType):
        kinds = [argument for argument in arguments if argument is not NoneType]
        if len(kinds) == 1:
            return None if value is None else _read(kinds[0], value, where)
    elif origin is Literal:
        return _checked(
            any(type(value) is type(a) and value == a for a in arguments), hint, value, where
        )
    elif origin is tuple:
        return _read_tuple(arguments, value, where)
    elif origin is dict:
        _checked(isinstance(value, Mapping), Mapping, value, where)
        kind = arguments[1]
        return {str(key): _read(kind, part, f"{where}.{key}") for key, part in value.items()}
    elif isinstance(hint, type):
        return _read_class(hint, value, where)
    raise TypeError(f"no reading of {hint}")


def _in_range(value: Any, metadata: tuple[Any, ...], where: str) -> Any:
    for limits in metadata:
        if isinstance(limits, Between):
            parts = isinstance(value, tuple)
            name = f"number of {where}" if parts else where
            whole_number(len(value) if parts else value, name, limits.least, limits.most)
    return value


def _read_class(kind: type, value: Any, where: str) -> Any:
    if kind in (bool, int, str):
        return _checked(type(value) is kind, kind, value, where)
    if kind is float:
        _checked(type(value) in (int, float) and isfinite(value), kind, value, where)
        return float(value)
    if kind is Fraction:
        text = isinstance(value, str) and re.fullmatch(
            r"-?[0-9]{1,999}(/0*[1-9][0-9]{0,999})?", value
        )
        return Fraction(_checked(bool(text) or type(value) is int, kind, value, where))
    if issubclass(kind, Enum):
        members = {member.value: member for member in kind}
        return members[_checked(type(value) in (str, int) and value in members, kind, value, where)]
    if hasattr(kind, "parse"):
        _checked(isinstance(value, str), kind, value, where)
        return _located(lambda: kind.parse(value), where)
    if is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    raise TypeError(f"no reading of {kind}")


def _read_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _checked(isinstance(value, list | tuple), tuple, value, where)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    elif len(kinds) != len(value):
        raise _wrong(f"a list of {len(kinds)}", value, where)
    parts = enumerate(zip(kinds, value, strict=True))
    return tuple(_read(kind, part, f"{where}[{index}]") for index, (kind, part) in parts)


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    hints = _hints(kind)
    names = [field.name for field in fields(kind) if field.init]
    required = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    _checked(isinstance(value, Mapping), Mapping, value, where)
    unknown = [name for name in value if name not in names]
    missing = [name for name in required if name not in value]
    for state, wrong, remedy in (
        ("unknown", unknown, "leave it out"),
        ("missing", missing, "put it in"),
    ):
        if wrong:
            raise SettingError.because(
                f"{state} field{where and f' of {where}'}",
                got=shortened(wrong[0]),
                allowed=", ".join(names),
                remedy=remedy,
            )
    path = f"{where}." if where else ""
    parts = {name: _read(hints[name], part, path + name) for name, part in value.items()}
    return _located(lambda: kind(**parts), where)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _located(construct: Callable[[], T], where: str) -> T:
    """Return what a constructor makes; its own error gets the path of the value."""
    try:
        return construct()
    except IfspaceError as error:
        if not where:
            raise
        raise SettingError(f"{where}: {error}") from None


def _checked(right: bool, kind: Any, value: Any, where: str) -> Any:
    if right:
        return value
    names = {
        bool: "true or false",
        int: "a whole number",
        str: "text",
        float: "a finite number",
        Fraction: "a ratio such as 1/3",
        tuple: "a list",
        Mapping: "an object with named fields",
    }
    if get_origin(kind) is Literal:
        allowed = ", ".join(map(repr, get_args(kind)))
    elif isinstance(kind, type) and issubclass(kind, Enum):
        allowed = ", ".join(repr(member.value) for member in kind)
    else:
        allowed = names.get(kind) or f"the notation of a {kind.__name__}"
    raise _wrong(allowed, value, where)


def _wrong(allowed: str, value: Any, where: str) -> SettingError:
    return SettingError.because(
        f"wrong value{where and f' of {where}'}",
        got=shortened(value),
        allowed=allowed,
        remedy="write it anew",
    )
