"""The benchmark of the enumeration as a page and two figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

Row = Mapping[str, Any]


def write(
    out: Path,
    rows: Sequence[Row],
    pairs: Sequence[Row],
    provenance: str,
    targets: Mapping[int, float],
) -> None:
    """Write `enumerate.md` and its two figures, each as SVG and PNG, into a folder."""
    widths = [row for row in rows if row["sweep"] == "width"]
    lengths = [row for row in rows if row["sweep"] == "length"]
    page = [
        "# How fast the enumeration is",
        f"Written by {provenance}.",
        "Seconds are the median of the runs, from the call to the finished catalogue, formulas and "
        "dominance included; memory is that of all processes together. *Covered*: parameter "
        "choices that the search decided; *looked at*: pairs of halves that it compared one by "
        "one. Every row is exact: all choices decided, minima proven.",
        "## By width: all compositions to length 6",
        _table(
            ["C", "seconds", "aim", "MiB", "survivors", "covered", "looked at", "yield"],
            [
                [
                    r["channels"],
                    r["median_s"],
                    targets.get(r["channels"], ""),
                    r["peak_mib"],
                    r["survivors"],
                    r["choices_covered"],
                    r["choices_checked"],
                    _yield(r),
                ]
                for r in widths
            ],
        ),
        "![Time by width](enumerate-width.svg)",
        "## By length: C = 64",
        _table(
            [
                "length",
                "compositions",
                "seconds",
                "MiB",
                "words",
                "survivors",
                "covered",
                "looked at",
                "times the length before",
            ],
            [
                [
                    r["length"],
                    r["compositions"],
                    r["median_s"],
                    r["peak_mib"],
                    r["words_searched"],
                    r["survivors"],
                    r["choices_covered"],
                    r["choices_checked"],
                    round(r["median_s"] / before["median_s"], 1) if before else "",
                ]
                for before, r in zip([None, *lengths[:-1]], lengths, strict=True)
            ],
        ),
        "![Time by length](enumerate-length.svg)",
        "## Beside slower exact searches",
        "In turn, one process each, three times; the ratio is that of the medians. *Brute force* "
        "tries every parameter choice of every word with one spatial layer; *merged walk* goes "
        "through words forward and merges equal states.",
        _table(
            ["search", "C", "length", "its seconds", "ours", "ratio"],
            [
                [p["other"], p["channels"], p["length"], p["other_s"], p["halves_s"], p["ratio"]]
                for p in pairs
            ],
        ),
    ]
    (out / "enumerate.md").write_text("\n\n".join(page) + "\n")
    points = [(r["channels"], r["median_s"]) for r in widths]
    _figure(
        out / "enumerate-width",
        {
            "powers of two": [p for p in points if p[0] & (p[0] - 1) == 0],
            "multiples of three": [p for p in points if p[0] % 3 == 0],
        },
        "width C (channels)",
        "All compositions to length 6",
        list(targets.items()),
        base=2,
    )
    _figure(
        out / "enumerate-length",
        {"C = 64": [(r["length"], r["median_s"]) for r in lengths]},
        "longest composition (layers)",
        "All compositions of a length and below",
        [(8, 30.0), (10, 600.0)],
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    return str(tabulate(cells, header, tablefmt="github", disable_numparse=True, stralign="right"))


def _yield(row: Row) -> str:
    """Return how many choices were decided for one looked at, and how many of those were kept."""
    checked = max(1, row["choices_checked"])
    return f"{row['choices_covered'] / checked:,.0f} : 1 : {row['survivors'] / checked:.1e}"


def _figure(
    path: Path,
    series: Mapping[str, Sequence[tuple[int, float]]],
    label: str,
    title: str,
    aims: Sequence[tuple[int, float]],
    base: int | None = None,
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "ifspace", "font.size": 11}):
        figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
        for (name, points), style in zip(series.items(), ("o-", "s--"), strict=False):
            axes.plot(
                *zip(*points, strict=True),
                style,
                color="black",
                label=name,
                markerfacecolor="black" if style == "o-" else "white",
            )
        longest = max(x for points in series.values() for x, _ in points)
        inside = [aim for aim in aims if aim[0] <= longest]
        if inside:
            axes.plot(
                *zip(*inside, strict=True), "v", color="0.6", markersize=9, label="aim: below"
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        if base:
            axes.set_xscale("log", base=base)
            axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_xlabel(label)
        axes.set_ylabel("seconds")
        axes.set_title(title)
        axes.grid(visible=True, which="major", color="0.9")
        axes.legend(frameon=False)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=140)
        pyplot.close(figure)
