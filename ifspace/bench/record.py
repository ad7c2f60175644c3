"""Results of record: a command is run, and `results/README.md` says what wrote which file.

`python -m ifspace.bench.record NAME -- COMMAND…` runs `ifspace COMMAND… --out results/NAME`. Where
NAME is a pattern such as `figures/*`, the command runs as it is, and the files are what it wrote.
"""

import argparse
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from ifspace.bench.process import Provenance, provenance, python

_HEADER = ("file", "command", "commit", "machine", "date")
_TITLE = """# Results of record

Written only by the commands below; `make results` writes all of them anew.
"""


def note(folder: Path, names: Sequence[str], command: str) -> Provenance:
    """Enter in the folder's README which command has just written the files; return the entry."""
    where = provenance(command)
    page = folder / "README.md"
    rows: dict[str, Sequence[str]] = {}
    if page.exists():
        for line in page.read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("| [") and len(cells) == len(_HEADER):
                rows[cells[0]] = cells
    # What has gone is no result any more.
    rows = {link: row for link, row in rows.items() if (folder / _named(link)).exists()}
    for name in names:
        link = f"[{name}]({name})"
        rows[link] = (link, f"`{command}`", where.commit, where.machine, where.date)
    table = tabulate([rows[key] for key in sorted(rows)], _HEADER, tablefmt="github")
    page.write_text(f"{_TITLE}\n{table}\n")
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
