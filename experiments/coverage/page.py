"""The page: how many networks of each family pass each step, every network, and why not."""

from collections.abc import Iterable, Sequence
from typing import Final

from experiments.coverage.networks import Candidate
from experiments.coverage.rows import Row, Rows
from experiments.coverage.steps import ANALYZE, OPTIMIZE, SHARE, STEPS, Limits
from ifspace.table import Table
from ifspace.values import listed

_TIMM: Final = "families of timm"


def page(networks: Sequence[Candidate], rows: Rows, where: str) -> str:
    """Return the page of what the rows have of the networks."""
    measured = [network for network in networks if rows.of(network.network)]
    commits = rows.commits()
    at = f" Rows are of commits {listed(commits)}." if len(commits) > 1 else ""
    unfinished = sum(bool(rows.left(network.network, STEPS)) for network in networks)
    rest = (
        f" {unfinished} of {len(networks)} networks have steps that were not tried yet, large "
        f"ones and those whose {ANALYZE} took long: the same command goes on with them."
    )
    parts = [
        "# Coverage on networks of timm and torchvision",
        f"Written by {where}.{at}",
        "The smallest network by parameters of each family of timm (a family is one of timm's "
        "files; and three whose units have many branches), and all networks of torchvision for "
        "classification, segmentation and detection (`--part backbone`), at their default image "
        "size, without pretrained weights. Each is in a process of its own; a step may take 60 s "
        "of processor time, on one thread.",
        "*analyze* reads the network. *stages* and *blocks* are `ifspace optimize --params P` "
        f"with P {SHARE:.0%} of the parameters: with `--stages-only`, and as it is, with blocks "
        "for every layer; where these are over the budget, with `--classifier` too. The searches "
        "have 30 s of it. Of each result: *train* "
        "is one step of SGD on two images that changes weights; *save* writes it as safetensors; "
        "*load* reads that file, with the same outputs; *onnx* is exported and has the same "
        "outputs in ONNX Runtime, within 0.001 of the largest.",
        "## Summary",
        "Networks that pass, of those that were tried: a step is tried where the steps that it "
        "needs have passed. *On images*: with 2-D convolutions and one image as input, which "
        f"networks for detection have not as a whole.{rest if unfinished else ''}",
        _success(measured, rows),
        _markdown(_summary(measured, rows)),
        "## Why not",
        _markdown(_reasons(measured, rows)),
        "## Every network",
        "Seconds of processor time where a step passed, without those of what it needs; else what "
        "came of it: *no*: nothing keeps the budget; *refused*: an error of one line that says "
        "why; *fault*: any other error; *time*, *memory*: over the limit of "
        f"{Limits().time_s:g} s and {Limits().memory >> 30} GiB.",
        _markdown(_every_network(measured, rows)),
    ]
    return "\n\n".join(parts) + "\n"


def _success(networks: Iterable[Candidate], rows: Rows) -> str:
    """Return on which share of the networks on images `optimize` succeeds, in either way."""
    ways = [
        {way: row.status == "yes" for way in OPTIMIZE if (row := rows.get(network.network, way))}
        for network in networks
        if network.is_on_images
    ]
    tried = [passes for passes in ways if passes]
    counts = [sum(passes.get(way, False) for passes in tried) for way in OPTIMIZE]
    either = sum(any(passes.values()) for passes in tried)
    if not tried:
        return "`optimize` was not tried yet."
    by_way = " and ".join(f"*{way}* on {n}" for way, n in zip(OPTIMIZE, counts, strict=True))
    return (
        f"`optimize` reaches {SHARE:.0%} of the parameters on {either} of {len(tried)} networks "
        f"on images ({either / len(tried):.1%}): {by_way}."
    )


def _summary(networks: Sequence[Candidate], rows: Rows) -> Table:
    groups: dict[str, list[Candidate]] = {}
    for network in networks:
        package, _, _ = network.network.partition(":")
        groups.setdefault(_TIMM if package == "timm" else network.family, []).append(network)
    groups["all"] = list(networks)
    groups["on images"] = [network for network in networks if network.is_on_images]
    cells = []
    for step in STEPS:
        counts: list[str] = []
        for members in groups.values():
            statuses = [row.status for row in _rows(members, rows, step)]
            counts.append(f"{statuses.count('yes')} of {len(statuses)}" if statuses else "-")
        cells.append((step, *counts))
    seconds = []
    for members in groups.values():
        times = [row.seconds or 0 for row in _rows(members, rows, ANALYZE) if row.status == "yes"]
        seconds.append(f"{max(times):.1f} s" if times else "-")
    cells.append((f"slowest {ANALYZE}", *seconds))
    return Table(("step", *(f">{name}" for name in groups)), tuple(cells))


def _rows(networks: Iterable[Candidate], rows: Rows, step: str) -> list[Row]:
    outcomes = (rows.get(network.network, step) for network in networks)
    return [row for row in outcomes if row is not None]


def _reasons(networks: Sequence[Candidate], rows: Rows) -> Table:
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for step in STEPS:
        for row in _rows(networks, rows, step):
            if row.status != "yes":
                reasons.setdefault((step, row.status, row.why), []).append(row.network)
    order = {step: number for number, step in enumerate(STEPS)}
    ranked = sorted(reasons.items(), key=lambda item: (order[item[0][0]], -len(item[1])))
    cells = [(*reason, len(names), ", ".join(names)) for reason, names in ranked]
    return Table(("step", "what", "why", ">networks", "which"), tuple(cells))


def _every_network(networks: Sequence[Candidate], rows: Rows) -> Table:
    cells = []
    for network in networks:
        outcomes = [rows.get(network.network, step) for step in STEPS]
        image = next(row.image for row in rows.of(network.network))
        texts = [_cell(row) for row in outcomes]
        cells.append((network.network, network.family, network.params, image, *texts))
    columns = ("network", "family", ">params", "image", *(f">{step}" for step in STEPS))
    return Table(columns, tuple(cells))


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    return f"{row.seconds:.1f}" if row.status == "yes" and row.seconds is not None else row.status


def _markdown(table: Table) -> str:
    return table.markdown().strip()
