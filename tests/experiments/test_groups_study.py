"""The study of group counts: everything it solves is solved where the caller says."""

import csv
import threading
from collections.abc import Sequence
from pathlib import Path

import joblib
import pytest

from experiments import groups_study
from experiments.groups_study import NARROW, CheapestBlock
from ifspace.block import Block
from ifspace.groups.problem import GroupsProblem

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.slow
def test_blocks_with_a_bottleneck_are_sized_on_the_engine_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheapest, threads = groups_study.cheapest, set()

    def solved(problems: Sequence[GroupsProblem]) -> list[CheapestBlock]:
        if problems[0].bottleneck is not None:  # all others are one shard
            threads.add(threading.get_ident())
        return cheapest(problems)

    monkeypatch.setattr(groups_study, "cheapest", solved)
    monkeypatch.setattr(groups_study, "SHAPES", {"C = F": ((64, 64), (256, 256), (1024, 1024))})
    arguments = ["--catalogue", str(RESULTS / "catalogue-64.parquet"), "--max-len", "2"]
    with joblib.parallel_config(backend="threading", n_jobs=2):
        groups_study.main([*arguments, "--out", str(tmp_path)])
    assert threads
    assert threading.get_ident() not in threads
    with (tmp_path / "groups-study.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    narrow = [row for row in rows if row["K"]]
    assert [row["composition"] for row in narrow] == [text for text in NARROW for _ in range(3)]
    for row in narrow:
        assert 4 * int(row["K"]) == int(row["F"])
        sized = Block.parse(row["block"]).at(int(row["C"]), int(row["F"]), bottleneck="1/4")
        assert sized.params == int(row["params"])
