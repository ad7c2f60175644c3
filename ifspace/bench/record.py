"""Results of record: a command is run, and `results/README.md` says what wrote which file.

`python -m ifspace.bench.record NAME -- COMMAND…` runs `ifspace COMMAND… --out results/NAME`.
"""

import argparse
import subprocess
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
    for name in names:
        link = f"[{name}]({name})"
        rows[link] = (link, f"`{command}`", where.commit, where.machine, where.date)
    table = tabulate([rows[key] for key in sorted(rows)], _HEADER, tablefmt="github")
    page.write_text(f"{_TITLE}\n{table}\n")
    return where


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one ifspace command into `results/` and enter it in the README there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    words = [word for word in options.command if word != "--"]
    target = Path("results") / options.name
    target.parent.mkdir(exist_ok=True)
    words += ["--out", str(target)]
    subprocess.run(
        python("-m", "ifspace", *words, "--quiet"), check=True, stdout=subprocess.DEVNULL
    )
    note(target.parent, [options.name], " ".join(["ifspace", *words]))
    print(f"written: {target}")


if __name__ == "__main__":
    main()
