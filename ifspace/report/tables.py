"""The tables of a report, part by part, from the files of a results folder."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from ifspace.catalogue import Catalogue, Design, ranked
from ifspace.catalogue.dataset import notes
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.report.bench_tables import block_tables, kernel_tables
from ifspace.report.files import ENERGY, GROUPS, STAGES, VERDICTS, Row
from ifspace.report.folder import Results
from ifspace.report.table import Table, table
from ifspace.table import ratio_text


def tables(results: Results, part: str) -> tuple[Table, ...]:
    """Return the tables of a part; none where its file is not there."""
    return tuple(_PARTS[part](results))


def setting_name(setting: EnumerationSetting) -> str:
    """Return what a catalogue is for, in a few words.

    >>> setting_name(EnumerationSetting(channels=64, out_channels=128, stride=2))
    '64 to 128 channels, stride 2'
    """
    same = setting.out_width == setting.channels
    words = f"{setting.channels} channels" if same else f"{setting.channels} to "
    words += "" if same else f"{setting.out_width} channels"
    for name, usual in (
        ("kernel", 3),
        ("stride", 1),
        ("dims", 2),
        ("bottleneck", None),
        ("repeats", 1),
    ):
        value = getattr(setting, name)
        words += "" if value == usual else f", {name} {value}"
    return words


def settings(results: Results) -> Iterator[tuple[Catalogue, int, EnumerationSetting]]:
    """Yield every setting of the catalogues with its catalogue and its place there."""
    for catalogue in results.catalogues:
        for place, setting in enumerate(catalogue.settings):
            yield catalogue, place, setting


def designs_of(catalogue: Catalogue, setting: EnumerationSetting) -> tuple[Design, ...]:
    """Return the designs of one setting of a catalogue, in its order."""
    ratio = None if setting.bottleneck is None else str(setting.bottleneck)
    replaced = (
        setting.channels,
        setting.out_width,
        ratio,
        setting.repeats,
        setting.kernel,
        setting.stride,
        setting.dims,
    )
    return tuple(design for design in catalogue.designs if design.replaces == replaced)


def _funnel(results: Results) -> Iterator[Table]:
    for catalogue, place, setting in settings(results):
        funnel = catalogue.funnels[place]
        lengths = range(1, setting.max_len + 1)
        counts = (
            ("compositions", funnel.compositions_by_length, funnel.compositions),
            ("after repeated patterns", funnel.after_patterns_by_length, funnel.after_patterns),
            ("survivors", funnel.by_length, funnel.survivors),
        )
        yield table(
            f"Compositions by length, {setting_name(setting)}",
            ["length", *(f">{n}" for n in lengths), ">all"],
            [[name, *by_length, total] for name, by_length, total in counts],
        )


def _designs(results: Results) -> Iterator[Table]:
    for catalogue, _, setting in settings(results):
        rows = []
        designs = ranked(designs_of(catalogue, setting))
        for length in sorted({design.layers for design in designs}):
            alike = [design for design in designs if design.layers == length]
            best = alike[0]
            same = sum(each.costs == best.costs for each in alike) - 1
            rows.append(_design_row(best, f"{same} more cost the same" if same else ""))
            rows += [_design_row(each) for each in alike if each.published_as and each is not best]
        yield table(
            f"Fewest parameters by number of layers, and the published blocks, "
            f"{setting_name(setting)}",
            [">layers", "block", ">params", ">×CONV", ">MACs/px", ">act/px", "notes"],
            rows,
        )


def _design_row(design: Design, more: str = "") -> list[Any]:
    return [
        design.layers,
        str(design.block),
        design.params,
        ratio_text(design.params_ratio),
        design.macs_per_pixel,
        design.activations_per_pixel,
        "; ".join(filter(None, [more, notes(design)])),
    ]


def _groups(results: Results) -> Iterator[Table]:
    rows = [row for row in results.of(GROUPS) if row["K"] is None and row["C"] == row["F"]]
    best: list[list[Any]] = []
    for width, every in groupby(sorted(rows, key=_by_width), key=lambda row: row["C"]):
        least = None
        for row in every:
            if least is None or row["params"] < least:
                least = row["params"]
                ratio = least / (9 * width * width)
                best.append([width, row["layers"], row["block"], least, ratio_text(ratio)])
    if best:
        yield table(
            "Fewest parameters by width and number of layers",
            [">channels", ">layers", "block", ">params", ">×CONV(3)"],
            best,
        )


def _by_width(row: Row) -> tuple[int, int, int]:
    return row["C"], row["layers"], row["params"]


def _layouts(results: Results) -> Iterator[Table]:
    rows = [row for row in results.of(STAGES) if row["table"] == "organizer"]
    if rows:
        yield table(
            "Total gain of the organizer's and the published layouts, and the greatest there is",
            [
                "network",
                ">side",
                "layout",
                "depths",
                ">gain",
                ">greatest gain",
                ">more",
                "its depths",
            ],
            [
                [
                    row["network"],
                    row["side"],
                    row["layout"],
                    row["depths"],
                    f"{row['gain']:.3f}",
                    f"{row['best by params and MACs']:.3f}",
                    f"{max(0.0, row['best by params and MACs'] / row['gain'] - 1):.1%}",
                    row["params and MACs: depths"],
                ]
                for row in rows
            ],
            "Greatest: proven, at no more parameters and MACs than the layout.",
        )
    rows = [row for row in results.of(STAGES) if row["table"] == "wide"]
    if rows:
        yield table(
            "Greatest total gain of five stages, blocks and widths chosen too",
            [">params", ">MACs", ">layers", ">gain", "status", "depths", "widths", "blocks"],
            [
                [row[name] for name in ("params", "macs", "layers")]
                + [f"{row['gain']:.3f}"]
                + [row["status"], row["depths"], _repeated(row["widths"]), _repeated(row["blocks"])]
                for row in rows
                if row["gain"] is not None
            ],
        )


def _repeated(words: str) -> str:
    """Return words with those in a row counted.

    >>> _repeated("PW DW+PW DW+PW")
    'PW, 2 × DW+PW'
    """
    counts = [(word, len(list(same))) for word, same in groupby(words.split())]
    return ", ".join(word if n == 1 else f"{n} × {word}" for word, n in counts)


def _energy(results: Results) -> Iterator[Table]:
    seen = set()
    rows = []
    for row in results.of(ENERGY):
        if (key := (row["layers"], row["budget"])) not in seen:
            seen.add(key)
            energy = _energy_text(row["energy"])
            rows.append(
                [
                    row["layers"],
                    row["budget"],
                    row["best widths"],
                    energy,
                    row["params"],
                    f"{row['exact s']:.2f}",
                ]
            )
    if rows:
        yield table(
            "Widths of greatest layout energy, proven",
            ["convolutions", ">weights / 9", "widths", ">energy", ">params", ">seconds"],
            rows,
        )


def _energy_text(energy: float) -> str:
    return f"{energy:,.2f}" if energy < 10**6 else f"{energy:.4g}"


def _reproduction(results: Results) -> Iterator[Table]:
    rows = results.of(VERDICTS)
    if rows:
        total, match = sum(r["rows"] for r in rows), sum(r["match"] for r in rows)
        lines = [[row["table"], row["match"], row["rows"] - row["match"]] for row in rows]
        lines.append(["all", match, total - match])
        yield table("Rows that match what the papers print", ["table", ">match", ">do not"], lines)


_PARTS: Final[dict[str, Callable[[Results], Iterable[Table]]]] = {
    "funnel": _funnel,
    "designs": _designs,
    "groups": _groups,
    "layouts": _layouts,
    "energy": _energy,
    "blocks": block_tables,
    "kernels": kernel_tables,
    "reproduction": _reproduction,
}
