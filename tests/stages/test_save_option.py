"""`--save` of `ifspace layout` and `ifspace organize`: the network of the answer in a file."""

import importlib.util
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from ifspace.nn.files import load
from ifspace.nn.network import style_of
from ifspace.stages.networks import network
from ifspace.stages.organizer import organize

LAYOUT = (
    "layout",
    "--stages",
    "8,4",
    "--depths",
    "1,2",
    "--widths",
    "8,16",
    "--blocks",
    "CONV,DW+PW",
    "--params",
    "6k",
    "--macs",
    "1M",
    "--max-depth",
    4,
    "--style",
    "bare",
)
ORGANIZE = (
    "organize",
    "--stages",
    "8,4,2",
    "--depths",
    "1,1,3",
    "--widths",
    "8,8,8",
    "--blocks",
    "DW+PW",
)
BOTH = pytest.mark.parametrize("command", [LAYOUT, ORGANIZE], ids=["layout", "organize"])


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a search begins."""

    def fail(*_: object) -> None:
        raise AssertionError("the search has begun")

    monkeypatch.setattr(import_module("ifspace.stages.allocate"), "best_stages", fail)
    monkeypatch.setattr(import_module("ifspace.stages.organizer"), "organize", fail)


@BOTH
def test_the_file_holds_the_layout_that_is_printed(
    run: Callable, tmp_path: Path, command: tuple[Any, ...], snapshot: object
) -> None:
    file = tmp_path / "net.safetensors"
    ended = run(*command, "--format", "json", "--save", file)
    assert ended.status == 0
    values = ended.json
    plan = values["plans"][0] if "plans" in values else values
    loaded = load(file)
    assert values["saved"] == str(file)
    assert list(loaded.layout.depths) == plan["depths"]
    assert sum(parameter.numel() for parameter in loaded.parameters()) == plan["params"]
    assert loaded.layout.macs == plan["macs"]
    assert list(map(str, loaded.layout.blocks)) == (plan.get("blocks") or values["blocks"])
    assert loaded(torch.zeros(1, 3, 8, 8)).shape[2:] == loaded(torch.zeros(2, 3, 8, 8)).shape[2:]
    assert ended.err.replace(str(file), "FILE") == snapshot
    assert f"{plan['params']:,} parameters" in ended.err


@BOTH
def test_without_the_save_option_nothing_is_saved(run: Callable, command: tuple[Any, ...]) -> None:
    ended = run(*command, "--format", "json")
    assert (ended.json["saved"], "saved" in ended.err) == (None, False)


@BOTH
def test_the_same_command_writes_the_same_bytes(
    run: Callable, tmp_path: Path, command: tuple[Any, ...]
) -> None:
    for name in "ab":
        assert run(*command, "--quiet", "--save", tmp_path / f"{name}.safetensors").err == ""
    a, b = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "ab")
    assert a == b


def test_the_best_of_several_is_saved(run: Callable, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    values = run(*LAYOUT, "--top", 3, "--format", "json", "--save", file).json
    assert len(values["plans"]) == 3
    assert list(load(file).layout.depths) == values["plans"][0]["depths"]


@pytest.mark.parametrize("name", ["layout-residual", "mobilenet"])
def test_a_named_network_has_its_style(run: Callable, tmp_path: Path, name: str) -> None:
    file = tmp_path / "net.safetensors"
    ended = run("organize", "--network", name, "--moves", 1, "--save", file)
    loaded = load(file)
    assert loaded.style == style_of(name)
    assert loaded.layout == organize(network(name, 32), moves=1).end
    assert (ended.status, "fresh weights" in ended.err) == (0, True)
    assert "no classifier" not in ended.err


def test_of_several_alphas_the_one_shown_is_saved(run: Callable, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    command = (
        "organize",
        "--stages",
        "224,112,56,28,14",
        "--depths",
        "2,2,4,4,4",
        "--widths",
        "4,4,4,4,4",
        "--alpha",
        "10,3",
    )
    values = run(*command, "--format", "json", "--save", file).json
    ends = {row["alpha"]: row["depths"] for row in values["alphas"]}
    assert ends[3] != ends[10]
    assert list(load(file).layout.depths) == ends[3]


@BOTH
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.pt", ["unknown format of a network: got net.pt", "allowed: .safetensors"]),
        ("net", ["unknown format of a network: got net;"]),
        ("none/net.safetensors", ["output cannot be written", "No such file or directory"]),
        ("dir.safetensors", ["output cannot be written", "Is a directory"]),
    ],
)
def test_a_path_that_cannot_be_written_is_an_error_before_the_search(
    run: Callable,
    tmp_path: Path,
    no_search: None,
    command: tuple[Any, ...],
    name: str,
    words: list[str],
) -> None:
    (tmp_path / "dir.safetensors").mkdir()
    run(*command, "--save", tmp_path / name).fails_with(*words)
    assert [path.name for path in tmp_path.iterdir()] == ["dir.safetensors"]


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.safetensors", ["unknown output format: got net.safetensors", "allowed: .json, .csv"]),
        ("x.tex", ["unknown output format: got x.tex;"]),
        ("none/x.json", ["output cannot be written", "No such file or directory"]),
        ("dir.json", ["output cannot be written", "Is a directory"]),
    ],
)
def test_neither_file_is_written_where_the_other_cannot_be(
    run: Callable,
    tmp_path: Path,
    no_search: None,
    command: tuple[Any, ...],
    name: str,
    words: list[str],
) -> None:
    (tmp_path / "dir.json").mkdir()
    for also in ([], ["--save", tmp_path / "net.safetensors"]):
        run(*command, *also, "--out", tmp_path / name).fails_with(*words)
    run(*command, "--out", tmp_path / "x.json", "--save", tmp_path / "x.pt").fails_with("got x.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["dir.json"]


@BOTH
def test_both_files_are_written(run: Callable, tmp_path: Path, command: tuple[Any, ...]) -> None:
    ended = run(*command, "--out", tmp_path / "x.csv", "--save", tmp_path / "net.safetensors")
    assert ended.status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.safetensors", "x.csv"]


@BOTH
@pytest.mark.parametrize(
    ("absent", "packages"),
    [
        (["torch"], "torch is not"),
        (["safetensors"], "safetensors is not"),
        (["torch", "safetensors"], "torch and safetensors are not"),
    ],
)
def test_a_missing_package_is_named_with_its_install(
    run: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[Any, ...],
    absent: list[str],
    packages: str,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "ifspace.cli.requirements.find_spec", lambda name: None if name in absent else find(name)
    )
    file = tmp_path / "net.safetensors"
    run(*command, "--save", file).fails_with(f"{packages} installed", "install ifspace[torch]")
    assert not file.exists()
    assert run(*command).status == 0


@pytest.mark.parametrize(("more", "status"), [(["--params", 10], 3), (["--time-limit", 0], 4)])
def test_without_a_layout_the_older_file_is_kept(
    run: Callable, tmp_path: Path, more: list[Any], status: int
) -> None:
    file = tmp_path / "net.safetensors"
    file.write_bytes(b"older")
    ended = run(*LAYOUT, *more, "--format", "json", "--save", file)
    assert (ended.status, ended.json["saved"]) == (status, None)
    assert file.read_bytes() == b"older"


@pytest.mark.parametrize("command", ["layout", "organize"])
def test_the_help_names_the_save_option(run: Callable, command: str) -> None:
    text = " ".join(run(command, "--help").out.split())
    assert "--save FILE Write the network too, with fresh weights, as FILE.safetensors" in text


STYLED = (
    "layout",
    "--stages",
    "16,8",
    "--params",
    "60k",
    "--macs",
    "3M",
    "--classes",
    50,
    "--quiet",
)
BLOCK_OF = {"resnet": "CONV", "mobilenet": "DW+PW", "plain": "DW+GPW(4)+SH(4)+GPW(4)"}


@pytest.mark.parametrize("style", BLOCK_OF)
def test_a_described_layout_is_saved_as_a_network_that_trains(
    run: Callable, tmp_path: Path, style: str
) -> None:
    file = tmp_path / "net.safetensors"
    options = ("--style", style, "--blocks", BLOCK_OF[style], "--max-depth", 8)
    values = run(*STYLED, *options, "--format", "json", "--save", file).json
    (plan,) = values["plans"]
    loaded = load(file)
    assert sum(parameter.numel() for parameter in loaded.parameters()) == plan["params"]
    assert loaded.layout.macs == plan["macs"]
    modules = list(loaded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in modules)
    identities = [
        module for module in modules if getattr(module, "shortcut_kind", None) == "identity"
    ]
    assert len(identities) == (sum(plan["depths"]) - 2 if style == "resnet" else 0)
    # The variance of what enters is kept, by the features and by the logits.
    images = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loaded.train()
    logits = loaded(images)
    features = loaded.stages(loaded.stem(images))
    assert logits.shape == (32, 50)
    for written in (features, logits):
        assert 1 / 3 < written.std() / images.std() < 3
    torch.nn.functional.cross_entropy(logits, torch.arange(32)).backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_a_block_that_does_not_fit_a_style_is_an_error(run: Callable) -> None:
    run(*STYLED, "--style", "mobilenet", "--blocks", "CONV").fails_with(
        "a block that does not fit --style mobilenet: got CONV;", "such as DW+PW"
    )
    run("layout", "--network", "vgg16", "--style", "resnet").fails_with("--style with --network")
    head = (
        "layout",
        "--network",
        "vgg11",
        "--widths",
        "start",
        "--classes",
        100,
        "--format",
        "json",
    )
    assert run(*head).json["budgets"]["params"] == network("vgg11", 32).params + 90 * 513
