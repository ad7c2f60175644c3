"""Write the facts of published trained networks, and the page of what they say.

`python -m experiments.evidence FOLDER` reads the published tables of a folder, and writes
`ifspace/catalogue/evidence.csv`, its copy `docs/evidence.csv`, and `docs/evidence.md`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Final

from experiments.evidence.page import page
from experiments.evidence.rows import trained_rows
from ifspace.catalogue.evidence import FILE, TrainedBlock
from ifspace.storage import replacing
from ifspace.table import Table

ROOT: Final = Path(__file__).parents[2]
PLACES: Final = (ROOT / "ifspace" / "catalogue" / FILE, ROOT / "docs" / FILE)
PAGE: Final = ROOT / "docs" / "evidence.md"


def table(rows: Sequence[TrainedBlock]) -> str:
    """Return the file of facts."""
    columns = tuple(field.name for field in fields(TrainedBlock))
    return Table(columns, tuple(tuple(asdict(row).values()) for row in rows)).csv()


def main(arguments: Sequence[str] | None = None) -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the published tables are")
    rows = trained_rows(parser.parse_args(arguments).folder)
    for path, text in (*((place, table(rows)) for place in PLACES), (PAGE, page(rows))):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
