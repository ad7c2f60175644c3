"""A child process watched from outside: its wall time and the memory of all its processes."""

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

from tabulate import tabulate


@dataclass(frozen=True, slots=True)
class Watched:
    """What a finished child used: seconds of wall time, peak MiB of it and its children, output."""

    seconds: float
    peak_mib: float
    output: str


def watch(command: Sequence[str], interval_s: float = 0.05) -> Watched:
    """Return what a command used; memory is sampled, and 0 where /proc does not tell.

    Raises: subprocess.CalledProcessError when the command fails.
    """
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0.0
    while child.poll() is None:
        peak = max(peak, _resident_mib(child.pid))
        time.sleep(interval_s)
    seconds = time.perf_counter() - start
    output = child.communicate()[0]
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command, output)
    return Watched(seconds, peak, output)


def _resident_mib(root: int) -> float:
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # the process ended between the listing and the reading
            continue
        pid = int(entry.parent.name)
        parents[pid], resident[pid] = int(fields[1]), int(fields[21])
    family = {root}
    while found := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= found
    pages = sum(resident.get(pid, 0) for pid in family)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


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
    """Return where the results of a command that runs now come from."""
    commit = _output(["git", "rev-parse", "--short", "HEAD"]) or "unknown"
    changed = " with changes" if _output(["git", "status", "--porcelain", "ifspace"]) else ""
    machine = f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return Provenance(command, commit + changed, machine, f"{datetime.now(UTC):%Y-%m-%d}")


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def python(*arguments: str) -> list[str]:
    """Return a command that runs this interpreter."""
    return [sys.executable, *arguments]


_HEADER = ("file", "command", "commit", "machine", "date")
_FILES, _END = "<!-- files -->", "<!-- end of files -->"
_PAGE = f"""# Results of record

Written only by the commands below; `make results` writes all of them anew.

{_FILES}
{_END}
"""


def note(folder: Path, names: Sequence[str], command: str) -> Provenance:
    """Enter in the folder's README which command has just written the files; return the entry.

    The table of files stands between two markers; the rest of the page is left as it is.
    """
    where = provenance(command)
    page = folder / "README.md"
    text = page.read_text() if page.exists() else _PAGE
    before, _, rest = text.partition(_FILES)
    files, _, after = rest.partition(_END)
    rows: dict[str, Sequence[str]] = {}
    for line in files.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| [") and len(cells) == len(_HEADER):
            rows[cells[0]] = cells
    # What has gone is no result any more.
    rows = {link: row for link, row in rows.items() if (folder / _named(link)).exists()}
    for name in names:
        link = f"[{name}]({name})"
        rows[link] = (link, f"`{command}`", where.commit, where.machine, where.date)
    table = tabulate([rows[key] for key in sorted(rows)], _HEADER, tablefmt="github")
    page.write_text(f"{before}{_FILES}\n\n{table}\n\n{_END}{after}")
    return where


def _named(link: str) -> str:
    return link[1:].partition("](")[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one ifspace command into `results/` and enter it in the README there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    words = [word for word in options.command if word != "--"]
    folder = Path("results")
    pattern = "*" in options.name
    (folder / options.name).parent.mkdir(parents=True, exist_ok=True)
    words += [] if pattern else ["--out", str(folder / options.name)]
    begun = time.time()
    subprocess.run(
        python("-m", "ifspace", *words, "--quiet"), check=True, stdout=subprocess.DEVNULL
    )
    found = folder.glob(options.name) if pattern else [folder / options.name]
    # Files of an earlier run that this one did not write are none of its results.
    names = [p.relative_to(folder).as_posix() for p in found if p.stat().st_mtime >= begun - 1]
    note(folder, names, " ".join(["ifspace", *words]))
    print(f"written: {', '.join(names)}")


if __name__ == "__main__":
    main()
