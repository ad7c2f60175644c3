import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ifspace.block import Block
from ifspace.errors import OutputError
from ifspace.nn.files import (
    NetworkFileError,
    load,
    save,
)
from ifspace.nn.network import (
    Network,
    NetworkStyle,
    build_network,
    named_network,
)
from ifspace.stages.layout import StemAndHead
from ifspace.stages.networks import (
    fog,
    make_layout,
)

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("one_thread")


def small(seed: int | None = 0) -> Network:
    frame = StemAndHead(batch_norm=True, classifier=(6, 4), image=None)
    blocks = [Block.parse("CONV"), Block.parse("DW+RPW(4,1/2)+SH(4)+GPW(2)")]
    return build_network(
        make_layout(blocks, (8, 4), (8, 16), (1, 2), stem_and_head=frame),
        NetworkStyle("silu", residual=1, dropout=0.1),
        seed=seed,
    )


def same(a: Network, b: Network) -> None:
    assert (a.layout, a.style) == (b.layout, b.style)
    first, second = a.state_dict(), b.state_dict()
    assert list(first) == list(second)
    for name in first:
        assert first[name].dtype == second[name].dtype
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=0)


def test_a_network_comes_back(tmp_path: Path) -> None:
    net, file = small(), tmp_path / "net.safetensors"
    net(torch.randn(4, 3, 8, 8))  # running statistics are no longer trivial
    save(net, file)
    back = load(file)
    same(net, back)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(back.eval()(x), net.eval()(x))
    assert load(file).training
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    (tmp_path / "beside").touch()
    assert file.stat().st_mode == (tmp_path / "beside").stat().st_mode


def test_a_loaded_network_trains(tmp_path: Path) -> None:
    save(small(), tmp_path / "net.safetensors")
    back = load(tmp_path / "net.safetensors")
    before = (tmp_path / "net.safetensors").read_bytes()
    back(torch.randn(4, 3, 8, 8)).sum().backward()
    torch.optim.SGD(back.parameters(), lr=1.0).step()
    assert all(
        parameter.requires_grad and parameter.grad is not None for parameter in back.parameters()
    )
    assert (tmp_path / "net.safetensors").read_bytes() == before
    save(back, tmp_path / "net.safetensors")  # over the file that it came from
    same(back, load(tmp_path / "net.safetensors"))


def test_a_loaded_network_does_not_change_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    save(small(), file)
    back = load(file)
    with file.open("r+b") as opened:  # in place, not by another file of that name
        opened.write(bytes(file.stat().st_size))
    same(small(), back)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_types_and_memory_layouts_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    net = small().to(dtype).to(memory_format=torch.channels_last)
    save(net, tmp_path / "net.SAFETENSORS")
    same(net, load(tmp_path / "net.SAFETENSORS"))


@pytest.mark.parametrize(
    "net",
    [
        named_network("layout-residual", 32, (1, 2, 3, 1), seed=0),
        named_network("mobilenet", 224, (2, 1, 1, 1, 1), seed=0),
        build_network(fog(224, "PW+DW+PW", 8, 1, Fraction(1, 4)), seed=0),
    ],
    ids=["residual", "mobilenet", "fog"],
)
def test_networks_of_the_papers_come_back(tmp_path: Path, net: Network) -> None:
    save(net, tmp_path / "net.safetensors")
    same(net, load(tmp_path / "net.safetensors"))


@pytest.mark.slow
def test_equal_networks_make_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save(small(seed), tmp_path / f"{name}.safetensors")
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.slow
def test_the_file_says_what_it_holds_and_loads_without_the_solver(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    save(small(), file)
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["ifspace"])
    assert about["format"] == 1
    assert about["style"] == {
        "activation": "silu",
        "where": "each",
        "residual": 1,
        "head": "average",
        "dropout": 0.1,
        "start": "he",
    }
    assert about["layout"]["stages"][1]["more"]["block"] == "DW+RPW(4,1/2)+SH(4)+GPW(2)"
    code = (
        "import sys; from ifspace.nn.files import load; net = load(sys.argv[1]); "
        "print(sum(x.numel() for x in net.parameters()), 'ortools' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == [str(small().layout.params), "False"]


@pytest.mark.parametrize("name", ["net", "net.pt", "net.safetensors.gz"])
def test_other_suffixes_raise(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=f"^unknown format of a network: got {name}; allowed: .s"):
        save(small(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_older_file_stays_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "net.safetensors"
    file.write_bytes(b"older")

    def full(path: Path, data: bytes) -> None:
        with path.open("wb") as half:
            half.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"^output cannot be written: got .*\(No space left"):
        save(small(), file)
    assert file.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_paths_that_cannot_be_written_raise(tmp_path: Path) -> None:
    (tmp_path / "dir.safetensors").mkdir()
    for name in ("none/net.safetensors", "dir.safetensors"):
        with pytest.raises(
            OutputError, match=r"^output cannot be written: got .*; allowed: a file"
        ):
            save(small(), tmp_path / name)


def test_a_network_without_weights_raises(tmp_path: Path) -> None:
    net = build_network(small().layout, device="meta")
    with pytest.raises(OutputError, match=r"^a network without weights: got tensors on the meta"):
        save(net, tmp_path / "net.safetensors")


def rewritten(file: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> None:
    """Rewrite the file with its description and its tensors changed."""
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["ifspace"])
        tensors = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
    change(about, tensors)
    save_file(tensors, file, {"ifspace": json.dumps(about)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about, _: about.update(format=2), "format version 2, not 1"),
        (lambda about, _: about.pop("format"), "a description that makes no sense"),
        (lambda about, _: about.pop("style"), "a description that makes no sense"),
        (lambda about, _: about["style"].update(more=1), "a description that makes no sense"),
        (lambda about, _: about["style"].update(head="x"), "a description that makes no sense"),
        (lambda about, _: about["layout"].update(stages=[]), "a description that makes no sense"),
        (lambda about, _: about["layout"]["frame"].update(inputs=4), "a description that makes no"),
        (
            lambda about, _: about["layout"]["frame"].update(classifier=[6, 5]),
            "weights that are not those of its description: head.logits.bias and 1 more",
        ),
        (
            lambda _, tensors: tensors.pop("head.logits.bias"),
            "weights that are not those of its description: head.logits.bias;",
        ),
        (
            lambda _, tensors: tensors.update(x=torch.ones(1)),
            "weights that are not those of its description: x;",
        ),
    ],
)
def test_files_that_were_tampered_with_raise(
    tmp_path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any], message: str
) -> None:
    file = tmp_path / "net.safetensors"
    save(small(), file)
    rewritten(file, lambda *_: None)
    same(small(), load(file))
    rewritten(file, change)
    with pytest.raises(
        NetworkFileError,
        match=f"^{re.escape(str(file))} is not a network that can be read: got {message}",
    ) as fault:
        load(file)
    assert "\n" not in str(fault.value)


def test_foreign_files_raise(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"x": torch.ones(2)}, file, metadata)
        with pytest.raises(NetworkFileError, match="got a safetensors file of something else"):
            load(file)
    save_file({"x": torch.ones(2)}, file, {"ifspace": "{"})
    with pytest.raises(NetworkFileError, match="got a description that makes no sense"):
        load(file)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_files_raise(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "net.safetensors"
    save(small(), file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(NetworkFileError, match="got no safetensors file, or only a part of one"):
        load(file)


def test_missing_files_raise(tmp_path: Path) -> None:
    for name, why in (("none.safetensors", "No such file"), (".", "Is a directory")):
        with pytest.raises(NetworkFileError, match=f"^network cannot be read: got .*{why}"):
            load(tmp_path / name)


def test_the_layout_is_what_is_saved_whatever_its_depths(tmp_path: Path) -> None:
    layout = small().layout
    deeper = replace(layout, stages=(layout.stages[0].at_depth(3), layout.stages[1]))
    save(build_network(deeper), tmp_path / "net.safetensors")
    assert load(tmp_path / "net.safetensors").layout.depths == (3, 2)
