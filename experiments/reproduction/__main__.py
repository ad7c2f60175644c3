"""What the papers print beside what this program computes, row by row.

`python -m experiments.reproduction` writes `results/reproduction.md`, and CSV files for
`ifspace report`. The printed values are those of `printed.py`; everything else is computed. A row
matches when our number rounds to the printed digits or is cut off after them; rows that do not
match stay in the tables.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from experiments.reproduction import count_tables, fog_tables, layout_tables, moves
from experiments.reproduction.page import Section, as_table, markdown
from ifspace.bench.record import list_in_readme, provenance
from ifspace.table import Table

NAME: Final = "reproduction.md"
COMMAND: Final = "python -m experiments.reproduction"
# More rows than this are not named in the summary.
MOST_NAMED: Final = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute all tables and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    sections = [
        moves.moves_section(),
        moves.fields_section(),
        count_tables.counts_section(),
        count_tables.decomposed_section(),
        fog_tables.fog_section(),
        layout_tables.layout_section(),
    ]
    (options.out / NAME).write_text(page(sections, str(provenance(COMMAND))))
    list_in_readme(options.out, [NAME, *moves.write(options.out, sections)], COMMAND)
    print(f"written: {options.out / NAME}")


def page(sections: Sequence[Section], where: str) -> str:
    """Return the page: a summary, then the sections."""
    counted = [row for section in sections for row in section.summary()]
    total = sum(rows for _, rows, _ in counted)
    missed = sum(len(names) for _, _, names in counted)
    parts = [
        "# What the papers print, and what comes out",
        f"Written by {where}.",
        f"Of {total} rows, {total - missed} match and {missed} do not. A number matches when it "
        "rounds to the printed digits or, said so in the row, is cut to them. The rows do not "
        "weigh the same: many are layouts of [Layout] that meet their budget.",
        markdown(summary(sections)),
        " ".join(section.remark for section in sections if section.remark),
        "[IF]: Optimizing Convolutional Neural Network Architecture via Information Field. "
        "[3DRF]: An Efficient Quantitative Approach for Optimizing CNNs. [Layout]: Finding the "
        "Secret of CNN Parameter Layout under Strict Size Constraint. [Fog]: Penetrating the Fog: "
        "the Path to Efficient CNN Models.",
        *map(str, sections),
    ]
    return "\n\n".join(parts) + "\n"


def summary(sections: Sequence[Section]) -> Table:
    """Return how many rows of each table match, and which do not."""
    rows = []
    for section in sections:
        for name, total, missed in section.summary():
            shown = ", ".join(dict.fromkeys(missed))
            if len(missed) > MOST_NAMED:
                shown = "see the table"
            rows.append([name, total - len(missed), len(missed), shown])
    return as_table(["table", "match", "do not", "which"], rows)


if __name__ == "__main__":
    main()
