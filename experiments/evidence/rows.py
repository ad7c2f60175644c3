"""The rows of `evidence.csv`, from the published tables in a folder.

A table names a block in its own words; here they are written as ifspace does. Rows whose words are
not certain are left out: of deficient-efficient only the blocks whose parameters follow from their
formulas are taken (A2 is GC(2)+PW, A2B2 is PW+GC(2)+PW of half the width, G2 has two channels a
group).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from ifspace.block import Block
from ifspace.catalogue.evidence import TrainedBlock
from ifspace.storage import read_csv

Row = Mapping[str, str]
_MILLION: Final = 1_000_000
_PAPER: Final = "paper"
_SPARSE: Final = "Wang et al., Penetrating the Fog"
_ROLLING: Final = "Wang et al., CIKM 2021"


def trained_rows(folder: Path) -> list[TrainedBlock]:
    """Return the trained networks of all tables of a folder, in a fixed order."""
    readers: dict[str, Callable[[list[Row]], Iterable[TrainedBlock]]] = {
        "seeds_3drf_table6.csv": _rolling,
        "seeds_fog_tables234.csv": _sparse,
        "wrn28_gpw_sh_dw_gpw.csv": _shuffled,
        "deficient_efficient_cifar10.csv": _deficient,
        "imgclsmob.csv": _imgclsmob,
        "pycls_zoo.csv": _pycls,
    }
    rows: list[TrainedBlock] = []
    for name, read in readers.items():
        rows += read([row for _, row in read_csv(folder / name).rows])
    return list(dict.fromkeys(rows))


def _kinds(block: str) -> str:
    """Return the composition of a block with its groups."""
    return "+".join(Block.parse(block).composition.kinds)


def _rolling(rows: list[Row]) -> Iterator[TrainedBlock]:
    errors = {row["block"]: 100 - float(row["top1"]) for row in rows}
    overlaps = {"0.33": "33/100", "0.5": "1/2"}
    for row in rows:
        groups, overlap = row["groups"], overlaps.get(row["overlap"])
        block = row["block"]
        if overlap is not None:
            block = f"DW+RPW({groups},{overlap})"
        elif groups != "1":
            block = f"DW+GPW({groups})"
        error = errors[row["block"]]
        yield TrainedBlock(
            "[3DRF] Table 6",
            _PAPER,
            _ROLLING,
            row["dataset"],
            row["base"],
            _kinds(block),
            block,
            None,
            groups,
            "",
            round(float(row["params_M"]) * _MILLION),
            round(float(row["macs_M"]) * _MILLION),
            round(error, 2),
            None if row["block"] == "CONV" else round(error - errors["CONV"], 2),
            "" if row["block"] == "CONV" else "CONV",
        )


# What the blocks of [Fog] Tables 2 to 4 are: composition, block if its shuffle is certain,
# bottleneck, groups. Rows of Table 4 that are in Table 3 too are left out.
_NAMED: Final[Mapping[str, tuple[str, str | None, str]]] = {
    "ResNet bottleneck": ("PW+CONV+PW", "1/4", "1"),
    "ResNeXt": ("PW+GC(16)+PW", "1/2", "16"),
}
_REPEATED: Final = ("ResNet", "Xception", "ShuffleNet")


def _sparse(rows: list[Row]) -> Iterator[TrainedBlock]:
    errors = {(row["table"], row["block"], row["width"]): float(row["error"]) for row in rows}
    standard = errors["3", "CONV", "64"]
    for row in rows:
        if row["block"] in _REPEATED:
            continue
        text = row["block"].replace("GConv", "GC").replace("GC(1)", "CONV")
        named = _NAMED.get(text)
        text, bottleneck, groups = named or (text, None, "/".join(re.findall(r"\((\d+)\)", text)))
        change, against = None, ""
        error = float(row["error"])
        if row["table"] == "2":
            bottleneck = None
            fewer = errors.get(("2", "PW+GConv(2)+PW", row["width"]))
            if fewer is not None and groups not in ("", "1", "2"):
                change, against = error - fewer, "2 groups"
        elif text != "CONV" and float(row["params_M"]) > 10:
            change, against = error - standard, "CONV of 11.2M parameters"
        free = "SH" in text.split("+")
        kinds = re.sub(r"\([^)]*\)", "", text)
        yield TrainedBlock(
            f"[Fog] Table {row['table']}",
            _PAPER,
            _SPARSE,
            "ImageNet-1K",
            "[Fog] layout" + (f", depth {row['depth']}" if row["depth"] else ""),
            kinds,
            None if free or row["table"] == "2" else text,
            bottleneck,
            groups,
            row["width"],
            round(float(row["params_M"]) * _MILLION),
            None,
            error,
            None if change is None else round(change, 2),
            against,
        )


def _shuffled(rows: list[Row]) -> Iterator[TrainedBlock]:
    first = float(rows[0]["test_error"])
    for row in rows:
        g, error = row["groups"], float(row["test_error"])
        fewest = row is rows[0]
        yield TrainedBlock(
            "deficient-efficient, research log",
            "MIT",
            "github BayesWatch/deficient-efficient, research-log.md",
            "CIFAR-10",
            row["net"],
            row["block"],
            f"GPW({g})+SH({g})+DW+GPW({g})",
            row["bottleneck"],
            g,
            "",
            int(row["params"]),
            round(float(row["macs_M"]) * _MILLION),
            error,
            None if fewest else round(error - first, 2),
            "" if fewest else f"{rows[0]['groups']} groups",
        )


# Names of deficient-efficient: block, bottleneck, groups, and the name that it is compared with.
_DEFICIENT: Final[Mapping[str, Callable[[str, str], tuple[str, str | None, str, str]]]] = {
    r"3x3()()": lambda g, b: ("CONV", None, "1", ""),
    r"(?:DConv|sep|sep\(d1\))()()": lambda g, b: ("DW+PW", None, "", "3x3"),
    r"DConvB()(\d+)": lambda g, b: ("PW+DW+PW", f"1/{b}", "", f"bottle{b}"),
    r"bottle()(\d+)": lambda g, b: ("PW+CONV+PW", f"1/{b}", "1", ""),
    r"A(\d+)()": lambda g, b: (f"GC({g})+PW", None, g, "A2"),
    r"A(\d+)B(\d+)": lambda g, b: (f"PW+GC({g})+PW", f"1/{b}", g, f"bottle{b}"),
    r"G(\d+)B(\d+)": lambda g, b: ("PW+GC+PW", f"1/{b}", f"{g} channels each", f"bottle{b}"),
}


def _deficient(rows: list[Row]) -> Iterator[TrainedBlock]:
    errors = {(row["net"], row["conv"]): 100 - float(row["acc"]) for row in rows}
    for row in rows:
        for pattern, named in _DEFICIENT.items():
            match = re.fullmatch(pattern, row["conv"])
            if match is None:
                continue
            block, bottleneck, groups, reference = named(match[1], match[2])
            error = 100 - float(row["acc"])
            other = errors.get((row["net"], reference)) if reference != row["conv"] else None
            texts = {"3x3": "CONV", "A2": "2 groups"}
            against = texts.get(reference, "CONV in the middle") if other is not None else ""
            is_known = block != "PW+GC+PW"
            yield TrainedBlock(
                "deficient-efficient",
                "MIT",
                f"github BayesWatch/deficient-efficient, {row['file']}, commit {row['commit']}",
                "CIFAR-10",
                row["net"].replace("_", "-"),
                _kinds(block) if is_known else block,
                block if is_known else None,
                bottleneck,
                groups,
                "",
                int(row["params"]),
                None,
                round(error, 2),
                None if other is None else round(error - other, 2),
                against,
            )


_CLSMOB: Final = "github osmr/imgclsmob, commit c1a844dd"


def _imgclsmob(rows: list[Row]) -> Iterator[TrainedBlock]:
    sweeps: dict[tuple[str, ...], list[tuple[int, TrainedBlock]]] = {}
    for row in rows:
        model = row["model"]
        base = TrainedBlock(
            "imgclsmob",
            "MIT",
            _CLSMOB,
            row["task"],
            model,
            "",
            None,
            None,
            "",
            "",
            int(row["params"]),
            round(float(row["calc_macs_M"]) * _MILLION),
            float(row["error"]),
            None,
            "",
        )
        if match := re.fullmatch(r"ResNeXt-(\d+) \((\d+)x(\d+)d\)", model):
            groups, width = int(match[2]), int(match[2]) * int(match[3])
            middle = f"GC({groups})" if groups > 1 else "CONV"
            block = f"PW+{middle}+PW"
            entry = replace(base, composition=_kinds(block), block=block, width=str(width))
            sweeps.setdefault((row["task"], "ResNeXt", match[1], str(width)), []).append(
                (groups, entry)
            )
        elif match := re.fullmatch(r"ShuffleNet (x[\d.]+) \(g=(\d+)\)", model):
            groups = int(match[2])
            block = f"GPW({groups})+SH({groups})+DW+GPW({groups})" if groups > 1 else "PW+DW+PW"
            entry = replace(base, composition=_kinds(block), block=block, bottleneck="1/4")
            sweeps.setdefault((row["task"], "ShuffleNet", match[1]), []).append((groups, entry))
        elif re.fullmatch(r"(FD-)?MobileNetb? x[\d.]+", model):
            yield replace(base, composition="DW+PW", block="DW+PW")
        elif re.fullmatch(r"MobileNetV2b? x[\d.]+", model):
            yield replace(base, composition="PW+DW+PW", bottleneck="6", block="PW+DW+PW")
        elif re.fullmatch(r"ResNet-(50|101|152)b?", model):
            block = "PW+CONV+PW"
            yield replace(base, composition=block, bottleneck="1/4", block=block, groups="1")
    for members in sweeps.values():
        fewest, first = min(members, key=lambda member: member[0])
        for groups, entry in sorted(members, key=lambda member: member[0]):
            if groups == fewest:
                yield replace(entry, groups=str(groups))
                continue
            against = f"{fewest} group{'s' * (fewest > 1)}"
            if not entry.width:
                against += " at about equal MACs"
            elif fewest == 1:
                against = "CONV in the middle"
            change = round(entry.error - first.error, 2)
            yield replace(entry, groups=str(groups), change=change, against=against)


def _pycls(rows: list[Row]) -> Iterator[TrainedBlock]:
    for row in rows:
        family = row["model"].partition("-")[0]
        blocks = {
            "RegNetX": ("PW+GC+PW", None, None, f"{row['group_widths']} channels each"),
            "ResNeXt": ("PW+GC+PW", "PW+GC(32)+PW", "1/2", "32"),
            "ResNet": ("PW+CONV+PW", "PW+CONV+PW", "1/4", "1"),
        }
        if family not in blocks:
            continue
        composition, block, bottleneck, groups = blocks[family]
        yield TrainedBlock(
            "pycls",
            "MIT",
            "github facebookresearch/pycls, commit 5719de64",
            "ImageNet-1K",
            row["model"],
            composition,
            block,
            bottleneck,
            groups,
            row["stage_widths"],
            int(row["params"]),
            int(row["flops"]),
            round(100 - float(row["top1"]), 2),
            None,
            "",
        )
