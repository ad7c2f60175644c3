"""Values as JSON and back: what `to_plain` writes `from_plain` reads, anything else is one line."""

import json
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.serialize import Between, from_plain, json_text


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Part:
    ratio: Fraction
    block: Block
    size: tuple[int, float]


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    color: Color
    mode: Literal["fast", 2]
    name: str | None
    widths: Annotated[tuple[Annotated[int, Between(1, 9)], ...], Between(1, 3)]
    flag: bool = False
    options: dict[str, Fraction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise SettingError.because("a bad name", got="bad", allowed="others", remedy="pick")


parts = st.builds(
    Part,
    st.fractions(),
    st.sampled_from([Block.parse("DW+PW"), Block.parse("(GC(4)+RPW(2,1/2))x2")]),
    st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
)
wholes = st.builds(
    Whole,
    st.lists(parts, max_size=3).map(tuple),
    st.sampled_from(Color),
    st.sampled_from(["fast", 2]),
    st.none() | st.sampled_from(["a", ""]),
    st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    st.booleans(),
    st.dictionaries(st.text(max_size=3), st.fractions(), max_size=2),
)


@pytest.mark.slow
@given(wholes)
def test_values_come_back(whole: Whole) -> None:
    assert from_plain(Whole, json.loads(json_text(whole))) == whole


def plain() -> dict[str, Any]:
    part = {"ratio": "1/3", "block": "DW+PW", "size": [1, 2.5]}
    return {"parts": [part], "color": "red", "mode": 2, "name": None, "widths": [1]}


def test_fields_with_a_default_may_be_missing() -> None:
    whole = from_plain(Whole, plain())
    assert (whole.flag, whole.options, whole.parts[0].size) == (False, {}, (1, 2.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("color"), "missing field: got 'color'; allowed: parts, color, mode"),
        (lambda v: v.update(more=1), "unknown field: got 'more'; allowed: parts, color"),
        (lambda v: v.update(parts=7), "wrong value of parts: got 7; allowed: a list"),
        (lambda v: v["parts"][0].pop("ratio"), r"missing field of parts\[0\]: got 'ratio'"),
        (lambda v: v["parts"].append(None), r"of parts\[1\]: got None; allowed: an object"),
        (
            lambda v: v["parts"][0].update(ratio=0.5),
            r"of parts\[0\]\.ratio: got 0\.5; allowed: a",
        ),
        (lambda v: v["parts"][0].update(ratio="1/0"), r"of parts\[0\]\.ratio: got '1/0'"),
        (lambda v: v["parts"][0].update(ratio="1e999999999"), r"of parts\[0\]\.ratio"),
        (lambda v: v["parts"][0].update(block="XY"), r"^parts\[0\]\.block: unknown kind of"),
        (lambda v: v["parts"][0].update(block=3), r"of parts\[0\]\.block: got 3; allowed: the not"),
        (lambda v: v["parts"][0].update(size=[1]), r"of parts\[0\]\.size: got \[1\]; .* of 2"),
        (lambda v: v["parts"][0]["size"].insert(0, 1.5), r"size: got \[1\.5, 1, 2\.5\]; .* of 2"),
        (lambda v: v["parts"][0].update(size=[True, 1]), r"size\[0\]: got True; .* whole number"),
        (lambda v: v["parts"][0].update(size=[1, float("nan")]), r"size\[1\]: got nan; .* finite"),
        (lambda v: v.update(color="green"), "of color: got 'green'; allowed: 'red', 'blue'"),
        (lambda v: v.update(color=[]), r"of color: got \[\]"),
        (lambda v: v.update(mode=True), "of mode: got True; allowed: 'fast', 2"),
        (lambda v: v.update(name=3), "of name: got 3; allowed: text"),
        (lambda v: v.update(widths=[]), "number of widths out of range: got 0; .* from 1 to 3"),
        (lambda v: v.update(widths=[10]), r"^widths\[0\] out of range: got 10; .* from 1 to 9"),
        (lambda v: v.update(flag=1), "of flag: got 1; allowed: true or false"),
        (lambda v: v.update(options={"a": "b"}), r"of options\.a: got 'b'"),
        (lambda v: v.update(name="x" * 9999, flag="y" * 9999), r"of flag: got 'y{2,20}\.\.\.y+'"),
        (lambda v: v.update(name="bad"), "^a bad name: got bad"),
    ],
)
def test_anything_else_names_the_field(change: Any, message: str) -> None:
    values = plain()
    change(values)
    with pytest.raises(SettingError, match=message) as raised:
        from_plain(Whole, values)
    assert "\n" not in str(raised.value)
    with pytest.raises(SettingError, match=r"top\[0\]"):
        from_plain(tuple[Whole, ...], [values], "top")
