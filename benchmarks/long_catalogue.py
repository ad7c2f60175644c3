"""How much memory `ifspace best`, `report` and exports take for catalogues longer than it.

`python -m benchmarks.long_catalogue` writes catalogues of up to a few million rows, each as one
file and as the folder of a run, some rows at a time: every block of five of twenty layers at 64
channels, with its parameters, MACs, activations and least fan-in, whether it has the full field or
not; three rows that follow each other are said to be one network. Then it runs the commands, each
in a process of its own, samples its memory, and writes `long-catalogue.md` and `.csv` into
`results/`. Beside them the smallest is read whole, as before.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.measure import Usage, watch, write_results
from ifspace.bench.record import provenance
from ifspace.block import Block
from ifspace.catalogue import dataset
from ifspace.catalogue.design import Funnel
from ifspace.catalogue.parts import Part
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.catalogue.shards import Manifest, Shards
from ifspace.table import Table

NAME: Final = "long-catalogue"
CHANNELS: Final = 64
LENGTH: Final = 5
LAYERS: Final = (
    "PW",
    *(f"GC({g})" for g in (2, 4, 8, 16, 32)),
    "DW",
    *(f"GPW({g})" for g in (2, 4, 8, 16, 32)),
    *(f"RPW({g},0)" for g in (2, 4, 8, 16)),
    *(f"SH({g})" for g in (2, 4, 8, 16)),
)
ROWS: Final = (120_000, 300_000, 1_800_000)
# Exports have all rows, and take minutes of the processor.
EXPORTED: Final = 300_000
PARTS: Final = 4
# Odd, so that no two numbers have the same product up to 2^128.
FACTOR: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835
# Of a catalogue as a file and as the folder of a run, which are to have the same answer; `results`
# is the folder that `report` reads.
QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "best": ("best", "{catalogue}"),
    "best --layers 5 --macs 5k --by activations": (
        *("best", "{catalogue}", "--layers", "5", "--macs", "5k", "--by", "activations"),
    ),
    "best --kinds DW,PW,GPW,SH --top 5": (
        *("best", "{catalogue}", "--kinds", "DW,PW,GPW,SH", "--top", "5"),
    ),
    "report": ("report", "{results}"),
}
# Of the folder alone: in the file no row is said to dominate another.
PAGE: Final = {"report --html FILE": ("report", "{results}", "--html", "{out}.html")}
EXPORTS: Final = {
    "merge --out FILE.csv": ("merge", "{catalogue}", "--out", "{out}.csv"),
    "merge --out FILE.json": ("merge", "{catalogue}", "--out", "{out}.json"),
    "merge --out FILE.parquet": ("merge", "{catalogue}", "--out", "{out}.parquet"),
    "best --out FILE.csv": ("best", "{catalogue}", "--out", "{out}.csv"),
}
FILE, FOLDER, BEFORE = "a file", "a folder", "best, all rows in memory"
WHOLE: Final = (
    "import sys; from ifspace.catalogue import best, load; best(load(sys.argv[1]), limit=10)"
)
SETTING: Final = EnumerationSetting(channels=CHANNELS, max_len=LENGTH)


def columns(first: int, rows: int) -> Iterator[dict[str, Any]]:
    """Yield the columns of rows from a number on, ROW_GROUP rows at a time."""
    singles = [Block.parse(text).at(CHANNELS) for text in LAYERS]
    params, macs, written, fan_in = (
        np.array(values)
        for values in zip(
            *(
                (
                    single.params,
                    single.macs_per_pixel(),
                    single.activations_per_pixel(),
                    # Layers that mix no channels bound no fan-in.
                    single.least_fan_in if single.layers[0].conv.mixing else CHANNELS,
                )
                for single in singles
            ),
            strict=True,
        )
    )
    kinds = [text.partition("(")[0] for text in LAYERS]
    words = islice(product(range(len(LAYERS)), repeat=LENGTH), first, first + rows)
    number = first
    while some := list(islice(words, dataset.ROW_GROUP // 3 * 3)):
        layers = np.array(some)
        blocks = ["+".join(LAYERS[index] for index in word) for word in some]
        count = len(some)
        numbers = np.arange(number, number + count)
        own = params[layers].sum(axis=1)
        firsts = numbers - numbers % 3
        yield {
            **{name: [CHANNELS] * count for name in ("channels", "out_channels", "field_channels")},
            **{name: [1] * count for name in ("repeats", "stride")},
            **{name: [3] * count for name in ("kernel", "field_side")},
            **dict.fromkeys(
                ("bottleneck", "stands_for", "beats", "dominated_by", "same_as", "published_as"),
                [None] * count,
            ),
            "dims": [2] * count,
            "composition": ["+".join(kinds[index] for index in word) for word in some],
            "block": blocks,
            "params": own,
            "macs_per_pixel": macs[layers].sum(axis=1),
            "activations_per_pixel": written[layers].sum(axis=1),
            "peak_per_pixel": [2 * CHANNELS] * count,
            "params_ratio": own / SETTING.reference_params,
            "macs_ratio": own / SETTING.reference_params,
            "layers": [LENGTH] * count,
            "least_fan_in": fan_in[layers].min(axis=1),
            "params_formula": ["C"] * count,
            "field_condition": [""] * count,
            "irreducible": [True] * count,
            "network": [f"{int(n) * FACTOR % 2**128:032x}" for n in firsts],
            "representative": [blocks[max(0, int(n) - number)] for n in firsts],
        }
        number += count


def funnel(rows: int, of: int) -> Funnel:
    """Return the funnel of so many rows of all."""
    none = [0] * (LENGTH - 1)
    return Funnel(of, of, rows, (*none, of), (*none, of), (*none, rows))


def write(rows: int, folder: Path) -> tuple[Path, Path]:
    """Write a catalogue of so many rows; return its file, and the folder of it in parts."""
    file, run = folder / f"results-{rows}" / f"catalogue-{CHANNELS}.parquet", folder / f"{rows}"
    file.parent.mkdir()
    about = dataset.provenance([SETTING], [funnel(rows, rows)])
    dataset.write_columns(file, about, columns(0, rows))
    manifest = Manifest.of([SETTING], [PARTS], 1)
    run.mkdir()
    shards = Shards.start(run, manifest)
    size = rows // PARTS
    for number in range(PARTS):
        about = dataset.part_provenance(Part((), funnel(size, rows)), manifest.key, number, size)
        tables = (
            {**some, "representative": [None] * len(some["block"])}
            for some in columns(number * size, size)
        )
        dataset.write_columns(run / shards.name(number), about, tables)
    return file, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the catalogues, run the commands, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    command = f"python -m benchmarks.{Path(__file__).stem}"
    with tempfile.TemporaryDirectory() as place:
        for count in options.rows:
            file, run = write(count, Path(place))
            if count == min(options.rows):
                usage = watch([sys.executable, "-c", WHOLE, str(file)])
                rows.append(_row(count, BEFORE, FILE, usage))
            for question, words in QUESTIONS.items():
                of_file = _asked(words, file, file.parent)
                of_folder = _asked(words, run, run)
                rows.append(_row(count, question, FILE, of_file))
                rows.append(_row(count, question, FOLDER, of_folder))
                if of_file.output != of_folder.output:
                    raise SystemExit(f"{question}: file and folder differ")
            for question, words in (PAGE | EXPORTS if count <= EXPORTED else PAGE).items():
                rows.append(_row(count, question, FOLDER, _asked(words, run, run)))
            # What is done is kept: all of it takes half an hour and more.
            write_results(options.out, NAME, page(rows, command), rows, command)


def _asked(words: Sequence[str], catalogue: Path, results: Path) -> Usage:
    """Run a command of ifspace; what it writes beside its output is removed."""
    with tempfile.TemporaryDirectory() as out:
        places = {"catalogue": catalogue, "results": results, "out": Path(out) / "written"}
        child = [word.format(**places) for word in words]
        usage = watch([sys.executable, "-m", "ifspace", *child, "--quiet"])
    print(words, catalogue.name, usage.peak_mib, usage.processor_s, flush=True)
    return usage


def _row(count: int, question: str, way: str, usage: Usage) -> dict[str, Any]:
    return {
        "rows": count,
        "question": question,
        "of": way,
        "peak MiB": round(usage.peak_mib),
        "s": round(usage.seconds, 1),
        "processor s": round(usage.processor_s, 1),
    }


def page(rows: Sequence[dict[str, Any]], command: str) -> list[str]:
    """Return the paragraphs: the peak memory of each command, and of reading all rows."""
    before = next(row for row in rows if row["question"] == BEFORE)
    counts = sorted({row["rows"] for row in rows})
    answers, pages, exports = (
        [max(_peaks(rows, count, kind), default=0) for count in counts]
        for kind in (QUESTIONS, PAGE, EXPORTS)
    )
    exported = [peak for peak in exports if peak]
    table = Table(
        (">rows", "command", "of", ">peak MiB", ">processor s"),
        tuple(
            (row["rows"], row["question"], row["of"], row["peak MiB"], row["processor s"])
            for row in rows
        ),
    )
    return [
        "# Catalogues longer than memory",
        f"Written by {provenance(command)}.",
        "Peak memory of a process of its own, sampled, imports included, and the processor's "
        f"seconds. From {counts[0]:,} to {counts[-1]:,} rows the most that an answer takes goes "
        f"from {answers[0]:,} to {answers[-1]:,} MiB and the page from {pages[0]:,} to "
        f"{pages[-1]:,}; to {counts[len(exported) - 1]:,} rows an export of all rows goes from "
        f"{exported[0]:,} to {exported[-1]:,}. All {before['rows']:,} rows in memory take "
        f"{before['peak MiB']:,} MiB.",
        table.markdown().strip(),
    ]


def _peaks(
    rows: Sequence[dict[str, Any]], count: int, questions: Mapping[str, Any]
) -> Iterator[int]:
    return (
        row["peak MiB"] for row in rows if row["rows"] == count and row["question"] in questions
    )


if __name__ == "__main__":
    main()
