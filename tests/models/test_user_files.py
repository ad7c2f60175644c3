"""Networks of a person's own file: how the file is run, and what is said when it fails."""

import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from ifspace.errors import SettingError
from ifspace.models.sources import from_file, network

NET = """
from __future__ import annotations
from dataclasses import dataclass, field
import torch
from torch import nn

@dataclass
class Size:
    width: int = field(default=4)

def double(x):
    return x * FACTOR

FACTOR = 2

class Net(nn.Module):
    def __init__(self, width=Size().width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)

    def forward(self, x):
        return double(self.conv(x))

def make():
    return Net(8).eval()

made = Net(5)
number = 7

def of_blocks():
    from blocks import Block
    return Block()

def wants(width):
    return Net(width)

def fails():
    raise ValueError("no width\\nand more")

def leaves():
    raise SystemExit

def stops():
    raise KeyboardInterrupt

if __name__ == "__main__":
    raise RuntimeError("run as a program")
"""


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a file does, sys.path is as it was; of sys.modules those that were there are."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path, modules = list(sys.path), dict(sys.modules)
    yield
    assert sys.path == path
    assert all(sys.modules.get(name) is each for name, each in modules.items())
    for name in sys.modules.keys() - modules.keys():
        if name.startswith("_ifspace_") or name in ("blocks", "inner", "inner.deep"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a file of the folder and returns its path."""

    def write(text: str, name: str = "net.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("factory", "width", "training"), [("make", 8, False), ("Net", 4, True), ("made", 5, True)]
)
def test_functions_classes_and_modules_are_taken(
    factory: str, width: int, training: bool, write: Callable[..., str]
) -> None:
    file = write(NET)
    made = network(f"{file}:{factory}", seed=0)
    assert made(torch.zeros(1, 3, 4, 4)).shape == (1, width, 2, 2)
    assert made.training is training
    again, other = network(f"{file}:{factory}", seed=0), network(f"{file}:{factory}", seed=1)
    assert again is not made
    assert torch.equal(again.conv.weight, made.conv.weight)
    assert not torch.equal(other.conv.weight, made.conv.weight)
    assert not (Path(file).parent / "__pycache__").exists()


def test_a_relative_path_is_that_of_the_working_folder(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(write(NET, "some nets/net.py")).parent.parent)
    assert network("some nets/net.py:make").conv.out_channels == 8


def test_what_is_made_can_be_pickled_and_compiled(write: Callable[..., str]) -> None:
    made = network(f"{write(NET)}:make")
    write(NET.replace("FACTOR = 2", "FACTOR = 3"))
    tripled = network(f"{write(NET.replace('FACTOR = 2', 'FACTOR = 3'))}:make")
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(pickle.loads(pickle.dumps(made))(x), made(x))
    for each, factor in ((made, 2), (tripled, 3)):
        compiled = torch.compile(nn.Sequential(each), backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), factor * each.conv(x))


def test_files_beside_it_can_be_imported(write: Callable[..., str]) -> None:
    file = write(
        "from inner.deep import Net\n\ndef of_blocks():\n    import blocks\n"
        "    return blocks.Block()",
        "my-net.v2.py",
    )
    write(
        "from torch import nn\nclass Net(nn.Conv2d):\n    def __init__(self): "
        "super().__init__(3, 6, 1)",
        "inner/deep.py",
    )
    write(
        "from torch import nn\nclass Block(nn.Linear):\n    def __init__(self): "
        "super().__init__(2, 9)",
        "blocks.py",
    )
    assert network(f"{file}:Net").out_channels == 6
    assert network(f"{file}:of_blocks").out_features == 9
    assert {"blocks", "inner.deep"} <= sys.modules.keys()


def test_folders_with_files_of_one_name_are_kept_apart(write: Callable[..., str]) -> None:
    text = "from torch import nn\nclass Block(nn.Linear):\n    def __init__(self): "
    for folder, width in (("first", 1), ("second", 2)):
        write(f"{text}super().__init__(2, {width})", f"{folder}/blocks.py")
        write("from blocks import Block", f"{folder}/net.py")
    folder = Path(write(""))
    for name, width in (("first", 1), ("second", 2), ("first", 1)):
        made = network(f"{folder.parent / name / 'net.py'}:Block")
        assert made.out_features == width


def test_a_mended_file_is_read_anew(write: Callable[..., str]) -> None:
    file = write("import blocks\nmake = blocks.make")
    write("from torch import nn\nraise OSError('not yet')", "blocks.py")
    with pytest.raises(SettingError, match=r"net\.py \(OSError: not yet\); .*; see line 1 of net"):
        network(f"{file}:make")
    write("from torch import nn\nmake = 3", "blocks.py")
    with pytest.raises(SettingError, match=r"^factory returns no network: got int of "):
        network(f"{file}:make")
    assert "blocks" not in sys.modules
    write("from torch import nn\nmake = nn.Identity     ", "blocks.py")
    assert isinstance(network(f"{file}:make"), nn.Identity)


def test_an_own_module_of_another_name_stays(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    write("number = 1", "json.py")  # it is imported already: as under python FILE.py that one is
    file = write("import json\nfrom torch import nn\nmake = nn.Identity\njson.dumps(1)")
    network(f"{file}:make")
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (
            "mak",
            r"no such factory in the file: got .*net\.py:mak; allowed: Size, double, Net, make"
            r".*, …; nearest: make",
        ),
        ("", "no such factory in the file: got .*; name one of the file$"),
        ("number", r"factory returns no network: got int of .*net\.py:number; allowed: a function"),
        (
            "Size",
            r"factory returns no network: got Size of .*:Size; .*; let it return the network$",
        ),
        (
            "fails",
            r"the network's own code failed: got .*net\.py:fails \(ValueError: no width\); "
            r"allowed: a function .*; see line 38 of net\.py$",
        ),
        (
            "wants",
            r"the network's own code failed: .*\(TypeError: wants\(\) missing 1 .*'width'\); "
            r".*; fix net\.py$",
        ),
        ("leaves", r"the network's own code failed: got .*:leaves \(SystemExit\); .*; see line 41"),
        ("of_blocks", r".*\(ModuleNotFoundError: No module named 'blocks'\); .*; see line 31 of"),
    ],
)
def test_factories_that_fail(factory: str, said: str, write: Callable[..., str]) -> None:
    with pytest.raises(SettingError, match=f"^{said}") as refused:
        network(f"{write(NET)}:{factory}")
    assert refused.value.argument == "model"
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def make(:\n", r"\(SyntaxError: invalid syntax\); allowed: a Python file .*; see line 1"),
        ("x = 1\n\ny = x / 0", r"\(ZeroDivisionError: division by zero\); .*; see line 3 of net"),
        ("from .blocks import x", r"\(ImportError: attempted relative import .*; see line 1 of"),
        ("import sys\nsys.exit(0)", r"\(SystemExit: 0\); .*; see line 2 of net\.py$"),
        ("\0", r"\((SyntaxError|ValueError): source code .* null bytes\)"),
        ("", r"no such factory in the file: .*; allowed: a function or class that makes an nn"),
    ],
)
def test_files_that_fail(text: str, said: str, write: Callable[..., str]) -> None:
    before = set(sys.modules)
    with pytest.raises(SettingError, match=said) as refused:
        network(f"{write(text)}:make")
    assert refused.value.argument == "model"
    assert "\n" not in str(refused.value)
    assert not any(name.startswith("_ifspace_") for name in sys.modules.keys() - before)


def test_files_that_are_not_there(write: Callable[..., str], tmp_path: Path) -> None:
    near = write(NET).replace("net.py", "nets.py")
    (tmp_path / "folder.py").mkdir()
    for file, said in (
        (near, r"nets\.py' \(No such file or directory\); .*; nearest: net\.py$"),
        (str(tmp_path / "no" / "net.py"), r"\(No such file or directory\); .*; check its path$"),
        (str(tmp_path / "folder.py"), r"folder\.py' \(Is a directory\)"),
        ("\0.py", r"'\\x00\.py' \(embedded null"),
    ):
        with pytest.raises(SettingError, match=f"^file of a network cannot be read: got .*{said}"):
            from_file(file, "make")


def test_an_interruption_passes(write: Callable[..., str]) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        network(f"{write(NET)}:stops")
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        network(f"{write('raise KeyboardInterrupt')}:stops")
