"""`ifspace score` and `validate`: their JSON, their texts, their errors; lists need no torch."""

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from math import exp
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from ifspace.scores import COUNTS, SCORES, LayerList, score
from ifspace.scores.reliability import SITUATIONS, published_rows, reliability, sets
from ifspace.scores.tables import network_sets, read_table
from ifspace.scores.validation import (
    ALL,
    DEFINITIONS,
    GROUP_SWEEPS,
    IN_BINS,
    SAME_STRIDES,
    UNDER_BUDGETS,
    validate,
)

LIST = (
    "name,kernel,stride,in,out,groups,size\nstem,3,1,3,64,1,32\n,3,1,64,64,1,32\n,3,2,64,128,1,16\n"
)
TABLE = "name,layers,accuracy\n" + "".join(
    f"n{n},3/1/3/{8 * n}/1/8;3/1/{8 * n}/{8 * n}/1/8,{50 + n if n % 5 else 50 - n}\n"
    for n in range(1, 13)
)


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("net.csv").write_text(LIST, "utf-8")
    Path("trained.csv").write_text(TABLE, "utf-8")
    return "net.csv"


def test_the_scores_of_a_list_are_those_of_the_library(run: Callable, layers: str) -> None:
    answer = run("score", "--layers", layers, "--alpha", "2", "--format", "json").json
    result = score(Path(layers), 2)
    assert answer["scores"] == result.scores
    assert answer["counts"] == result.counts
    assert (answer["model"], answer["alpha"], answer["joints"]) == ("net.csv", 2, 0)
    assert answer["stages"][0]["field"] == 7 * 7 * 3
    assert set(answer["reliability"]) == {*SCORES, *COUNTS}
    places = {row["where"] for row in answer["reliability"]["gain"]}
    assert places == set(SITUATIONS)


def test_the_text_has_how_reliable_each_was(
    run: Callable, layers: str, snapshot: SnapshotAssertion
) -> None:
    ended = run("score", "--layers", layers)
    assert (ended.status, ended.err) == (0, "")
    # Numbers of the committed table change with it; the layout and the scores do not.
    lines = [line.split("  ")[0] for line in ended.out.splitlines()]
    assert lines == snapshot
    numbers = reliability("log-gain", "equal parameters")
    assert f"{numbers.low:.2f}".removeprefix("0") in ended.out
    assert all(name in ended.out for name in sets())
    rows = csv.DictReader(io.StringIO(run("score", "--layers", layers, "--format", "csv").out))
    assert [row["measure"] for row in rows] == [*SCORES, *COUNTS]


OTHERS = {
    "other groups": (
        "3,1,3,64,1,32\n3,1,64,64,4,32\n3,2,64,128,1,16",
        [SAME_STRIDES, GROUP_SWEEPS],
    ),
    "equal parameters": ("3,1,3,64,1,32\n3,2,64,64,1,16\n3,1,64,128,1,8", [ALL, IN_BINS]),
    "names alone": (LIST.partition("\n")[2].replace("stem", "").replace("\n,", "\n")[1:], None),
    "wider": ("3,1,3,64,1,32\n3,1,64,96,1,32\n3,2,96,128,1,16", [SAME_STRIDES]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_situation_is_that_of_the_two_networks(run: Callable, layers: str, name: str) -> None:
    rows, places = OTHERS[name]
    Path("other.csv").write_text(f"kernel,stride,in,out,groups,size\n{rows}\n", "utf-8")
    answer = run("score", "--layers", layers, "--beside", "other.csv", "--format", "json").json
    expected = [SAME_STRIDES, IN_BINS] if places is None else places
    assert answer["situations"] == [*expected, UNDER_BUDGETS]
    assert answer["beside"]["scores"] == score(Path("other.csv")).scores
    text = run("score", "--layers", layers, "--beside", "other.csv").out.splitlines()
    heads = text[2].split("  ")
    assert [head.strip() for head in heads if head][1:] == [
        layers,
        "other.csv",
        *answer["situations"],
    ]


@pytest.mark.slow
def test_lists_need_no_torch(layers: str) -> None:
    for command in (
        ["score", "--layers", layers],
        ["analyze", "--layers", layers, "--every-layer"],
        ["validate", "trained.csv", "--resamples", "2"],
    ):
        code = (
            "import sys; sys.modules['torch'] = None\n"
            f"sys.argv = ['ifspace', *{command!r}]\n"
            "from ifspace.cli.main import main; main()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_network_and_the_list_of_it_score_alike(run: Callable, layers: str) -> None:
    network = run("score", "vgg16", "--input", "3x32x32", "--save", "vgg.csv", "--format", "json")
    rest = f"{14_724_042 - 14_710_464:,} parameters of other layers, norms and biases"
    assert network.err == f"ifspace: wrote vgg.csv: the convolutions alone, without {rest}\n"
    again = run("score", "--layers", "vgg.csv", "--format", "json").json
    assert again["scores"] == network.json["scores"]
    # The whole network has its classifier and batch norm, the list its convolutions.
    assert network.json["counts"]["params"] == 14_724_042
    assert again["counts"]["params"] == 14_710_464
    assert (network.json["counts_of"], again["counts_of"]) == ("network", "convolutions")
    same = ("activations", "depth", "width-sum", "peak-memory")
    assert [again["counts"][n] for n in same] == [network.json["counts"][n] for n in same]


GROUPED = """
from torch import nn
from ifspace.block import Block
from ifspace.nn import build

def network(composition):
    block = Block.parse(composition).at(64)
    blocks = (build(block) for _ in range(2))
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.MaxPool2d(2), *blocks)

def apart():
    return network("GPW(8)+DW+GPW(8)")

def exchanging():
    return network("RPW(8,0)+DW+GPW(8)")
"""


@pytest.mark.slow
def test_the_gain_of_a_network_is_that_of_its_analysis(run: Callable, layers: str) -> None:
    Path("nets.py").write_text(GROUPED, "utf-8")
    answers = {}
    for name in ("apart", "exchanging"):
        size = ("--input", "3x16x16", "--format", "json")
        answers[name] = run("score", f"nets.py:{name}", *size).json
        gain = run("analyze", f"nets.py:{name}", *size).json["gain"]
        assert answers[name]["scores"]["gain"] == pytest.approx(gain, rel=1e-12)
    # Behind pooling 64 channels enter at 8x8. The blocks see 3x3, then 5x5 pixels, of 8 channels
    # where the groups never meet, and of 64 where each exchanges.
    volume = 8 * 8 * 64
    for name, channels in (("apart", 8), ("exchanging", 64)):
        before, after = 9 * channels, 25 * channels
        expected = (after - before) / before * exp(-3 * before / volume)
        assert answers[name]["scores"]["gain"] == pytest.approx(expected)
        assert answers[name]["stages"][1]["field"] == after
    # As lists of layers they are one.
    assert answers["apart"]["as_list"] == answers["exchanging"]["as_list"]
    run("score", "nets.py:apart", "--input", "3x16x16", "--save", "apart.csv")
    saved = run("score", "--layers", "apart.csv", "--format", "json").json
    assert saved["as_list"] == answers["apart"]["as_list"]
    assert saved["scores"]["gain"] == saved["as_list"]["gain"]
    # A table is compared by exact fields where all of its networks are traced: the gain decays with
    # the field, so that the smaller field gains more. Lists are equal, and order nothing.
    rows = "nets.py:apart,3x16x16,,50\nnets.py:exchanging,3x16x16,,60\n"
    header = "builder,input,layers,accuracy\n"
    for table, correlation in ((header + rows, -1), (f"{header}{rows},,apart.csv,40\n", 0)):
        Path("table.csv").write_text(table, "utf-8")
        arguments = ("validate", "table.csv", "--resamples", "2", "--format", "json")
        run(*arguments).fails_with("running code", "nets.py, which would be run", "--trust-code")
        compared = run(*arguments, "--trust-code").json
        (row,) = (r for r in compared["rows"] if (r["score"], r["where"]) == ("gain", ALL))
        assert row["spearman"] == correlation


def test_the_analysis_of_a_list_has_its_costs(
    run: Callable, layers: str, snapshot: SnapshotAssertion
) -> None:
    ended = run("analyze", "--layers", layers, "--every-layer")
    assert ended.out == snapshot
    answer = run("analyze", "--layers", layers, "--format", "json", "--dtype", "int8").json
    listed = LayerList.parse("3/1/3/64/1/32;3/1/64/64/1/32;3/2/64/128/1/16")
    assert (answer["params"], answer["macs"]) == (listed.params, listed.macs)
    assert answer["peak_memory"]["bytes"] == listed.peak
    assert answer["gain"] == pytest.approx(score(listed).scores["gain"])
    fields = [layer["field"] for stage in answer["stages"] for layer in stage["layers"]]
    assert fields == [[3, 3], [5, 3], [7, 3]]


def test_lists_with_groups_are_said_to_have_the_field_of_free_permutation(
    run: Callable, layers: str
) -> None:
    text = "at free permutation between layers"
    for command in ("score", "analyze"):
        assert text not in " ".join(run(command, "--layers", layers).out.split())
        Path("grouped.csv").write_text(f"{LIST}second,1,1,128,128,8,16\n", "utf-8")
        assert text in " ".join(run(command, "--layers", "grouped.csv").out.split())


def test_a_validation_prints_its_definitions(
    run: Callable, layers: str, snapshot: SnapshotAssertion
) -> None:
    ended = run("validate", "trained.csv", "--resamples", "20")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == snapshot
    assert all(name in ended.out for name in DEFINITIONS)
    answer = run("validate", "trained.csv", "--resamples", "20", "--format", "json").json
    assert (answer["version"], answer["resamples"], answer["seed"]) == (1, 20, 0)
    assert answer["definitions"] == dict(DEFINITIONS)
    keys = {"score", "where", "spearman", "kendall", "pick_percentile", "low", "high"}
    assert all(keys <= set(row) for row in answer["rows"])
    result = validate(network_sets(read_table(Path("trained.csv"))), resamples=20)
    intervals = [x for row in result.rows for x in row.statistics.values() if x.value == x.value]
    beside = [x for x in intervals if x.value < x.low or x.value > x.high]
    assert f"{len(beside)} of {len(intervals)} intervals do not hold the value" in ended.out
    # Accuracies rise with the width, but of every fifth network.
    spearman = {row["spearman"] for row in answer["rows"] if row["where"] == "all"}
    assert len(spearman) == 2, "raw gains, gains, depth and log-gains do not vary"
    markdown = run("validate", "trained.csv", "--resamples", "2", "--format", "markdown").out
    assert "| measure" in markdown


def test_differences_and_a_figure(run: Callable, layers: str) -> None:
    ended = run(
        "validate", "trained.csv", "--against", "macs", "--resamples", "5",
        "--figure", "drawn.svg", "--format", "csv",
    )  # fmt: skip
    assert ended.err == "ifspace: wrote drawn.svg\nifspace: wrote drawn.png\n"
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    assert {row["against"] for row in rows} == {"macs"}
    assert "macs" not in {row["score"] for row in rows}
    params = next(row for row in rows if (row["score"], row["where"]) == ("params", "all"))
    assert [float(params[name]) for name in ("spearman", "low", "high")] == [0, 0, 0]
    assert Path("drawn.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    "words",
    [
        "score",
        "score vgg16 --layers net.csv",
        "score --layers net.csv --input 3x8x8",
        "score --layers none.csv",
        "analyze --layers net.csv --part stem",
        "validate none.csv",
        "validate net.csv",
        "validate trained.csv --against flops",
        "validate trained.csv --resamples 0",
        "validate trained.csv --out result.xml",
    ],
)
def test_a_wrong_argument_is_one_line(
    run: Callable, layers: str, snapshot: SnapshotAssertion, words: str
) -> None:
    ended = run(*words.split())
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.strip() == snapshot
    assert ended.err.count("\n") == 1


def test_the_committed_table_is_that_of_the_results() -> None:
    path = Path(__file__).resolve().parents[2] / "results" / "scores.csv"
    assert list(csv.DictReader(path.read_text("utf-8").splitlines())) == list(published_rows())


def test_the_committed_table_has_the_noted_numbers() -> None:
    # The same as computed from the networks: tests/scores/test_validation.py, where they are.
    rows = {
        (row["score"], row["where"]): row
        for row in published_rows()
        if row["set"] == "NAS-Bench-Macro"
    }
    in_bins = {"params": 0.10, "macs": 0.79, "energy": 0.74, "gain": 0.45, "log-gain": 0.87}
    picks = {"gain": 85, "log-gain": 97, "macs": 89, "macs-3/4": 97}
    assert {n: round(float(rows[n, IN_BINS]["spearman"]), 2) for n in in_bins} == in_bins
    assert {n: round(float(rows[n, UNDER_BUDGETS]["pick_percentile"])) for n in picks} == picks


def test_few_networks_are_said_to_be_few(run: Callable, layers: str) -> None:
    Path("few.csv").write_text("\n".join(TABLE.splitlines()[:5]), "utf-8")
    ended = run("validate", "few.csv", "--resamples", "5")
    assert "few, under budgets: 4 networks; a random pick has " in ended.out
    assert "few, equal parameters" not in ended.out
    text = " ".join(ended.out.split())
    assert "Left out below 10 networks: equal parameters, with depth and without, of few" in text
    assert "Warning: intervals of under 20 networks are no more than a hint: few (4)." in text
    assert "Warning: 5 resamples: the ends of intervals are chance; from 80 on" in text


@pytest.mark.slow
def test_a_network_beside_a_list_has_the_counts_of_one(run: Callable, layers: str) -> None:
    whole = run("score", "vgg16", "--save", "vgg.csv", "--format", "json").json
    listed = run("score", "--layers", "vgg.csv", "--format", "json").json
    assert whole["counts"]["params"] > listed["counts"]["params"], "classifier and normalisation"
    for arguments in (
        ["vgg16", "--beside", "vgg.csv"],
        ["--layers", "vgg.csv", "--beside", "vgg16"],
    ):
        ended = run("score", *arguments, "--format", "json")
        assert ended.json["counts"] == ended.json["beside"]["counts"] == listed["counts"]
        assert "vgg.csv lists convolutions alone: the counts of both are of these" in ended.err
