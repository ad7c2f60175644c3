"""Latencies of a catalogue's designs by a model in a file, and `ifspace best --by latency`."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from latency_models import TIMES, ZEROS, model
from samples import DW_PW, SMALL

from ifspace.bench.predict import LatencyPredictor
from ifspace.block import Block
from ifspace.catalogue import Catalogue, Design, save
from ifspace.cli.latency import latency_notes
from ifspace.errors import SettingError
from ifspace.latency import at_side

THREE = replace(
    DW_PW, composition="DW+RPW+RPW", block=Block.parse("DW+RPW(4,0)+RPW(4,0)"), params=272, layers=3
)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def written(values: Any) -> Path:
        path = tmp_path / "blocks-cpu-test.json"
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        return path

    return written


def found(path: Path, design: Design = DW_PW, side: int | None = None) -> tuple[Any, ...] | None:
    """Return milliseconds, form and mark of the latency that a file predicts for a design."""
    latency = at_side(LatencyPredictor.read(path), side)(design.sized, design.stride)
    return None if latency is None else (latency.ms, latency.form, latency.extrapolated)


def test_the_form_is_the_fastest_one_that_the_model_knows(written: Callable[..., Path]) -> None:
    # As is 1 + 2 + 2, collapsed DW+PW 1 + 1/2, fused 1.25.
    assert found(written(model()), THREE) == (1.25, "fused", False)
    assert found(written(model())) == (1.25, "fused", False)
    older = {name: ms for name, ms in (TIMES | ZEROS).items() if not name.startswith("fused")}
    assert found(written(model(coefficients=older)), THREE) == (1.5, "collapsed", False)
    assert found(written(model(coefficients=older))) == (1.5, "as is", False)
    assert found(written(model(coefficients={"CONV launches": 1.0}))) is None
    assert found(written(model()), replace(DW_PW, dims=1)) is None


def test_the_side_is_that_of_the_model_or_the_one_given(written: Callable[..., Path]) -> None:
    per_byte = dict.fromkeys(TIMES | ZEROS, 0.0) | {"DW bytes": 1.0}
    path = written(model(coefficients={k: v for k, v in per_byte.items() if "fused" not in k}))
    for side, pixels in ((None, 64), (4, 16)):
        moved = 4 * (2 * 16 * pixels * 2 + 9 * 16)
        assert found(path, side=side) == (moved, "as is", side is not None)


def test_a_prediction_outside_the_shapes_of_the_fit_is_marked(
    run: Callable, written: Callable[..., Path], tmp_path: Path
) -> None:
    assert found(written(model(shapes=[[8, 8, 4, 1], [32, 32, 16, 1]]))) == (1.25, "fused", False)
    for shapes in ([[16, 16, 8, 2]], [[32, 32, 8, 1]], [[16, 16, 4, 1], [16, 16, 7, 1]], []):
        assert found(written(model(shapes=shapes))) == (1.25, "fused", True)
    # Files of before say the shape of the designs that they list.
    older = model(shapes=None) | {"designs": [{"channels": 16, "out_channels": 16, "stride": 1}]}
    assert found(written(older)) == (1.25, "fused", False)
    path, catalogue = written(model(shapes=[[16, 16, 4, 1]])), tmp_path / "small.parquet"
    save(SMALL, catalogue)
    ended = run("best", catalogue, "-C", 16, "--latency", path)
    assert "~1.25" in ended.out
    assert "~: outside the shapes that the latency model was fitted on" in ended.err
    designs = run("best", catalogue, "-C", 16, "--latency", path, "--format", "json").json[
        "designs"
    ]
    assert {design["extrapolated"] for design in designs} == {True}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        (
            "--device",
            "gpu-a",
            "--device is not that of the latencies: got gpu-a; allowed: device cpu-test",
        ),
        ("--dtype", "fp16", "--dtype is not that of the latencies: got fp16; allowed: dtype fp32"),
        ("--batch", 1, "--batch is not that of the latencies: got 1; allowed: batch 2"),
    ],
)
def test_a_model_of_other_conditions_is_an_error(
    run: Callable,
    written: Callable[..., Path],
    tmp_path: Path,
    option: str,
    value: object,
    words: str,
) -> None:
    catalogue = tmp_path / "small.parquet"
    save(SMALL, catalogue)
    run("best", catalogue, "--latency", written(model()), option, value).fails_with(words)
    run("best", catalogue, option, value).fails_with(f"got {option} without --latency")
    right = ("--device", "cpu-test", "--dtype", "fp32", "--batch", 2)
    assert run("best", catalogue, "--latency", written(model()), *right).status == 0


def test_what_the_latencies_hold_under_is_said(written: Callable[..., Path]) -> None:
    about = "latencies predicted for cpu-test: batch 2, fp32, nchw, plain style, 1 thread"
    assert LatencyPredictor.read(written(model())).about == about
    worse = f"{about}; the model's rank correlation is 0.50, the goal 0.9"
    assert LatencyPredictor.read(written(model(rank=0.5))).about == worse
    unknown = LatencyPredictor.read(written(model(rank=None))).about
    assert unknown.endswith("; the model's rank correlation is not known, the goal 0.9")


def test_a_profile_in_the_place_of_a_model_says_how_to_import_it(
    run: Callable, written: Callable[..., Path], tmp_path: Path
) -> None:
    catalogue = tmp_path / "small.parquet"
    save(SMALL, catalogue)
    profile = written([{"count": 50}, {"name": "conv", "averageMs": 0.1}])
    ended = run("best", catalogue, "--latency", profile)
    ended.fails_with("has no latency model", "of another runtime: `ifspace bench --import`")
    assert "got JSON of something else;" in ended.err


@pytest.mark.parametrize(
    "values", ["", "{", "[]", "{}", {"model": {}}, model(conditions={}), model(coefficients=None)]
)
def test_a_file_without_a_model_is_an_error(written: Callable[..., Path], values: Any) -> None:
    with pytest.raises(SettingError, match=r"blocks-cpu-test\.json has no latency model: got "):
        LatencyPredictor.read(written(values))


def test_a_file_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^none\.json .* got No such file or dir") as error:
        LatencyPredictor.read(tmp_path / "none.json")
    assert str(tmp_path) not in str(error.value)


@pytest.mark.slow
def test_a_model_older_than_the_compiled_kernels_says_so(written: Callable[..., Path]) -> None:
    # Nor are there times of its forms as DW+PW and fused.
    times = {name: ms for name, ms in (TIMES | ZEROS).items() if name[:2] not in ("fu", "PW")}
    source = LatencyPredictor.read(written(model(coefficients=times)))
    block = Block.parse("DW+RPW(8,0)+RPW(8,0)").at(1024)
    *_, note = latency_notes(source, 56, [(block, 1)])
    assert note.endswith(
        "the model has no time for RPW compiled: it was fitted before the compiled kernels; "
        "run `ifspace bench` again"
    )


def test_best_ranks_by_latency_and_names_the_form(
    run: Callable, written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written(model())
    catalogue = tmp_path / "small.parquet"
    save(Catalogue(SMALL.settings[:1], SMALL.funnels[:1], SMALL.designs[:3]), catalogue)
    slower = dict(TIMES) | {"fused launches": 9.0}
    arguments = ("best", catalogue, "-C", 16, "--by", "latency", "--latency")
    ended = run(*arguments, path, "--format", "json")
    assert ended.err.startswith("ifspace: latencies predicted for cpu-test: batch 2")
    designs = ended.json["designs"]
    assert [(x["latency_ms"], x["form"]) for x in designs] == [(1.25, "fused")] * len(designs)
    path.write_text(json.dumps(model(coefficients=slower | ZEROS)))
    ended = run(*arguments, path, "--format", "csv")
    rows = [
        (row["block"], row["latency_ms"], row["form"], row["why"].partition(";")[0])
        for row in csv.DictReader(io.StringIO(ended.out))
    ]
    assert rows == [
        ("DW+RPW(4,0)+RPW(4,0)", "1.5", "collapsed", "least latency"),
        ("DW+PW", "1.5", "as is", "least latency"),
        ("GC(8)+PW", "1.5", "as is", "least latency"),
    ]
    table = run(*arguments, path, "--side", 4).out
    assert table.splitlines()[0].split()[-4:] == ["latency", "ms", "form", "why"]
    assert run(*arguments, path, "--format", "markdown").out.count("| collapsed |") == 1


LACKING = "the model has no time for GC padded; run `ifspace bench` again"


def test_blocks_without_a_latency_are_counted_with_what_the_model_lacks(
    run: Callable, written: Callable[..., Path], tmp_path: Path
) -> None:
    catalogue = tmp_path / "small.parquet"
    save(Catalogue(SMALL.settings[:1], SMALL.funnels[:1], SMALL.designs[:3]), catalogue)
    unfused = {name: ms for name, ms in (TIMES | ZEROS).items() if not name.startswith("fused")}
    older = {name: ms for name, ms in unfused.items() if not name.startswith("GC padded")}
    command = ("best", catalogue, "--latency", written(model(coefficients=unfused)))
    assert "no latency" not in run(*command).err
    written(model(coefficients=older))
    ended = run(*command)
    assert ended.err.endswith(f"1 of 3 blocks has no latency: {LACKING}\n")
    ended = run(*command, "--by", "latency", "--format", "json")
    assert [x["latency_ms"] for x in ended.json["designs"]] == [1.5, 1.5, None]
    ended = run(*command, "--kinds", "GC,PW")
    assert ended.err.endswith(f"1 of 1 blocks has no latency: {LACKING}\n")
    assert "none of these" not in ended.err


def test_by_latency_needs_a_model(run: Callable, tmp_path: Path) -> None:
    catalogue = tmp_path / "small.parquet"
    save(SMALL, catalogue)
    ended = run("best", catalogue, "--by", "latency")
    assert ended.status == 2
    assert "nothing says how long the blocks take" in ended.err
    assert "--latency results/bench/blocks-DEVICE.json" in ended.err
