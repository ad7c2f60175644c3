"""`python -m experiments.training`: train a network and its versions side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ifspace.cli.options import (
    AMOUNT,
    FILE,
    OneOf,
    Output,
    WholeNumber,
    output_options,
    with_options,
)
from ifspace.cli.progress import ProgressBar
from ifspace.cli.requirements import TORCH, check_installed

if TYPE_CHECKING:
    from experiments.training import Data, Run


DIGITS, SMALL = "digits", "small"
SEEDS: Final = 3

_OPTIONS = (
    click.option(
        "--data",
        type=OneOf([DIGITS, "cifar10", "cifar100"]),
        default=DIGITS,
        show_default=True,
        help="The images: scikit-learn's digits (8x8 pixels), or CIFAR from --folder.",
    ),
    click.option(
        "--folder",
        type=FILE,
        metavar="DIR",
        help="Where the Python version of CIFAR-10 or CIFAR-100 is unpacked.",
    ),
    click.option(
        "--network",
        default=SMALL,
        show_default=True,
        metavar="NAME",
        help="A plain network (six convolutions for the digits), or one of the papers "
        "such as vgg11, for which the digits are enlarged to 32x32.",
    ),
    click.option(
        "--block",
        default="DW+RPW(2,1/2)",
        show_default=True,
        metavar="BLOCK",
        help="The block that replaces the convolutions in the last version.",
    ),
    click.option(
        "--params",
        type=AMOUNT,
        metavar="P",
        help="The most parameters of the reorganized version.",
    ),
    click.option(
        "--preset",
        default="quick",
        show_default=True,
        metavar="NAME",
        help="The schedule: quick, or a paper's such as 3drf-cifar (350 epochs).",
    ),
    click.option(
        "--epochs",
        type=WholeNumber(1),
        metavar="N",
        help="Another number of epochs; the rate falls after the same share of them.",
    ),
    click.option(
        "--seeds",
        type=WholeNumber(1),
        metavar="N",
        default=SEEDS,
        show_default=True,
        help="The number of seeds from which each version is trained.",
    ),
    click.option(
        "--threads",
        type=WholeNumber(1),
        metavar="N",
        help="Threads of torch; by default 1 for the small network on the digits, otherwise "
        "torch's own number.",
    ),
    click.option(
        "--device",
        default="cpu",
        show_default=True,
        metavar="NAME",
        help="The device to train on: cpu or cuda.",
    ),
)


@click.command("train-check", short_help="Train a network and its improved versions side by side.")
@with_options(_OPTIONS)
@output_options()
def command(
    output: Output,
    data: str,
    folder: Path | None,
    network: str,
    block: str,
    params: int | None,
    preset: str,
    epochs: int | None,
    seeds: int,
    threads: int | None,
    device: str,
) -> None:
    """Train a network unchanged, reorganized, and decomposed, on the same images in the same order.

    A small check that the versions train, and a comparison of their cost: accuracy over several
    seeds, parameters, MACs, time per step. It does not show which is better on other data; the
    answer states what it shows and what it does not. Interrupted, it prints the finished runs.
    """
    needed = {**TORCH, "ortools": "solver"}
    check_installed(needed, "networks are trained with them", extras="torch,solver,train")
    from experiments.training import layout_for, train_check, versions
    from experiments.training import preset as schedule_of
    from experiments.training.text import (
        Check,
        forms,
        note_versions,
    )

    schedule = schedule_of(preset)
    schedule = schedule if epochs is None else schedule.for_epochs(epochs)
    layout, style, images = layout_for(network, _data(data, folder))
    compared = versions(layout, style, block, params)
    output.check()
    note_versions(output, compared)
    if threads is None and (data, network.lower()) == (DIGITS, SMALL):
        threads = 1  # feature maps of a few pixels: more threads cost more time than they save
    check = Check(images, network.lower(), block, params, schedule, compared, seeds)
    runs: list[Run] = []
    try:
        with ProgressBar("training", quiet=output.quiet) as bar:
            train_check(
                {version.name: version.build for version in compared},
                images,
                schedule,
                range(seeds),
                threads=threads,
                device=device,
                progress=bar,
                finished=runs.append,
            )
    except KeyboardInterrupt:
        if runs:
            output.emit(forms(check, runs))
        raise
    output.emit(forms(check, runs))


def _data(name: str, folder: Path | None) -> "Data":
    from experiments.training import cifar10, cifar100, digits
    from ifspace.errors import SettingError

    if (name == DIGITS) != (folder is None):
        raise SettingError.because(
            "options that do not go together",
            got=f"--data {name} {'without' if folder is None else 'with'} --folder",
            allowed="--folder with --data cifar10 or cifar100, and not with digits",
            remedy="say where the Python version is unpacked"
            if folder is None
            else "leave it out, or name the data in it",
        )
    if folder is None:
        return digits()
    return {"cifar10": cifar10, "cifar100": cifar100}[name](folder)
