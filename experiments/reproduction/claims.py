"""Claims in the text of the papers, computed from what their tables print."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from experiments.reproduction.count_tables import blocks_of, built, convolutions
from experiments.reproduction.page import Judged, Outcome, Reading, Section, Verdict, agrees, braces
from experiments.reproduction.printed import (
    BASE_ACCURACY,
    COUNTED,
    DECOMPOSED,
    DEPTHS,
    UNITS,
    VARIANTS,
    Counted,
)
from ifspace.stages.networks import network

NAME: Final = "T"


@dataclass(frozen=True, slots=True)
class Model:
    """A row of a table as numbers: parameters and MACs in millions, top-1 accuracy in percent."""

    name: str
    params: float
    macs: float
    accuracy: float

    def saved_params(self, other: "Model") -> float:
        """Return the parameters saved over another row, in percent."""
        return 100 * (1 - self.params / other.params)

    def saved_macs(self, other: "Model") -> float:
        """Return the MACs saved over another row, in percent."""
        return 100 * (1 - self.macs / other.macs)

    def accuracy_gain(self, other: "Model") -> float:
        """Return the accuracy above another row's, in percentage points."""
        return round(self.accuracy - other.accuracy, 2)


def model(row: Counted, which: int) -> Model:
    """Return a network of Tables 3 to 5, or its reorganized form."""
    return Model(
        f"{row.network}{('', '-opt')[which]} {row.data}",
        float(row.params[which]),
        float(row.macs[which]),
        float(row.accuracy[which]),
    )


def pairs(data: str = "", name: str = "") -> list[tuple[Model, Model]]:
    """Return reorganized networks with the original ones, of a data set, of a network."""
    return [
        (model(row, 1), model(row, 0))
        for row in COUNTED
        if data in ("", row.data) and name in ("", row.network)
    ]


def decomposed(table: int) -> dict[str, Model]:
    """Return the rows of [3DRF] Table 6 or [IF] Table 7 by name."""
    return {
        row.name: Model(row.name, float(row.params), float(row.macs), float(row.accuracy))
        for row in DECOMPOSED
        if row.table == table
    }


def mean(numbers: list[float]) -> float:
    """Return the mean, without the noise of decimals in binary."""
    return round(sum(numbers) / len(numbers), 6)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim with its printed numbers, ours, and how ours are computed.

    `wrong`: why the claim contradicts its table, where it names what it is computed from.
    """

    paper: str
    section: str
    text: str
    printed: tuple[str, ...]
    ours: tuple[float, ...]
    computed: str
    wrong: str = ""
    tried: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the claim follows from the tables."""
        fits = [agrees(text, number) for text, number in zip(self.printed, self.ours, strict=True)]
        if all(fits):
            return Verdict(Outcome.MATCH, f"{NAME} (cut)" if "cut" in fits else NAME)
        if self.wrong:
            return Verdict(Outcome.MISPRINT, self.wrong)
        return Verdict(Outcome.NO_READING, self.tried)


def nearest(
    models: list[tuple[Model, Model]],
    measures: tuple[Callable[[Model, Model], float], ...],
    printed: tuple[str, ...],
) -> tuple[tuple[float, ...], str, str]:
    """Return the numbers of the pair nearest to a claim, its names, and how many were tried."""

    def off(pair: tuple[Model, Model]) -> float:
        return sum(
            abs(measure(*pair) - float(text)) / float(text)
            for measure, text in zip(measures, printed, strict=True)
        )

    best = min(models, key=off)
    ours = tuple(round(measure(*best), 2) for measure in measures)
    return ours, f"nearest of all: {best[0].name} and {best[1].name}", f"{len(models)} pairs"


def claims() -> Iterator[Claim]:
    """Yield the claims of the papers."""
    yield from stage_claims()
    yield from kernel_claims()
    yield from other_claims()


def stage_claims() -> Iterator[Claim]:
    """Yield the claims of [3DRF] section 5.1; those of the abstract are among them."""
    paper = "[3DRF]"
    every = pairs()
    accuracy, saved = Model.accuracy_gain, Model.saved_params

    def claim(
        section: str, text: str, printed: str, ours: float, computed: str, wrong: str = ""
    ) -> Claim:
        return Claim(paper, section, text, (printed,), (round(ours, 6),), computed, wrong)

    yield claim(
        "abstract",
        "accuracy improved by up to",
        "5.47",
        max(accuracy(*pair) for pair in every),
        "greatest of Tables 3 to 5",
    )
    yield claim(
        "abstract",
        "parameters reduced by up to, %",
        "65.38",
        max(saved(*pair) for pair in every),
        "greatest of Tables 3 to 5",
    )
    for data, better, fewer in (("CIFAR-10", "1.18", "54.15"), ("CIFAR-100", "1.90", "32.33")):
        own = mean([accuracy(*pair) for pair in pairs(data)])
        yield claim(
            "5.1",
            f"accuracy improved on {data}, on average",
            better,
            own,
            "mean of four networks",
            f"the mean of the printed accuracies is {own:.2f}",
        )
        yield claim(
            "5.1",
            f"parameters reduced on {data}, on average, %",
            fewer,
            mean([saved(*pair) for pair in pairs(data)]),
            "mean of four networks",
        )
    for name, data, printed in (
        ("resnet50", "CIFAR-10", "2.04"),
        ("resnet50", "CIFAR-100", "0.86"),
        ("mobilenet", "CIFAR-10", "1.38"),
        ("mobilenet", "CIFAR-100", "5.47"),
    ):
        yield claim(
            "5.1",
            f"accuracy of {name} on {data} improved by",
            printed,
            accuracy(*pairs(data, name)[0]),
            "its rows",
        )
    yield claim(
        "5.1",
        "parameters reduced on ImageNet by up to, %",
        "16.7",
        max(saved(*pair) for pair in pairs("ImageNet")),
        "greatest of Table 5",
    )
    yield claim(
        "5.1",
        "accuracy improved on ImageNet by up to",
        "0.58",
        max(accuracy(*pair) for pair in pairs("ImageNet")),
        "greatest of Table 5",
    )
    for name, source in (("mobilenet", {4: 4, 5: 1}), ("resnet50", {3: 2, 4: 1})):
        yield from moved_blocks(name, source)
    printed_shares = ("3.7", "74", "16")
    ours, computed, tried = nearest(every, (accuracy, saved, Model.saved_macs), printed_shares)
    yield Claim(
        paper,
        "1",
        "MobileNet: higher accuracy, fewer parameters, fewer FLOPs, %",
        printed_shares,
        ours,
        computed,
        tried=tried,
    )


def moved_blocks(name: str, sources: dict[int, int]) -> Iterator[Claim]:
    """Yield the claim of section 5.1 how many blocks leave which stages.

    `sources`: stage to number of blocks that the text takes from it.
    """
    start, end = blocks_of(built(name, "CIFAR-10")), DEPTHS[name]
    taken = [max(0, a - b) for a, b in zip(start, end, strict=True)]
    stages = tuple(sources)
    yield Claim(
        "[3DRF]",
        "5.1",
        f"{name}: blocks that leave stages {', '.join(map(str, stages))} on the way to "
        f"{braces(end)}",
        tuple(str(sources[stage]) for stage in stages),
        tuple(float(taken[stage - 1]) for stage in stages),
        f"from {braces(start)}, the stem not counted"
        if name == "mobilenet"
        else f"from {braces(start)}",
    )


def kernel_claims() -> Iterator[Claim]:
    """Yield the claims on decomposed networks."""
    table, paper = decomposed(6), "[3DRF]"
    plain = table["DW+PW"]
    rolling = [row for name, row in table.items() if "RPW" in name]
    better = [row for row in rolling if row.accuracy > plain.accuracy]
    chosen = table["DW+RPW-g2-o50%"]

    def claim(section: str, text: str, printed: str, ours: float, computed: str) -> Claim:
        return Claim(paper, section, text, (printed,), (round(ours, 6),), computed)

    yield claim(
        "1",
        "DW+RPW: accuracy above the existing design, up to",
        "0.58",
        max(row.accuracy_gain(plain) for row in rolling),
        "greatest of Table 6 over DW+PW",
    )
    yield claim(
        "1",
        "DW+RPW: computations reduced by up to, %",
        "40.0",
        max(row.saved_macs(plain) for row in better),
        "greatest of Table 6 among rows more accurate than DW+PW",
    )
    within = list(permutations(table.values(), 2))
    ours, computed, tried = nearest(within, (Model.saved_params,), ("90.4",))
    yield Claim(
        paper,
        "1",
        "DW+RPW: parameters reduced by up to, %",
        ("90.4",),
        ours,
        computed,
        tried=f"{tried} of rows of Table 6",
    )
    with_mobilenet = [
        (row, model(other, which))
        for row in rolling
        for other in COUNTED
        if (other.network, other.data) == ("mobilenet", "CIFAR-10")
        for which in (0, 1)
    ] + within
    printed = ("2.54", "29.04")
    ours, computed, tried = nearest(
        with_mobilenet, (Model.accuracy_gain, Model.saved_macs), printed
    )
    yield Claim(
        paper,
        "1",
        "a kernel of theirs against MobileNet: higher accuracy, fewer FLOPs, %",
        printed,
        ours,
        computed,
        tried=f"{tried} of rows of Table 6 and MobileNet",
    )
    yield claim(
        "5.2", "DW+RPW-g2-o50%: FLOPs saved, %", "40.0", chosen.saved_macs(plain), "over DW+PW"
    )
    yield claim(
        "5.2",
        "DW+RPW-g2-o50%: parameters saved, %",
        "40.5",
        chosen.saved_params(plain),
        "over DW+PW",
    )
    yield claim(
        "5.2",
        "DW+RPW-g4-o33% above DW+RPW-g4",
        "3.56",
        table["DW+RPW-g4-o33%"].accuracy_gain(table["DW+GPW-g4"]),
        "over DW+GPW-g4: without overlap RPW is GPW",
    )
    groups = (2, 4, 8)
    ordered = [
        table[f"DW+RPW-g{g}-o{o}%"].accuracy > table[f"DW+GPW-g{g}"].accuracy
        for g in groups
        for o in (33, 50)
    ]
    yield claim(
        "5.2",
        "rows with overlap above those without, consistently: pairs of 6",
        "6",
        sum(ordered),
        "Table 6",
    )
    higher = [g for g in groups if _overlap(table, g, 50) > _overlap(table, g, 33)]
    lower = [g for g in groups if g not in higher]
    yield Claim(
        paper,
        "5.2",
        "the higher overlap ratio offers higher accuracy: group counts of 3",
        ("3",),
        (float(len(higher)),),
        "Table 6",
        "; ".join(
            f"at {g} groups {_overlap(table, g, 33):.2f} with 33%, "
            f"{_overlap(table, g, 50):.2f} with 50%"
            for g in lower
        ),
    )
    large = list(decomposed(7).values())
    for text, printed_number, own in (
        ("parameters saved, %", "39.41", large[1].saved_params(large[0])),
        ("FLOPs saved, %", "38.26", large[1].saved_macs(large[0])),
    ):
        yield Claim(
            "[IF]",
            "kernel-level decomposer",
            f"ResNet50-opt with DW+RPW: {text}",
            (printed_number,),
            (round(own, 6),),
            "Table 7",
        )


def _overlap(table: dict[str, Model], groups: int, overlap: int) -> float:
    """Return the accuracy of a row with RPW."""
    return table[f"DW+RPW-g{groups}-o{overlap}%"].accuracy


def other_claims() -> Iterator[Claim]:
    """Yield the claims on other numbers."""
    differences = [
        agrees(text, round(float(accuracy) - float(BASE_ACCURACY), 2)) == "rounded"
        for _, accuracy, text in VARIANTS
    ]
    yield Claim(
        "[IF]",
        "Table 2",
        "column ΔAccuracy: variants of 5",
        ("5",),
        (float(sum(differences)),),
        "accuracies less that of VGG-11",
    )
    layout = network("mobilenet", 224)
    blocks = [conv for conv in convolutions(layout) if conv.place != "stem"]
    macs = sum(conv.layer.params * conv.side**2 for conv in blocks)
    pointwise = sum(conv.layer.params * conv.side**2 for conv in blocks if conv.layer.kernel == 1)
    share = round(100 * pointwise / macs, 1)
    yield Claim(
        "[3DRF]",
        "4.2",
        "PW is more than so many % of MobileNet's FLOPs",
        ("95",),
        (min(95.0, share),),
        f"of its blocks {share}%, of the network {100 * pointwise / layout.macs:.1f}%",
    )
    few, many = UNITS[1], UNITS[4]
    saved = 100 * (1 - float(few.params) / float(many.params))
    yield Claim(
        "[Fog]",
        "4.2",
        "from 2 to 32 groups more than so many % of the parameters are saved",
        ("50",),
        (min(50.0, round(saved, 1)),),
        f"rows 2 and 5 of Table 2: {saved:.1f}%",
    )


def claims_section() -> Section:
    """Return the section of the page."""
    parts: list[str | Judged] = [
        "Numbers in the text, beside what the printed tables give. Accuracies are differences in "
        "percentage points. A claim whose source the text names and that contradicts it is a "
        "misprint of one of the two; for the others all pairs of rows were tried.",
    ]
    for paper in ("[3DRF]", "[IF]", "[Fog]"):
        own = [claim for claim in claims() if claim.paper == paper]
        parts.append(
            Judged(
                paper,
                "claims in the text",
                ("section", "claim", ">printed", ">ours", "computed"),
                tuple(
                    (
                        claim.section,
                        claim.text,
                        ", ".join(claim.printed),
                        ", ".join(f"{number:.4g}" for number in claim.ours),
                        claim.computed,
                    )
                    for claim in own
                ),
                tuple(claim.verdict for claim in own),
            )
        )
    return Section(
        "Claims in the text",
        parts,
        (Reading(NAME, "claims in the text", "arithmetic on the numbers of the printed tables"),),
    )
