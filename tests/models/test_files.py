"""Edited networks in files: they are saved and loaded again where their source is available."""

import json
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_networks import Apart, resnet18, vgg
from torch import nn

from ifspace import nn as inn
from ifspace.errors import DeviceError, IfspaceError, OutputError, SettingError
from ifspace.models import sources
from ifspace.models.decomposition import Layers, decompose
from ifspace.models.edits import EditedNetwork, Edits
from ifspace.models.files import load, load_edited, save
from ifspace.models.reorganization import reorganize
from ifspace.models.sources import digest_of, from_source
from ifspace.nn import named_network
from ifspace.nn.files import (
    METADATA_KEY,
    NetworkFileError,
)
from ifspace.stages.problem import Blocks

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = (3, 32, 32)
BLOCKS = Blocks("DW+RPW(2,1/2)")
OWN = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, 2, 1))
"""


def metadata_of(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[METADATA_KEY])


def rewrite(path: Path, about: object) -> None:
    save_file(load_file(path), path, {METADATA_KEY: json.dumps(about)})


def check_same(path: Path, network: EditedNetwork, image=IMAGE, **arguments) -> None:
    loaded = load_edited(path, **arguments)
    assert loaded.edits == replace(network.edits, source=loaded.edits.source)
    assert (loaded.edits.source is None) == (network.edits.source is None)
    loaded_model, model = loaded.model, network.model
    assert list(loaded_model.state_dict()) == list(model.state_dict())
    x = torch.randn(2, *image, dtype=next(model.parameters()).dtype)
    with torch.no_grad():
        torch.testing.assert_close(loaded_model.eval()(x), model.eval()(x), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image"),
    [("vgg11", IMAGE), ("torchvision:resnet18", (3, 64, 64)), ("timm:resnet10t", (1, 64, 64))],
)
def test_a_decomposed_network_is_made_again_from_its_file(tmp_path, name: str, image):
    model = from_source(name, image, classes=7, seed=0)
    decomposed = decompose(model, image, BLOCKS)
    decomposed.model.double()(torch.randn(2, *image, dtype=torch.float64))  # moves the statistics
    save(decomposed, tmp_path / "net.safetensors")
    state = torch.get_rng_state()
    loaded = load(tmp_path / "net.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    check_same(tmp_path / "net.safetensors", decomposed, image)
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image"), [("torchvision:resnet18", (3, 64, 64)), ("vgg11", IMAGE)]
)
def test_steps_of_every_kind_are_done_again(tmp_path, name: str, image):
    better = reorganize(from_source(name, image, seed=0), image, moves=2)
    changed = decompose(better, image, BLOCKS)
    kinds = {step.step for step in changed.edits.steps}
    assert kinds == ({"replace"} if name == "vgg11" else {"remove", "append", "replace"})
    save(changed, tmp_path / "net.safetensors")
    check_same(tmp_path / "net.safetensors", changed, image)


@pytest.mark.slow
def test_networks_of_the_papers_need_the_file_alone(tmp_path, monkeypatch):
    decomposed = decompose(from_source("vgg11", IMAGE, seed=0), IMAGE)
    save(decomposed, tmp_path / "net.safetensors")
    monkeypatch.setattr("ifspace.models.files.from_source", None)
    check_same(tmp_path / "net.safetensors", decomposed)


@pytest.mark.slow
def test_a_network_without_steps_is_saved_as_by_nn(tmp_path):
    model = named_network("vgg11", seed=0)
    save(model, tmp_path / "one.safetensors")
    inn.save(model, tmp_path / "two.safetensors")
    one, two = ((tmp_path / name).read_bytes() for name in ("one.safetensors", "two.safetensors"))
    assert one == two
    check_same(tmp_path / "two.safetensors", EditedNetwork.of(model))


@pytest.mark.slow
def test_nn_names_the_function_that_loads_a_network_with_steps(tmp_path):
    save(decompose(named_network("vgg11"), IMAGE, BLOCKS), tmp_path / "net.safetensors")
    with pytest.raises(
        NetworkFileError, match=r"a file with steps; .*; read it with ifspace\.models\.load"
    ):
        inn.load(tmp_path / "net.safetensors")


def test_a_network_of_a_file_needs_that_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    model = from_source(f"{file}:make", (3, 16, 16))
    decomposed = decompose(model, (3, 16, 16), BLOCKS)
    path = tmp_path / "net.safetensors"
    save(decomposed, path)
    check_same(path, decomposed, (3, 16, 16), trust_code=True)
    file.write_text(OWN.replace("16, 16, 3, 2", "16, 24, 3, 2"))
    changed = r"was made from another mine\.py, or from this one before it changed: got .*mine\.py"
    with pytest.raises(NetworkFileError, match=changed):
        load(path, trust_code=True)
    file.unlink()
    with pytest.raises(NetworkFileError, match=r"net\.safetensors needs mine\.py:make: got ") as no:
        load(path, trust_code=True)
    assert "load(path, into=model)" in str(no.value)
    assert "\n" not in str(no.value)
    check_same(path, decomposed, (3, 16, 16), into=model)
    check_same(path, decomposed, (3, 16, 16), into=model.model)


EVIL = """
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
def make():
    from torch import nn
    return nn.Conv2d(3, 4, 1)
"""


@pytest.mark.parametrize("where", ["here", "above", "absolute", "capitals"])
@pytest.mark.parametrize("digest", [True, False])
def test_loading_runs_no_code_that_is_not_trusted(tmp_path, where: str, digest: bool):
    folder = tmp_path / "folder"
    folder.mkdir()
    files = {
        "here": folder / "evil.py",
        "above": tmp_path / "evil.py",
        "absolute": tmp_path / "evil.py",
        "capitals": folder / "EVIL.PY",
    }
    names = {
        "here": "evil.py",
        "above": "../evil.py",
        "absolute": str(tmp_path / "evil.py"),
        "capitals": "EVIL.PY",
    }
    file, path = files[where], folder / "net.safetensors"
    file.write_text(EVIL)
    source = f"{names[where]}:make"
    edits = Edits(source, (3, 8, 8), digest=digest_of(file) if digest else None)
    text = json.dumps({"format": 1, "network": None, "edits": edits.to_json()})
    save_file({"weight": torch.zeros(4, 3, 1, 1)}, path, {METADATA_KEY: text})
    # A file beside it is meant, wherever the description points.
    beside = where in ("here", "capitals")
    refusal = (
        r"without running code: got .*(?i:evil\.py).*, which would be run.*; .*trust"
        if beside
        else "got no file"
    )
    with pytest.raises(NetworkFileError, match=refusal):
        load(path)
    assert not file.with_suffix(".ran").exists()
    with pytest.raises(NetworkFileError, match="weights that are" if beside else "got no file"):
        load(path, trust_code=True)
    assert file.with_suffix(".ran").exists() == beside


class Runs:
    """Touches a file when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_an_exported_program_is_unpickled_only_when_trusted(tmp_path, capfd):
    path, ran = tmp_path / "net.pt2", tmp_path / "ran"
    torch.save(Runs(str(ran)), path)
    with pytest.raises(NetworkFileError, match="got an exported program, which torch unpickles"):
        load(path)
    assert not ran.exists()
    with pytest.raises(NetworkFileError, match="no exported program") as error:
        load(path, trust_code=True)
    assert "\n" not in str(error.value)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_network_whose_state_dict_has_a_version(tmp_path):
    network = from_source("torchvision:mnasnet0_5", (3, 32, 32), seed=0)
    save(network, tmp_path / "net.safetensors")
    check_same(tmp_path / "net.safetensors", network, (3, 32, 32))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    network = from_source("timm:resnet10t", (3, 32, 32), seed=0)
    save(network, tmp_path / "net.safetensors")

    monkeypatch.setattr(sources, "find_spec", lambda package: None)
    with pytest.raises(
        NetworkFileError, match=r"needs timm:resnet10t: got timm is not inst.*; pip"
    ):
        load(tmp_path / "net.safetensors")


@pytest.mark.slow
def test_a_module_without_a_source_is_passed_to_load(tmp_path):
    model, path = vgg(), tmp_path / "net.safetensors"
    decomposed = decompose(model, IMAGE, BLOCKS)
    save(decomposed, path)
    with pytest.raises(NetworkFileError, match="needs the network that it was saved from: got"):
        load(tmp_path / "net.safetensors")
    fresh = vgg()
    before = fresh.state_dict()["0.weight"].clone()
    started = decompose(model, IMAGE, BLOCKS, layers=Layers("3"))
    assert started.edits.steps == decomposed.edits.steps[:1]
    for into in (fresh, started, decomposed, load_edited(path, into=fresh)):
        check_same(path, decomposed, into=into)
    assert torch.equal(fresh.state_dict()["0.weight"], before)
    assert isinstance(fresh[3], nn.Conv2d)
    for other, message in (
        (decompose(model, IMAGE, Blocks("DW+PW")), "other steps were done to it"),
        (decomposed.model, "a step that does not fit the network"),
        (resnet18(), "a step that does not fit the network"),
        (vgg(32), "a step that does not fit the network"),
    ):
        with pytest.raises(NetworkFileError, match=f"was made from another network: got {message}"):
            load(tmp_path / "net.safetensors", into=other)
    save(vgg(), tmp_path / "plain.safetensors")
    with pytest.raises(NetworkFileError, match=r"weights that are not those of its description"):
        load(tmp_path / "plain.safetensors", into=resnet18())


def test_a_network_that_load_could_not_rebuild_is_an_error(tmp_path):
    network = from_source("torchvision:resnet18", (3, 64, 64))
    network.model.fc = nn.Linear(512, 3)
    with pytest.raises(
        OutputError, match=r"could not be read back: got weights .*: fc\.bias and 1"
    ):
        save(network, tmp_path / "net.safetensors")
    with pytest.raises(OutputError, match="a network without weights"):
        save(vgg().to("meta"), tmp_path / "net.safetensors")
    with pytest.raises(
        OutputError, match=r"unknown format of a network: got net.pth; allowed: .sa"
    ):
        save(vgg(), tmp_path / "net.pth")
    with pytest.raises(SettingError, match="wrong model: got int"):
        save(3, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_older_file(tmp_path):
    for suffix in (".safetensors", ".pt2", ".onnx"):
        path = tmp_path / f"net{suffix}"
        path.write_bytes(b"older")
        with pytest.raises(IfspaceError, match="meta device"):
            save(vgg().to("meta"), path, IMAGE)
        assert path.read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_programs_take_any_number_of_images(tmp_path):
    decomposed = decompose(Apart(), IMAGE, BLOCKS)
    decomposed.model.eval()
    save(decomposed, tmp_path / "net.pt2")
    save(decomposed, tmp_path / "net.onnx")
    program = load(tmp_path / "net.pt2", trust_code=True)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for many in (1, 3):
        x = torch.randn(many, *IMAGE)
        with torch.no_grad():
            y = decomposed.model(x)
            torch.testing.assert_close(program(x), y)
        run = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
        torch.testing.assert_close(run, y, rtol=1e-4, atol=1e-4)


class OneImage(nn.Module):
    """Its forward() depends on the batch size, so torch.export fixes that size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([image * 2 for image in x])


@pytest.mark.slow
def test_a_network_that_counts_its_images_becomes_a_program_for_one(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), OneImage())
    save(model, tmp_path / "net.pt2", IMAGE)
    x = torch.randn(1, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "net.pt2", trust_code=True)(x), model(x))


def test_programs_need_an_image_size(tmp_path):
    with pytest.raises(SettingError, match="image size is not known") as raised:
        save(vgg(), tmp_path / "net.pt2")
    assert raised.value.argument == "x"
    with pytest.raises(NetworkFileError, match=r"got an ONNX file; .*; run it with ONNX Runtime"):
        load(tmp_path / "net.onnx")
    with pytest.raises(NetworkFileError, match=r"got Python source; .*; import it and call"):
        load(tmp_path / "net.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format=2), "format version 2, not 1"),
        (lambda v: v.pop("edits"), "a description that makes no sense"),
        (lambda v: v.update(edits=3), "a description that makes no sense"),
        (lambda v: v.update(more=1), "a description that makes no sense"),
        (lambda v: v["edits"].update(more=1), "a description that makes no sense"),
        (lambda v: v["edits"]["steps"][0].update(stride=3), "a step that does not fit the network"),
        (lambda v: v["edits"]["steps"][0].update(stride=0), "a description that makes no sense"),
        (lambda v: v["edits"]["steps"][0].update(name="no.such"), "no such module"),
        (lambda v: v["edits"]["steps"].pop(), "weights that are not those of its description"),
        (lambda v: v["network"].pop("style"), "a description that makes no sense"),
    ],
)
def test_bad_files_are_an_error_of_one_line(tmp_path, change, message: str):
    path = tmp_path / "net.safetensors"
    save(decompose(named_network("vgg11"), IMAGE, BLOCKS), path)
    about = metadata_of(path)
    change(about)
    rewrite(path, about)
    with pytest.raises(
        NetworkFileError, match=rf"(can be read|was made from another network): got {message}"
    ) as no:
        load(path)
    assert "\n" not in str(no.value)


@pytest.mark.slow
def test_unrecognised_files_are_an_error(tmp_path):
    for suffix in (".safetensors", ".pt2"):
        path = tmp_path / f"net{suffix}"
        with pytest.raises(NetworkFileError, match=r"^network cannot be read: got .*No such file"):
            load(path)
        path.write_bytes(b"PK\x03\x04 and nothing")
        with pytest.raises(NetworkFileError, match="or only a part of one") as raised:
            load(path, trust_code=True)
        assert "\n" not in str(raised.value)
    save(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "net.pt2", IMAGE)
    whole = (tmp_path / "net.pt2").read_bytes()
    (tmp_path / "net.pt2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NetworkFileError, match="or only a part of one"):
        load(tmp_path / "net.pt2", trust_code=True)
    with pytest.raises(NetworkFileError, match="got an exported program, which torch unpickles"):
        load(tmp_path / "net.pt2")
    with pytest.raises(DeviceError, match="device cannot be used"):
        load(tmp_path / "net.pt2", "nowhere")


@pytest.mark.slow
def test_a_saved_network_is_a_model_of_the_commands(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN)
    options = ("--input", "3x16x16", "--block", "DW+PW", "--least-channels", "8")
    saved = run("optimize", "mine.py:make", *options, "--save", "net.safetensors")
    assert saved.status == 0
    run("analyze", "net.safetensors").fails_with("without running code", "mine.py", "--trust-code")
    answer = run("analyze", "net.safetensors", "--trust-code", "--format", "json").json
    after = run("optimize", "mine.py:make", *options, "--format", "json").json["after"]
    assert answer["params"] == after["params"]
    assert answer["image"] == [3, 16, 16]
    larger = run(
        "analyze", "net.safetensors", "--trust-code", "--input", "3x32x32", "--format", "json"
    )
    assert larger.json["image"] == [3, 32, 32]
    run("analyze", "vgg16", "--trust-code").fails_with("nothing to trust", "--trust-code")
    run("optimize", "net.safetensors", "--classes", "3").fails_with("classes of a saved network")
    # A network of ifspace's own parts needs no code and no trust.
    assert (
        run("layout", "--stages", "8,4", "--depths", "1,1", "--save", "a.safetensors").status == 0
    )
    assert run("analyze", "a.safetensors").status == 0
