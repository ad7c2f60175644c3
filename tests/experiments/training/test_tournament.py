"""A tournament: its pairs against brute force, its runs in any order, what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cifar_files import write_binary
from joblib import parallel_config
from scipy import stats
from witness import reach_by_sets

from benchmarks.cluster import cluster
from experiments.training import PRESETS, macs_of
from experiments.training.tournament import runs
from experiments.training.tournament.page import (
    compare,
    p_of_signs,
    paragraphs,
    table_rows,
)
from experiments.training.tournament.pairs import (
    Contestant,
    Pair,
    failing_blocks,
    pairs_of,
)
from experiments.training.tournament.runs import (
    STYLE,
    Row,
    Tournament,
    images_in,
    network_of,
    run_tournament,
)
from ifspace.block import Block
from ifspace.canonical import same_network
from ifspace.catalogue.dataset import load, save
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import OutputError
from ifspace.folder import LocalFolder
from ifspace.nn.network import build_network
from ifspace.scores.layers import LayerList
from ifspace.scores.tables import read_table
from ifspace.storage import read_csv

RESULTS = Path(__file__).parents[3] / "results"
# Of 8 channels.
LETTERS = (
    *("PW", "DW", "GC(2)", "GC(4)", "GPW(2)", "GPW(4)", "RPW(2,0)", "RPW(2,1/3)", "RPW(2,1/2)"),
    *("RPW(4,0)", "RPW(4,1/3)", "RPW(4,1/2)"),
)
ONE_EPOCH = replace(PRESETS["few-images"].for_epochs(1), batch=10)


SETTING = EnumerationSetting(
    channels=8, max_len=3, overlaps=(Fraction(0), Fraction(1, 3), Fraction(1, 2))
)


@pytest.mark.parametrize("text", ["RPW(2,0)+GC(4)", "DW+RPW(2,0)+GPW(4)"])
def test_failing_blocks_are_those_of_brute_force(text: str) -> None:
    passes = Contestant(Block.parse(text), 8)
    layers = [(layer.kernel, layer.params) for layer in passes.sized.layers]
    networks: list[Block] = []
    for letters in product(LETTERS, repeat=len(passes.block)):
        block = Block.parse("+".join(letters))
        sized = block.at(8)
        alike = [(layer.kernel, layer.params) for layer in sized.layers] == layers
        fails = alike and min(map(len, reach_by_sets(sized.layers))) < 8
        if fails and not any(same_network(sized, other.at(8)) for other in networks):
            networks.append(block)
    failing = failing_blocks(SETTING, passes)
    # The one that is taken sees fewest.
    least = min(min(map(len, reach_by_sets(other.at(8).layers))) for other in networks)
    assert failing[0].field == least
    assert len(failing) == len(networks) > 0
    for one in failing:
        assert sum(same_network(one.sized, other.at(8)) for other in networks) == 1


def test_the_pairs_of_the_committed_front_are_equal_but_for_the_field() -> None:
    catalogue = load(RESULTS / "front-64.parquet", check=False)
    pairs, data = pairs_of(catalogue, 12), images_in(None)
    assert len({str(one) for pair in pairs for one in (pair.passes, pair.fails)}) == 24
    for pair in pairs:
        passes, fails = pair.passes, pair.fails
        assert min(map(len, reach_by_sets(passes.sized.layers))) == passes.field == 64
        assert min(map(len, reach_by_sets(fails.sized.layers))) == fails.field < 64
        assert passes.shape == fails.shape
    # So have the networks, and they begin with the same weights.
    last = (pairs[-1].passes, pairs[-1].fails)
    one, other = (build_network(network_of(x, data), STYLE, seed=0) for x in last)
    assert macs_of(one, data.shape) == macs_of(other, data.shape)
    for weight, weight_there in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(weight.flatten(), weight_there.flatten())


@pytest.fixture
def tiny(tmp_path: Path) -> Tournament:
    """A pair of 8 channels, two seeds, on 20 images of CIFAR-10."""
    names = ("DW+RPW(2,0)+GPW(4)", "DW+GPW(2)+GPW(4)")
    passes, fails = (Contestant(Block.parse(name), 8) for name in names)
    return Tournament((Pair(passes, fails),), ONE_EPOCH, 2, write_binary(tmp_path / "cifar"))


@pytest.mark.slow
def test_the_table_is_the_same_in_any_order_and_after_an_end(
    tiny: Tournament, tmp_path: Path
) -> None:
    folder = LocalFolder(tmp_path / "rows")

    def table(place: LocalFolder, jobs: int) -> list[dict[str, Any]]:
        return table_rows(tiny, run_tournament(tiny, place, jobs))

    first = table(folder, 1)
    files = sorted(folder.path.glob("*.json"))
    assert len(files) == 4
    kept = {file: file.read_bytes() for file in files[:2]}
    for file in files[2:]:
        file.unlink()
    with parallel_config(backend="threading"):
        assert table(folder, 2) == first
        assert {file: file.read_bytes() for file in kept} == kept
        assert table(LocalFolder(tmp_path / "others"), 2) == first
    # What a row says is the weights of its network, and its own accuracy.
    (one, other) = first
    assert (one["field"], other["field"], one["params"] == other["params"]) == (8, 4, True)
    assert one["accuracy"] == pytest.approx((one["accuracy_0"] + one["accuracy_1"]) / 2)
    blocks = sum(layer.params for layer in tiny.pairs[0].passes.sized.layers)
    assert LayerList.parse(one["layers"]).params == 3 * 2 * blocks + 27 * 8
    # A row of another schedule, a damaged one, and another file are named.
    with pytest.raises(OutputError, match=r"GPW-4\.seed0\.json \(of another .*: epochs 1, not 2\)"):
        run_tournament(replace(tiny, schedule=ONE_EPOCH.for_epochs(2)), folder, 1)
    files[1].write_bytes(files[1].read_bytes().replace(b'"seed": 1', b'"seed": 0'))
    with pytest.raises(OutputError, match=rf"{files[1].name} \(damaged\).*remove the file"):
        table(folder, 1)
    files[1].write_bytes(files[0].read_bytes())
    with pytest.raises(OutputError, match=rf"{files[1].name} \(the row of .*, seed 0\)"):
        table(folder, 1)
    files[1].rename(folder.path / "notes.txt")
    with pytest.raises(OutputError, match=r"notes.txt \(another file\)"):
        table(folder, 1)


@pytest.mark.slow
def test_the_command_writes_a_table_that_validation_reads(run: Callable, tmp_path: Path) -> None:
    options = ("--catalogue", RESULTS / "front-64.parquet", "--pairs", 1, "--seeds", 1)
    options += ("--epochs", 1, "--folder", write_binary(tmp_path / "cifar"), "--jobs", 1)
    ended = run("tournament", tmp_path / "rows", *options, "--out", tmp_path / "out", "--quiet")
    assert (ended.status, ended.err) == (0, "")
    assert "1 blocks" not in (tmp_path / "out" / "tournament.md").read_text()
    one, other = read_table(tmp_path / "out" / "tournament.csv")
    assert one.name == "DW+RPW(16,0)+RPW(16,0)+GPW(16)"
    assert one.counts["params"] == other.counts["params"] == 12_490 + 2 * 9 * 64


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_cluster_trains_the_networks_to_the_same_table(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="ifspace[dask] is not installed")
    front = tmp_path / "front.parquet"
    save(enumerate_designs([replace(SETTING, front=True)], jobs=1), front)
    options = ("--catalogue", front, "--pairs", 1, "--seeds", 1, "--epochs", 1, "--quiet")
    options += ("--folder", write_binary(tmp_path / "cifar"))

    def table(name: str, *engine: object) -> bytes:
        out = tmp_path / name
        ended = run("tournament", out / "rows", *options, *engine, "--out", out)
        assert (ended.status, ended.err) == (0, "")
        return (out / "tournament.csv").read_bytes()

    with cluster(2, tmp_path) as dask:
        here = table("here", "--jobs", 1)
        monkeypatch.setattr(runs, "_trained", None)  # nothing is trained in this process
        assert table("there", "--backend", "dask", "--address", dask.address) == here


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pairs", 13), ("--pairs: got 13", "allowed: 1 to 12")),
        (("--folder", "."), ("--folder", "no data in the folder", "test_batch.bin")),
        (("--preset", "slow"), ("--preset", "few-images")),
        (("--catalogue", RESULTS / "catalogue-64.parquet"), ("--catalogue", "no front")),
        (("--jobs", 0), ("--jobs",)),
    ],
)
def test_bad_input_is_one_line(
    run: Callable, tmp_path: Path, arguments: tuple[Any, ...], words: tuple[str, ...]
) -> None:
    usual = () if "--catalogue" in arguments else ("--catalogue", RESULTS / "front-64.parquet")
    options = ("tournament", tmp_path / "rows", "--pairs", 1, *usual, *arguments)
    run(*options, "--out", tmp_path).fails_with(*words)


def test_files_of_a_wrong_size_and_label_are_named(run: Callable, tmp_path: Path) -> None:
    place = write_binary(tmp_path) / "cifar-10-batches-bin"
    options = ("tournament", tmp_path / "rows", "--pairs", 1, "--folder", tmp_path)
    options += ("--catalogue", RESULTS / "front-64.parquet", "--out", tmp_path)
    whole = (place / "data_batch_3.bin").read_bytes()
    for content, words in (
        (whole[:-1], ("data_batch_3.bin of 12,291 bytes", "records of 3,073 bytes")),
        (b"\x0a" + whole[1:], ("data_batch_3.bin with the label 10",)),
    ):
        (place / "data_batch_3.bin").write_bytes(content)
        run(*options).fails_with("cifar10 cannot be read", *words)
    (place / "data_batch_3.bin").unlink()
    run(*options).fails_with("data_batch_3.bin: No such file")


@pytest.fixture
def played() -> tuple[Tournament, list[Row]]:
    """A tournament of two pairs with made-up accuracies."""
    names = ("RPW(4,0)+GC(16)", "GPW(4)+GC(16)", "DW+RPW(8,0)+GPW(8)", "DW+GPW(8)+GPW(8)")
    one, two, three, four = (Contestant(Block.parse(name), 64) for name in names)
    tournament = Tournament((Pair(one, two), Pair(three, four)), ONE_EPOCH, 2)
    accuracies = ((95.0, 96.0), (94.0, 94.5), (93.0, 93.0), (93.5, 92.5))
    rows = [
        Row(str(contestant), seed, accuracy, 0.1, 13_258, 306_304, 10.0, 12.0)
        for contestant, own in zip(tournament.contestants, accuracies, strict=True)
        for seed, accuracy in enumerate(own)
    ]
    return tournament, rows


def test_the_page_compares_pairs(played: tuple[Tournament, list[Row]], snapshot: Any) -> None:
    tournament, rows = played
    compared = compare(tournament, rows)
    assert compared.differences.tolist() == [[1.0, 1.5], [-0.5, 0.5]]
    assert (compared.mean, compared.ahead, compared.level) == (0.625, 1, 1)
    low, high = compared.interval
    assert -0.5 <= low < 0.625 < high <= 1.5
    assert "\n\n".join(paragraphs(tournament, rows, "this test")) == snapshot
    assert [row["accuracy"] for row in table_rows(tournament, rows)] == [95.5, 94.25, 93.0, 93.0]


def test_signs_are_flipped_as_scipy_does() -> None:
    means = np.random.default_rng(1).normal(0.3, 1, 9).round(2)
    by_scipy = stats.permutation_test(
        (means,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert p_of_signs(means) == pytest.approx(by_scipy.pvalue)
    assert p_of_signs(np.array([1.0])) == 1


def test_the_committed_table_can_be_read() -> None:
    """The table of record has the pairs of its page, and is one that `validate` reads."""
    path = RESULTS / "tournament.csv"
    networks = read_table(path)
    assert len(networks) == len(read_csv(path).rows) == 24
