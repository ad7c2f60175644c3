"""Layer lists: what is read and refused, shortcuts, and costs against fvcore."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.errors import SettingError
from ifspace.scores import LayerList, ListedLayer, read_layers

PLAIN = "kernel,stride,in,out,groups,size\n"


def test_a_file_is_read_whatever_the_order_of_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    path.write_text(
        "name,size,groups,out,in,stride,kernel,note\nstem,7x14,2,8,4,1,1x3,x\n", "utf-8"
    )
    layers = read_layers(path)
    assert layers.layers == (ListedLayer((1, 3), (1, 1), 4, 8, 2, (7, 14), name="stem"),)
    assert (layers.params, layers.macs, layers.activations) == (48, 48 * 98, 8 * 98)
    assert layers.peak == (4 + 8) * 98
    other = tmp_path / "again.csv"
    other.write_text(layers.text(), "utf-8")
    assert read_layers(other) == layers


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("3,1,64,64,1", "line 3 has 5 fields"),
        ("3,1,64,64,1,x", "line 3: size 'x'"),
        ("3,0,64,64,1,8", "line 3: stride '0'"),
        ("3.5,1,64,64,1,8", "line 3: kernel '3.5'"),
        ("3,1,-4,64,1,8", "line 3: in '-4'"),
        ("3,1,64,96,5,8", "line 3: 5 groups of 64 and 96 channels"),
        ("3,1,64,96,64,8", "line 3: 64 groups of 64 and 96 channels"),
        ("3,1,,64,1,8", "line 3: in ''"),
        ("3,1,9999999999,64,1,8", "line 3: in '9999999999'"),
        ("3,1,64,64,1,8x8x8", "line 3: size '8x8x8'"),
    ],
)
def test_a_wrong_row_is_one_line_with_its_number(tmp_path: Path, row: str, words: str) -> None:
    path = tmp_path / "net.csv"
    path.write_text(f"{PLAIN}3,1,3,64,1,8\n{row}\n", "utf-8")
    with pytest.raises(SettingError, match=words) as error:
        read_layers(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "without kernel"),
        ("kernel,stride,in\n", "without out, groups and size"),
        (PLAIN, "0 rows"),
    ],
)
def test_a_file_that_is_no_list_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "net.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(SettingError, match=words):
        read_layers(path)
    with pytest.raises(SettingError, match="cannot be read"):
        read_layers(tmp_path / "none.csv")


SIZES = st.integers(1, 9)
LAYERS = st.builds(
    lambda k, s, i, o, g, r, d: ListedLayer((k, r), (s, 1), g * i, g * o, g, (r, k), (d, d), ""),
    *[SIZES] * 7,
)


@given(st.lists(LAYERS, min_size=1, max_size=8))
def test_what_is_written_is_read_again(layers: list[ListedLayer]) -> None:
    listed = LayerList(tuple(layers))
    rows = listed.text().splitlines()[1:]
    assert len(rows) == len(layers)
    plain = LayerList(tuple(layer for layer in layers if layer.dilation == (1, 1)) or (layers[0],))
    if all(layer.dilation == (1, 1) for layer in plain.layers):
        assert LayerList.parse(str(plain)) == plain


def test_shortcuts_stand_on_either_side_of_their_block() -> None:
    # Before the first layer of the block, as in traces of some networks, or behind its last.
    before = "3/1/3/64/1/8;1/2/64/128/1/4;3/2/64/128/1/4;3/1/128/128/1/4"
    behind = "3/1/3/64/1/8;3/2/64/128/1/4;3/1/128/128/1/4;1/2/64/128/1/4;3/1/128/128/1/4"
    same_width = "3/1/3/64/1/8;1/2/64/64/1/4;3/2/64/64/1/4"
    assert [layer.is_pointwise for layer in LayerList.parse(before).chain] == [False] * 3
    assert len(LayerList.parse(behind).chain) == 4
    assert len(LayerList.parse(same_width).chain) == 2
    # Of a chain nothing is left out: bottlenecks, inverted residuals, an odd size.
    chain = "3/2/3/32/1/113;1/1/32/16/1/113;1/1/16/96/1/113;3/2/96/96/96/57;1/1/96/24/1/57"
    assert LayerList.parse(chain).chain == LayerList.parse(chain).layers
    assert LayerList.parse(chain).joints == 0
    # Concatenations are no shortcuts, and are counted.
    dense = "3/1/3/24/1/8;1/1/24/48/1/8;3/1/48/12/1/8;1/1/36/48/1/8;3/1/48/12/1/8"
    assert len(LayerList.parse(dense).chain) == 5
    assert LayerList.parse(dense).joints == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fvcore compiles losses of its own
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnext50_32x4d"])
def test_costs_of_a_list_are_those_of_the_built_network(name: str, tmp_path: Path) -> None:
    import torch
    import torchvision
    from fvcore.nn import FlopCountAnalysis
    from torch import nn

    from ifspace.models import trace
    from ifspace.models.listing import known_counts, layer_list

    net = getattr(torchvision.models, name)(weights=None).eval()
    graph = trace(net, (3, 32, 32))
    path = tmp_path / "net.csv"
    path.write_text(layer_list(graph).text(), "utf-8")
    layers = read_layers(path)
    convolutions = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    flops = FlopCountAnalysis(net, torch.zeros(1, 3, 32, 32))
    by_module = flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_module()
    assert {layer.name: layer.macs for layer in layers.layers} == {
        n: by_module[n] for n in convolutions
    }
    assert layers.params == sum(m.weight.numel() for m in convolutions.values())
    assert known_counts(graph)["params"] == sum(p.numel() for p in net.parameters())
    # Everything else of these networks is batch norm, two numbers a channel, and the classifier.
    beside = 2 * sum(layer.c_out for layer in layers.layers)
    last = [m for m in net.modules() if isinstance(m, nn.Linear)]
    dense = sum(p.numel() for m in last for p in m.parameters())
    assert layers.params + beside + dense == sum(p.numel() for p in net.parameters())
