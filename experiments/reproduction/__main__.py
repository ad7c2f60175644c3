"""What the papers print beside what this program computes, row by row.

`python -m experiments.reproduction` writes `results/reproduction.md`, and CSV files for
`ifspace report`. The printed values are those of `printed.py`; everything else is computed, the
verdicts and the choice of readings too. A row matches under a reading, is a misprint, or has no
reading; a number matches when ours rounds to the printed digits or is cut off after them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from experiments.reproduction import (
    accuracies,
    claims,
    count_tables,
    fog_tables,
    kernel_tables,
    layout_tables,
    moves,
)
from experiments.reproduction.page import Section, markdown, readings_table, score, summary
from ifspace.bench.record import list_in_readme, provenance

NAME: Final = "reproduction.md"
COMMAND: Final = "python -m experiments.reproduction"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute all tables and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    sections = [
        moves.fields_section(),
        moves.moves_section(),
        count_tables.counts_section(),
        kernel_tables.kernel_section(),
        claims.claims_section(),
        fog_tables.fog_section(),
        layout_tables.layout_section(),
        accuracies.accuracies_section(),
    ]
    (options.out / NAME).write_text(page(sections, str(provenance(COMMAND))))
    list_in_readme(options.out, [NAME, *moves.write(options.out, sections)], COMMAND)
    print(f"written: {options.out / NAME}")


def page(sections: Sequence[Section], where: str) -> str:
    """Return the page: the score of each paper, the readings, then the sections."""
    parts = [
        "# What the papers print, and what comes out",
        markdown(score(sections)),
        "*Matches*: the row comes out under one of the readings below, each chosen once for all "
        "rows of its tables. *Misprint*: printed numbers contradict each other or a formula, as "
        "the row says. *No reading found*: what was tried is in the row. A number matches when "
        "ours rounds to the printed digits or, said so in the row, is cut off after them. A "
        "reading is adopted when it explains at least half of the rows that are no misprints.",
        f"Written by {where}.",
        "## Readings",
        markdown(readings_table(sections)),
        "## Score of each table",
        markdown(summary(sections)),
        "[IF]: Optimizing Convolutional Neural Network Architecture via Information Field. "
        "[3DRF]: An Efficient Quantitative Approach for Optimizing CNNs. [Layout]: Finding the "
        "Secret of CNN Parameter Layout under Strict Size Constraint. [Fog]: Penetrating the Fog: "
        "the Path to Efficient CNN Models.",
        *map(str, sections),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
