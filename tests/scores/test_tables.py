"""Tables of trained networks: ifspace's form, the published ones, and their parameter counts."""

from pathlib import Path

import pytest
from published_tables import published

from ifspace.errors import SettingError
from ifspace.scores import LayerList
from ifspace.scores.published import macro_layers, pycls_layers
from ifspace.scores.tables import network_sets, read_table
from ifspace.storage import read_csv

# Published parameters are not those that the table counts from the model: the known ones.
DIFFERENT = {
    "espnetv2_wd2",
    "espnetv2_w1",
    "espnetv2_w5d4",
    "espnetv2_w3d2",
    "espnetv2_w2",
    "xdensenet40_2_k24_bc_cifar10",
    "xdensenet40_2_k36_bc_cifar10",
    "xdensenet40_2_k24_bc_cifar100",
    "xdensenet40_2_k36_bc_cifar100",
    "xdensenet40_2_k24_bc_svhn",
    "xdensenet40_2_k36_bc_svhn",
}
# Kernels that are no squares: the published lists name their longer side.
NO_SQUARES = {
    "inceptionv3",
    "inceptionv4",
    "inceptionresnetv1",
    "inceptionresnetv2",
    *(f"sqnxt23{v}_w{w}" for v in ("", "v5") for w in ("1", "3d2", "2")),
}


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trained.csv"
    path.write_text(text, "utf-8")
    return path


def test_layers_stand_in_the_table_or_in_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("kernel,stride,in,out,groups,size\n1,1,3,8,1,4\n", "utf-8")
    path = table(
        tmp_path,
        "name,layers,accuracy,error,set,params\n"
        "a,3/1/3/8/1/4,90,,digits,\n"
        "b,b.csv,,12.5,digits,99\n"
        ",1/1/3/4/1/4,70,,,\n",
    )
    first, second, third = read_table(path)
    assert (first.name, first.set, first.accuracy) == ("a", "digits", 90)
    assert second.layers == LayerList.parse("1/1/3/8/1/4")
    assert (second.accuracy, second.counts) == (87.5, {"params": 99})
    assert third.set == "trained"
    sets = network_sets([first, second, third])
    assert [(s.name, s.names) for s in sets] == [
        ("digits", ("a", "b")),
        ("trained", ("1/1/3/4/1/4",)),
    ]
    assert sets[0].measures["params"] == (216, 99)


def test_a_builder_is_built_by_who_can(tmp_path: Path) -> None:
    path = table(tmp_path, "builder,input,accuracy\ntimm:a,,1\ntimm:b,3x32x32,2\n")
    calls = []

    def build(name: str, size: str | None) -> tuple[LayerList, dict[str, int], None]:
        calls.append((name, size))
        return LayerList.parse("3/1/3/8/1/4"), {"macs": 5}, None

    networks = read_table(path, build)
    assert calls == [("timm:a", None), ("timm:b", "3x32x32")]
    assert [network.counts for network in networks] == [{"macs": 5}] * 2
    with pytest.raises(SettingError, match="line 2: a builder, for which torch is needed"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "layers,accuracy\n3/1/3/8/1/4,x\n",
            "line 2: .*accuracy 'x'; allowed: a number in percent, from 0 to 100;",
        ),
        ("layers,accuracy\n3/1/3/8/1/4,nan\n", "line 2: .*accuracy 'nan'"),
        (
            "layers,accuracy\n3/1/3/8/1,5\n",
            "line 2: .*layer 1 is '3/1/3/8/1'; allowed: kernel/stride/in",
        ),
        (
            "layers,accuracy\n3/1/3/8/3/4,5\n",
            "line 2: .*groups of 3 and 8 .*; allowed: groups that divide in",
        ),
        ("layers,accuracy\n,5\n", "line 2: .*neither layers nor builder"),
        (
            "layers,accuracy,params\n3/1/3/8/1/4,5,many\n",
            "line 2: .*params 'many'; allowed: a whole number",
        ),
        ("layers,accuracy\n3/1/3/8/1/4,\n", "line 2: .*no accuracy and no error"),
        ("layers,accuracy\n3/1/3/8/1/4,190\n", "line 2: .*accuracy '190'; .*from 0 to 100;"),
        ("layers,error\n3/1/3/8/1/4,-1\n", "line 2: .*error '-1'; .*from 0 to 100;"),
        (
            "name,layers,accuracy\na,3/1/3/8/1/4,5\na,3/1/3/9/1/4,6\n",
            "line 3: the name 'a' of line 2 again; allowed: a name once in a set;",
        ),
        ("layers,accuracy\n3/1/3/8/1/4,5\n", "with 1 network;"),
        ("layers,top1\n3/1/3/8/1/4,5\n", "without accuracy or error"),
        ("name,accuracy\na,5\n", "without layers or builder"),
        ("arch,params,flops,acc_mean\n0000000,1,1,1\n", "line 2: arch '0000000'"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingError, match=words) as error:
        read_table(table(tmp_path, text))
    assert "\n" not in str(error.value)


def test_sweeps_are_networks_that_differ_in_groups_alone(tmp_path: Path) -> None:
    rows = ["1/1/8/8/1/4", "1/1/8/8/2/4", "1/1/8/16/1/4", "1/1/8/16/1/4", "1/2/8/8/1/4"]
    text = "layers,accuracy\n" + "".join(f"{row},{n}\n" for n, row in enumerate(rows))
    (networks,) = network_sets(read_table(table(tmp_path, text)))
    first, second, *others = networks.sweeps
    assert first == second
    # Two equal networks are no sweep.
    assert len({first, *others}) == 4


def test_the_layers_of_the_published_networks_of_the_macro_table() -> None:
    # Published MACs less those of classifier and its bias are those of the list.
    layers = macro_layers("01000000")
    assert [layer.kernel[0] for layer in layers.layers] == [3, 1, 1, 3, 1, 1, 1, 1]
    assert [layer.size[0] for layer in layers.layers] == [32, 16, 16, 16, 16, 8, 4, 4]


@pytest.mark.slow
def test_parameters_and_macs_of_every_macro_network_are_the_published_ones() -> None:
    for network in read_table(published("nasbench_macro.csv")):
        layers = network.layers
        beside = 2 * sum(layer.c_out for layer in layers.layers) + 1280 * 10 + 10
        assert layers.params + beside == network.counts["params"]
        assert layers.macs + 1280 * 10 == network.counts["macs"]


def test_parameters_of_the_pycls_networks_are_the_published_ones() -> None:
    rows = [row for _, row in read_csv(published("pycls_zoo.csv")).rows]
    assert len(rows) == 30
    for row in rows:
        layers = pycls_layers(row)
        widths, depths = (
            [int(part) for part in row[name].split("/")]
            for name in ("stage_widths", "stage_depths")
        )
        # Batch norm, classifier, and squeeze-and-excitation at a quarter of what enters a block.
        gates = 0
        entering = 32
        for width, depth in zip(widths, depths, strict=True):
            for _ in range(depth):
                inner = round(entering / 4)
                gates += 2 * width * inner + width + inner
                entering = width
        gates *= int(row["se"])
        dense = (widths[-1] + 1) * 1000
        norms = 2 * sum(layer.c_out for layer in layers.layers)
        assert layers.params + norms + dense + gates == int(row["params"]), row["model"]
        if row["se"] == "0":
            assert layers.macs + dense == int(row["flops"]), row["model"]
        assert layers.joints == 0


@pytest.mark.slow
def test_parameters_and_macs_of_imgclsmob_are_counted_but_for_known_networks() -> None:
    path = published("imgclsmob.csv")
    rows = [row for _, row in read_csv(path).rows]
    assert len(rows) == 549
    assert {r["key"] for r in rows if r["params"] != r["calc_params"]} == DIFFERENT
    lists = [network.layers for network in read_table(path)]
    macs = {
        row["key"]
        for row, layers in zip(rows, lists, strict=True)
        if abs(layers.macs / 1e6 - float(row["calc_macs_M"])) > 6e-4
    }
    assert macs == NO_SQUARES
    # With batch norm behind every convolution and one classifier nothing is left of 221 networks.
    classes = {"ImageNet-1K": 1000, "CIFAR-100": 100}
    whole = [
        layers.params
        + 2 * sum(layer.c_out for layer in layers.layers)
        + (layers.layers[-1].c_out + 1) * classes.get(row["task"], 10)
        for row, layers in zip(rows, lists, strict=True)
    ]
    assert sum(n == int(row["params"]) for n, row in zip(whole, rows, strict=True)) == 221
