import csv
import importlib.util
import io
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from cifar_files import accept, write_cifar10, write_cifar100

import experiments.training
from experiments.training import Run, digits, layout_for, preset, versions
from experiments.training.command import command
from experiments.training.text import (
    SHOWS,
    Check,
    forms,
    resolution,
)
from experiments.training.versions import (
    BLOCK,
    SMALL,
)

ONCE = ("train-check", "--epochs", 1, "--seeds", 1)


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command see a twentieth of the digits."""

    def few() -> Any:
        data = digits()
        return replace(
            data,
            train_images=data.train_images[::20],
            train_labels=data.train_labels[::20],
            test_images=data.test_images[::20],
            test_labels=data.test_labels[::20],
        )

    monkeypatch.setattr(experiments.training, "digits", few)


@pytest.mark.slow
def test_the_json_has_the_versions_and_the_runs(run: Callable, snapshot: Any) -> None:
    ended = run("train-check", "--epochs", 2, "--seeds", 2, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    answer = ended.json
    assert (answer["data"], answer["network"], answer["preset"]) == ("digits", "small", "quick")
    assert answer["block"] == BLOCK
    assert {(row["threads"], row["device"]) for row in answer["runs"]} == {(1, "cpu")}
    assert (answer["train_images"], answer["test_images"], answer["image"]) == (72, 18, [1, 8, 8])
    assert (answer["schedule"]["epochs"], answer["schedule"]["decay"]) == (2, "cosine")
    names = ["original", "reorganized", "decomposed"]
    assert [row["version"] for row in answer["versions"]] == names
    assert [row["params"] for row in answer["versions"]][:2] == [72_666, 38_010]
    assert [(row["version"], row["seed"]) for row in answer["runs"]] == [
        (name, seed) for seed in (0, 1) for name in names
    ]
    for row in answer["versions"]:
        own = [one for one in answer["runs"] if one["version"] == row["version"]]
        mean = sum(one["accuracy_percent"] for one in own) / 2
        assert row["accuracy_percent"] == pytest.approx(mean)
        assert own[0]["macs"] == row["macs"]
    assert answer["shows"] == SHOWS
    assert answer["does_not_show"] == snapshot


@pytest.mark.slow
def test_the_table_has_a_row_for_each_version(run: Callable) -> None:
    ended = run(*ONCE)
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    for name, description, params in (
        ("original", "depths 2,2,2", "72,666"),
        ("reorganized", "depths 3,2,1", "38,010"),
        ("decomposed", "DW+RPW(2,1/2) for 5 of 6 convolutions", "4,426"),
    ):
        (line,) = [line for line in lines if line.startswith(name)]
        assert description in line
        assert params in line.split()


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("form", ["table", "markdown"])
def test_texts(form: str, seeds: int, snapshot: Any) -> None:
    layout, style, data = layout_for("small", digits())
    compared = versions(layout, style)
    check = Check(data, "small", BLOCK, None, preset("quick"), compared, seeds)
    runs = [
        Run(version.name, seed, 90.0 + seed + n, 0.25, 72_666, 599_680, 5.0, 4.5, 6.0, 8, 1, "cpu")
        for seed in range(seeds)
        for n, version in enumerate(compared)
    ]
    assert forms(check, runs)[form]() == snapshot


@pytest.mark.slow
def test_rows_are_tidy(run: Callable, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    ended = run(*ONCE, "--quiet", "--out", file)
    assert (ended.status, ended.out, ended.err) == (0, "", "")
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["version"] for row in rows] == ["original", "reorganized", "decomposed"]
    assert {(row["data"], row["network"], row["seed"], row["epochs"]) for row in rows} == {
        ("digits", "small", "0", "1")
    }
    assert all(0 <= float(row["accuracy_percent"]) <= 100 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "write", "classes"),
    [("cifar10", write_cifar10, 10), ("cifar100", write_cifar100, 100)],
)
def test_cifar_comes_from_a_folder(
    run: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: str,
    write: Callable,
    classes: int,
) -> None:
    accept(monkeypatch)
    write(tmp_path)
    ended = run(
        *ONCE,
        "--data",
        data,
        "--folder",
        tmp_path,
        "--preset",
        "3drf-cifar",
        "--block",
        "DW+PW",
        "--threads",
        1,
        "--format",
        "json",
    )
    assert (ended.status, ended.err) == (0, "")
    answer = ended.json
    assert (answer["classes"], answer["image"]) == (classes, [3, 32, 32])
    assert answer["schedule"]["milestones"] == [pytest.approx(3 / 7), pytest.approx(5 / 7)]
    assert answer["versions"][2]["said"] == "DW+PW for 9 of 10 convolutions"


@pytest.mark.slow
def test_a_version_that_changes_nothing_is_noted(run: Callable, snapshot: Any) -> None:
    ended = run(*ONCE, "--block", "DW+GPW(5)", "--params", "72666", "--format", "json")
    assert ended.err == snapshot
    assert [row["version"] for row in ended.json["versions"]] == ["original", "reorganized"]


@pytest.mark.slow
def test_an_interruption_keeps_finished_runs(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Any
) -> None:
    real = experiments.training.train_check

    def interrupted(*arguments: Any, progress: Any, **more: Any) -> Any:
        def stop(done: int, total: int) -> None:
            if done > total / 2:
                raise KeyboardInterrupt

        return real(*arguments, progress=stop, **more)

    monkeypatch.setattr(experiments.training, "train_check", interrupted)
    file = tmp_path / "kept.json"
    ended = run("train-check", "--epochs", 1, "--seeds", 2, "--out", file)
    assert (ended.status, ended.err) == (130, "ifspace: interrupted\n")
    assert ended.out.splitlines()[0] == snapshot
    assert '"seeds_asked": 2' in file.read_text()
    ended = run(*ONCE)
    assert (ended.status, ended.out) == (130, "")


@pytest.mark.slow
def test_a_loss_that_diverges_is_null(run: Callable) -> None:
    layout, style, data = layout_for("small", digits())
    check = Check(data, "small", BLOCK, None, preset("quick"), versions(layout, style), 1)
    lost = Run("original", 0, 10.0, float("nan"), 5, 6, 1.0, 0.9, 1.1, 8, 1, "cpu")
    texts = forms(check, [lost])
    assert '"train_loss": null' in texts["json"]()
    assert "NaN" not in texts["json"]()
    assert ",10.0,,5,6," in texts["csv"]()
    assert "nan" in texts["table"]()
    assert asdict(lost)["epochs"] == 8


def test_the_resolution_is_twice_the_standard_error() -> None:
    # p = 0.5 on 396 images: the standard error of a share is 2.5 points, of a difference √2 more.
    assert resolution([40.0, 60.0], 396) == pytest.approx(2 * 2**0.5 * 2.5)
    assert 0 < resolution([100.0], 10_000) < resolution([100.0], 100) < resolution([90.0], 100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "cifar10"], ["--data cifar10 without --folder", "allowed: --folder with"]),
        (["--folder", "."], ["--data digits with --folder", "leave it out"]),
        (
            ["--data", "cifar100", "--folder", "nowhere"],
            ["--folder: CIFAR100 cannot be read: got nowhere"],
        ),
        (["--data", "mnist"], ["got 'mnist'", "allowed: digits, cifar10, cifar100"]),
        (["--preset", "slow"], ["--preset", "got 'slow'", "3drf-cifar, 3drf-imagenet"]),
        (["--network", "vgg12"], ["--network", "'vgg12'", "vgg11"]),
        (["--block", "XY"], ["XY"]),
        (["--params", "100"], ["no choice of depths keeps the budgets", "100 parameters"]),
        (["--epochs", "0"], ["--epochs"]),
        (["--seeds", "0"], ["--seeds"]),
        (["--threads", "0"], ["--threads"]),
        (["--device", "nowhere", "--epochs", "1"], ["--device", "nowhere"]),
        (["--out", "runs.parquet"], ["unknown output format: got runs.parquet"]),
        (["--out", "nowhere/runs.csv"], ["output cannot be written"]),
    ],
)
def test_bad_input_is_one_line(run: Callable, arguments: list[str], words: list[str]) -> None:
    run("train-check", *arguments).fails_with(*words)


def test_without_torch_the_extra_is_named(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "ifspace.cli.requirements.find_spec", lambda name: None if name == "torch" else real(name)
    )
    run("train-check").fails_with("torch is not installed", "install ifspace[torch,solver,train]")


def test_the_defaults_are_those_of_the_library() -> None:
    defaults = {option.name: option.default for option in command.params}
    assert (defaults["block"], defaults["network"]) == (BLOCK, SMALL)
