"""How much memory `ifspace best` and `report` take for catalogues longer than it.

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
from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.measure import watch, write_results
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
ROWS: Final = (200_000, 600_000, 1_800_000)
PARTS: Final = 4
# Odd, so that no two numbers have the same product up to 2^128.
FACTOR: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835
QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "best": ("best", "{}"),
    "best --layers 5 --macs 5k --by activations": (
        *("best", "{}", "--layers", "5", "--macs", "5k", "--by", "activations"),
    ),
    "best --kinds DW,PW,GPW,SH --top 5": (
        *("best", "{}", "--kinds", "DW,PW,GPW,SH", "--top", "5"),
    ),
}
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


def funnel(rows: int) -> Funnel:
    """Return the funnel of so many rows."""
    by_length = (*[0] * (LENGTH - 1), rows)
    return Funnel(rows, rows, rows, by_length, by_length, by_length)


def write(rows: int, folder: Path) -> tuple[Path, Path]:
    """Write a catalogue of so many rows; return its file, and the folder of it in parts."""
    file, run = folder / f"{rows}.parquet", folder / f"{rows}"
    about = dataset.provenance([SETTING], [funnel(rows)])
    dataset.write_columns(file, about, columns(0, rows))
    manifest = Manifest.of([SETTING], [PARTS], 1)
    run.mkdir()
    shards = Shards.start(run, manifest)
    size = rows // PARTS
    for number in range(PARTS):
        about = dataset.part_provenance(Part((), funnel(size)), manifest.key, number, size)
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
    with tempfile.TemporaryDirectory() as place:
        for count in options.rows:
            file, run = write(count, Path(place))
            ways = {"a file": file, "a folder": run}
            answers: dict[str, set[str]] = {}
            for question, words in QUESTIONS.items():
                for way, path in ways.items():
                    child = [sys.executable, "-m", "ifspace", *words, "--quiet"]
                    usage = watch([word.format(path) for word in child])
                    answers.setdefault(question, set()).add(usage.output)
                    rows.append(_row(count, question, way, usage))
            assert all(len(texts) == 1 for texts in answers.values()), "file and folder differ"
            if count == min(options.rows):
                usage = watch([sys.executable, "-c", WHOLE, str(file)])
                rows.append(_row(count, "best, all rows in memory", "a file", usage))
    command = f"python -m benchmarks.{Path(__file__).stem}"
    write_results(options.out, NAME, page(rows, command), rows, command)


def _row(count: int, question: str, way: str, usage: Any) -> dict[str, Any]:
    mib, seconds = round(usage.peak_mib), round(usage.seconds, 1)
    return {"rows": count, "question": question, "of": way, "peak MiB": mib, "s": seconds}


def page(rows: Sequence[dict[str, Any]], command: str) -> list[str]:
    """Return the paragraphs: the peak memory of each command, and of reading all rows."""
    before = rows[len(QUESTIONS) * 2]
    least, most = (
        max(row["peak MiB"] for row in rows if row["rows"] == count and row is not before)
        for count in (min(row["rows"] for row in rows), max(row["rows"] for row in rows))
    )
    table = Table(
        (">rows", "command", "of", ">peak MiB"),
        tuple((row["rows"], row["question"], row["of"], row["peak MiB"]) for row in rows),
    )
    return [
        "# Catalogues longer than memory",
        f"Written by {provenance(command)}.",
        f"Peak memory of a process of its own, sampled, imports included. "
        f"With {rows[-1]['rows'] / rows[0]['rows']:.0f} times the rows the most that a command "
        f"takes goes from {least:,} to {most:,} MiB; all {before['rows']:,} rows in memory take "
        f"{before['peak MiB']:,} MiB.",
        table.markdown().strip(),
    ]


if __name__ == "__main__":
    main()
