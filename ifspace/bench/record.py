"""Results of record: where a result comes from, and the README that lists the files of `results/`.

`python -m ifspace.bench.record NAME -- COMMAND…` runs `ifspace COMMAND… --out results/NAME` and
lists the file. Where NAME is a pattern such as `figures/*`, the command runs as it is, and the
files that it wrote are listed. With `--module`, `python -m MODULE` runs instead of `ifspace`.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ifspace.table import Table

# Extensions of vectors, the widest first, by the names that Linux gives them.
_VECTORS: Final = {"avx512f": "AVX-512", "avx2": "AVX2"}
_HEADER: Final = ("file", "command", "commit", "machine", "date")
_FILES, _END = "<!-- files -->", "<!-- end of files -->"
_PAGE: Final = f"""# Results of record

Written only by the commands below; `make results` writes all of them anew.

{_FILES}
{_END}
"""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a result comes from: the command, the commit, the machine, the day."""

    command: str
    commit: str
    machine: str
    date: str

    def __str__(self) -> str:
        return f"`{self.command}`, commit {self.commit}, {self.machine}, {self.date}"


def provenance(command: str) -> Provenance:
    """Return the provenance of the results of a command that runs now.

    The commit of a copy without its repository, as on a machine lent for minutes, is what
    IFSPACE_COMMIT says.
    """
    commit = _output(["git", "rev-parse", "--short", "HEAD"])
    commit = commit or os.environ.get("IFSPACE_COMMIT", "unknown")
    changed = " with changes" if _output(["git", "status", "--porcelain", "ifspace"]) else ""
    machine = f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return Provenance(command, commit + changed, machine, f"{datetime.now(UTC):%Y-%m-%d}")


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    """Return the model's name, and the widest vectors: models of one name differ in them."""
    # psutil and `platform` know no model name on Linux.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    values = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    name = values.get("model name") or platform.processor() or platform.machine()
    flags = values.get("flags", "").split()
    vectors = [text for flag, text in _VECTORS.items() if flag in flags]
    return f"{name} ({vectors[0]})" if vectors else name


def python(*arguments: str) -> list[str]:
    """Return a command that runs this interpreter."""
    return [sys.executable, *arguments]


def list_in_readme(folder: Path, names: Sequence[str], command: str) -> Provenance:
    """List files that a command has just written in the folder's README; return their provenance.

    The table of files stands between two markers; the rest of the page is left as it is. Entries of
    files that no longer exist are removed.
    """
    entry = provenance(command)
    page = folder / "README.md"
    text = page.read_text() if page.exists() else _PAGE
    before, _, rest = text.partition(_FILES)
    files, _, after = rest.partition(_END)
    rows: dict[str, Sequence[str]] = {}
    for line in files.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| [") and len(cells) == len(_HEADER):
            rows[cells[0]] = cells
    rows = {link: row for link, row in rows.items() if (folder / _linked_name(link)).exists()}
    for name in names:
        link = f"[{name}]({name})"
        rows[link] = (link, f"`{command}`", entry.commit, entry.machine, entry.date)
    table = (
        Table(_HEADER, tuple(tuple(rows[link]) for link in sorted(rows)))
        .markdown("github")
        .rstrip()
    )
    page.write_text(f"{before}{_FILES}\n\n{table}\n\n{_END}{after}")
    return entry


def _linked_name(link: str) -> str:
    return link[1:].partition("](")[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command into `results/` and list its files in the README there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", default="ifspace", help="run this program, not ifspace")
    parser.add_argument("name")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    command = [argument for argument in options.command if argument != "--"]
    folder = Path("results")
    is_pattern = "*" in options.name
    (folder / options.name).parent.mkdir(parents=True, exist_ok=True)
    command += [] if is_pattern else ["--out", str(folder / options.name)]
    started = time.time()
    subprocess.run(
        python("-m", options.module, *command, "--quiet"), check=True, stdout=subprocess.DEVNULL
    )
    paths = folder.glob(options.name) if is_pattern else [folder / options.name]
    # Files of an earlier run that this one did not write are not its results.
    names = [
        path.relative_to(folder).as_posix() for path in paths if path.stat().st_mtime >= started - 1
    ]
    program = "ifspace" if options.module == "ifspace" else f"python -m {options.module}"
    list_in_readme(folder, names, " ".join([program, *command]))
    print(f"written: {', '.join(names)}")


if __name__ == "__main__":
    main()
