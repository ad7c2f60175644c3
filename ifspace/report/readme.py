"""Tables inside a Markdown file, between markers, rewritten from the results.

A marker names a part, or one of its tables counted from 1:

    <!-- report: funnel -->
    <!-- report: layouts/1 -->

What stands between it and the next `<!-- end of report -->` is replaced.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ifspace.errors import SettingError
from ifspace.report.read import (
    Results,
    chosen,
    left_out,
)
from ifspace.report.tables import tables
from ifspace.storage import read_bytes, reason, replacing

END: Final = "<!-- end of report -->"
_MARKED: Final = re.compile(
    r"^<!-- report: ([a-z]+)(?:/([0-9]+))? -->\n(.*?)^<!-- end of report -->$",
    flags=re.DOTALL | re.MULTILINE,
)
_MARKERS: Final = re.compile(r"^<!-- (?:report:|end of report)", flags=re.MULTILINE)


def rewrite(path: Path, results: Results) -> bool:
    """Rewrite the tables of a Markdown file; return whether its text changed.

    Raises: SettingError for a file that cannot be read, has no markers, or an invalid
        one; OutputError when it cannot be written.
    """
    try:
        before = read_bytes(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(path, reason(error)) from None
    after = rewritten(before, results, path)
    if after != before:
        with replacing(path) as file:
            file.write_text(after, encoding="utf-8")
    return after != before


def rewritten(text: str, results: Results, path: Path = Path("README.md")) -> str:
    """Return the text with the tables of the results between its markers.

    Raises: SettingError for a text without markers, or an invalid one.
    """
    after, count = _MARKED.subn(_filled(results), text)
    if 2 * count != len(_MARKERS.findall(text)):
        raise _refused(path, "a marker without its end, or an end without its marker")
    if not count:
        raise _refused(path, "a file without markers")
    return after


def _filled(results: Results) -> Callable[[re.Match[str]], str]:
    def fill(marked: re.Match[str]) -> str:
        name, place = marked[1], marked[2]
        (part,) = chosen([name])
        shown = tables(results, name)
        missing = left_out(results, [part])
        if place is not None and shown:
            if not 1 <= int(place) <= len(shown):
                raise SettingError.because(
                    f"no such table of {name}",
                    got=place,
                    allowed=f"1 to {len(shown)}",
                    remedy="change the marker",
                )
            shown = (shown[int(place) - 1],)
        texts = [table.markdown().rstrip() for table in shown]
        texts += [
            f"*Left out: {sentence.partition(': ')[2]}.*" for sentence in missing if not shown
        ]
        body = "\n\n".join(texts)
        opening = marked[0].partition("\n")[0]
        return f"{opening}\n\n{body}\n\n{END}"

    return fill


def _refused(path: Path, got: str) -> SettingError:
    return SettingError.because(
        f"{path.name} cannot be written anew",
        got=got,
        allowed="a Markdown file with `<!-- report: PART -->` and `<!-- end of report -->`, "
        "each in a line of its own",
        remedy="put markers where tables belong",
        argument="readme",
    )
