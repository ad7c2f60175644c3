"""How `ifspace optimize` ends: saved networks, no answer, errors."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from network_files import params

import ifspace.models as m
from ifspace.models import load

pytestmark = pytest.mark.usefixtures("one_thread", "net_file")

SMALL = ("--input", "3x16x16")
OWN = ("optimize", "net.py:make", *SMALL)
ROLLING = "DW+RPW(2,1/2)"
JSON = ("--format", "json")


@pytest.mark.slow
def test_a_network_is_saved_and_loaded_again(run: Callable) -> None:
    command = (*OWN, "--block", ROLLING)
    ended = run(*command, "--save", "net.safetensors", *JSON)
    report, model = ended.json, load("net.safetensors", trust_code=True)
    assert (report["saved"], params(model)) == ("net.safetensors", report["after"]["params"])
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    source = m.load_edited("net.safetensors", trust_code=True).edits.source
    assert source == f"{Path('net.py').resolve()}:make"
    assert f"ifspace: saved: net.safetensors, {params(model):,} parameters" in ended.err
    # Values are needed now, and the same command writes the same ones.
    assert ended.err.startswith("the file runs\nweights on cpu\n")
    run(*command, "--save", "again.safetensors", "--quiet")
    assert Path("again.safetensors").read_bytes() == Path("net.safetensors").read_bytes()
    run(*command, "--save", "other.safetensors", "--seed", 1)
    assert Path("other.safetensors").read_bytes() != Path("net.safetensors").read_bytes()


@pytest.mark.slow
def test_a_network_of_the_papers_is_saved_too(run: Callable) -> None:
    command = ("optimize", "mobilenet", "--input", "3x32x32", "--classes", 7, "--moves", 6)
    report = run(*command, "--save", "m.safetensors", *JSON).json
    model = load("m.safetensors")
    assert params(model) == report["after"]["params"]
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_programs_are_saved_for_running(run: Callable, suffix: str) -> None:
    ended = run(*OWN, "--block", "DW+PW", "--save", f"net{suffix}")
    assert (ended.status, Path(f"net{suffix}").stat().st_size > 1000) == (0, True)


def test_a_missing_package_of_onnx_is_named_before_the_work(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "ifspace.cli.requirements.find_spec", lambda name: None if name == "onnx" else real(name)
    )
    run("optimize", "nowhere.py:make", "--save", "net.onnx").fails_with(
        "onnx is not installed: ONNX files are written with them; install ifspace[onnx], or leave "
        "--save out"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "status"),
    [
        ("--params 1k", 3),
        ("--params 1k --block DW+PW", 3),
        ("--params 9k --time-limit 0", 4),
        ("--params 9k --block DW+PW --time-limit 0", 4),
    ],
)
def test_without_an_answer_the_status_tells_why(
    run: Callable, snapshot: Any, options: str, status: int
) -> None:
    command = (*OWN, *options.split(), "--save", "net.safetensors")
    ended = run(*command, "--out", "out.json")
    (line,) = [text for text in ended.err.splitlines() if text.startswith("ifspace: ")]
    assert (ended.status, ended.out) == (status, "")
    assert line == snapshot
    assert sorted(path.name for path in Path().iterdir()) == ["net.py"]
    report = run(*command, *JSON).json
    assert (report["after"], f"ifspace: {report['message']}") == (None, line)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "--block DW+PW --cheapest",
        "--blocks DW+PW,PW --cheapest",
        "--names 0",
        "--warm-start",
        "--blocks-only",
        "--least-channels 8 --objective macs",
        "--stages-only --cheapest",
        "--blocks-only --cheapest --moves 1",
        "--moves 1 --params 9k",
        "--objective keep --cheapest",
        "--objective macs --block DW+PW",
        "--latency a.csv --cheapest",
        "--latency-budget-ms 3 --cheapest",
        "--objective latency_ms --cheapest",
        "--objective speed --cheapest",
        "--params many",
        "--params 0",
        "--moves -1",
        "--block XY",
        "--block DW+GPW",
        "--blocks PW,DW+GPW",
        "--block DW+GPW(7)",
        "--block DW+PW --names nothing",
        "--block DW+PW --names 0,13",
        "--cheapest --least-channels 32",
        "--classes 3",
        "--seed 99999999999999999999",
        "--save net.pth",
        "--save nowhere/net.pt2",
        "--out a.parquet",
        "--input 1x16",
        "--time-limit soon",
        "--theta -1",
    ],
)
def test_errors_are_one_line(run: Callable, snapshot: Any, options: str) -> None:
    arguments = ["net.py:make", *SMALL, *options.split()]
    if "--input" in options:
        arguments = ["net.py:make", *options.split()]
    ended = run("optimize", *arguments)
    (line,) = [text for text in ended.err.splitlines() if text.startswith("ifspace: ")]
    assert (ended.status, ended.out) == (2, "")
    assert line == snapshot
    assert sorted(path.name for path in Path().iterdir() if path.suffix) == ["net.py"]
