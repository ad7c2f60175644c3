"""How `ifspace optimize` ends: files of networks, no answer, refusals."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

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


def test_a_network_is_saved_and_loaded_again(run: Callable) -> None:
    command = (*OWN, "--block", ROLLING)
    ended = run(*command, "--save", "net.safetensors", *JSON)
    found, model = ended.json, load("net.safetensors")
    assert (found["saved"], params(model)) == ("net.safetensors", found["after"]["params"])
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    assert m.load_edited("net.safetensors").edits.source == "net.py:make"
    assert f"ifspace: saved: net.safetensors, {params(model):,} parameters" in ended.err
    # Values are needed now, and the same command writes the same ones.
    assert ended.err.startswith("the file runs\nweights on cpu\n")
    run(*command, "--save", "again.safetensors", "--quiet")
    assert Path("again.safetensors").read_bytes() == Path("net.safetensors").read_bytes()
    run(*command, "--save", "other.safetensors", "--seed", 1)
    assert Path("other.safetensors").read_bytes() != Path("net.safetensors").read_bytes()


def test_a_network_of_the_papers_is_saved_too(run: Callable) -> None:
    command = ("optimize", "mobilenet", "--input", "3x32x32", "--classes", 7, "--moves", 6)
    found = run(*command, "--save", "m.safetensors", *JSON).json
    model = load("m.safetensors")
    assert params(model) == found["after"]["params"]
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_programs_are_saved_for_running(run: Callable, suffix: str) -> None:
    ended = run(*OWN, "--block", "DW+PW", "--save", f"net{suffix}")
    assert (ended.status, Path(f"net{suffix}").stat().st_size > 1000) == (0, True)


def test_what_onnx_needs_is_said_before_the_work(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "ifspace.cli.requirements.find_spec", lambda name: None if name == "onnx" else real(name)
    )
    run("optimize", "nowhere.py:make", "--save", "net.onnx").refused(
        "onnx is not installed: ONNX files are written with them; install ifspace[onnx], or leave "
        "--save out"
    )


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (
            ("--params", "1k"),
            3,
            "1,000 parameters, 1,437,760 MACs: proven: no depths of the "
            "stages keeps to that; the least of each by itself is 2,836 parameters, ",
        ),
        (
            ("--params", "1k", "--block", "DW+PW"),
            3,
            "1,000 parameters: proven: no choice of "
            "blocks keeps to that; the least of each by itself is ",
        ),
        (("--params", "9k", "--time-limit", "0"), 4, "time ran out before any depths"),
        (
            ("--params", "9k", "--block", "DW+PW", "--time-limit", "0"),
            4,
            "time ran out before any choice of blocks",
        ),
    ],
)
def test_without_an_answer_the_status_tells_why(
    run: Callable, options: tuple[str, ...], status: int, said: str
) -> None:
    command = (*OWN, *options, "--save", "net.safetensors")
    ended = run(*command, "--out", "out.json")
    (line,) = [each for each in ended.err.splitlines() if each.startswith("ifspace: ")]
    assert (ended.status, ended.out, said in line) == (status, "", True), line
    assert sorted(each.name for each in Path().iterdir()) == ["net.py"]
    found = run(*command, *JSON).json
    assert (found["after"], f"ifspace: {found['message']}") == (None, line)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--block DW+PW --cheapest", ["got --block with --cheapest", "allowed: one of them"]),
        ("--blocks DW+PW,PW --cheapest", ["got --blocks with --cheapest"]),
        ("--names 0", ["got --names with no block", "--block, --blocks or --cheapest"]),
        ("--warm-start", ["got --warm-start with no block"]),
        ("--blocks-only", ["got --blocks-only with no block"]),
        ("--least-channels 8 --objective macs", ["got --least-channels with --objective, no"]),
        ("--stages-only --cheapest", ["got --stages-only with --cheapest"]),
        ("--blocks-only --cheapest --moves 1", ["got --blocks-only with --moves"]),
        ("--moves 1 --params 9k", ["got --moves with --params"]),
        ("--objective keep --cheapest", ["got --objective with no budget"]),
        ("--objective macs --block DW+PW", ["got --objective with no budget"]),
        ("--latency a.csv --cheapest", ["latency", "a.csv"]),
        ("--latency-budget-ms 3 --cheapest", ["got latency in play with no --latency"]),
        ("--objective latency_ms --cheapest", ["got latency in play with no --latency"]),
        ("--objective speed --cheapest", ["--objective", "got 'speed'", "keep, params, macs"]),
        ("--params many", ["--params", "got 'many'", "5.1M"]),
        ("--params 0", ["--params out of range: got 0"]),
        ("--moves -1", ["--moves", "allowed: whole numbers from 0"]),
        ("--block XY", ["XY"]),
        ("--block DW+GPW", ["a block without its groups: got GPW in DW+GPW"]),
        ("--blocks PW,DW+GPW", ["--blocks: a block without its groups"]),
        ("--block DW+GPW(7)", ["no convolution to replace: got 6 layers: DW+GPW(7): groups"]),
        ("--block DW+PW --names nothing", ["--names: no such layer in the network: got 'nothing'"]),
        ("--block DW+PW --names 0,13", ["--names"]),
        ("--cheapest --least-channels 32", ["no convolution to replace", "fewer than 32"]),
        ("--classes 3", ["--classes of a network in a file: got 3"]),
        ("--seed 99999999999999999999", ["--seed"]),
        ("--save net.pth", ["unknown format of a network: got net.pth", ".onnx, .pt2"]),
        ("--save nowhere/net.pt2", ["output cannot be written"]),
        ("--out a.parquet", ["unknown output format"]),
        ("--input 1x16", ["--input: image size cannot be read"]),
        ("--time-limit soon", ["--time-limit", "got 'soon'"]),
        ("--theta -1", ["--theta"]),
    ],
)
def test_refusals_are_one_line(run: Callable, options: str, words: list[str]) -> None:
    arguments = ["net.py:make", *SMALL, *options.split()]
    if "--input" in options:
        arguments = ["net.py:make", *options.split()]
    ended = run("optimize", *arguments)
    (line,) = [each for each in ended.err.splitlines() if each.startswith("ifspace: ")]
    assert (ended.status, ended.out) == (2, "")
    assert [word for word in words if word not in line] == [], line
    assert sorted(each.name for each in Path().iterdir() if each.suffix) == ["net.py"]
