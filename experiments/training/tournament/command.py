"""`python -m experiments.training.tournament`: run a tournament, or go on with one."""

from pathlib import Path
from typing import Final

import click

from ifspace.cli.backend import backend_options
from ifspace.cli.options import FILE, WholeNumber, with_options
from ifspace.cli.progress import ProgressBar
from ifspace.cli.requirements import TORCH, check_installed

NAME: Final = "tournament"
FRONT: Final = Path("results/front-64.parquet")
PAIRS, SEEDS = 12, 3

_OPTIONS = (
    click.option(
        "--pairs",
        type=WholeNumber(1),
        metavar="N",
        default=PAIRS,
        show_default=True,
        help="Blocks of the front, and as many that fail the field.",
    ),
    click.option(
        "--catalogue",
        type=FILE,
        metavar="FILE",
        default=FRONT,
        show_default=True,
        help="The front, at the width that the network has.",
    ),
    click.option(
        "--seeds",
        type=WholeNumber(1),
        metavar="N",
        default=SEEDS,
        show_default=True,
        help="From which each block is trained.",
    ),
    click.option(
        "--folder",
        type=FILE,
        metavar="DIR",
        help="The binary version of CIFAR-10 or CIFAR-100; the digits if not given.",
    ),
    click.option(
        "--preset",
        default="few-images",
        show_default=True,
        metavar="NAME",
        help="The schedule; for CIFAR 3drf-cifar (350 epochs).",
    ),
    click.option("--epochs", type=WholeNumber(1), metavar="N", help="Another number of epochs."),
    click.option(
        "--jobs",
        type=WholeNumber(1),
        metavar="N",
        help="Networks that are trained at once; by default one per core.",
    ),
    click.option(
        "--out",
        type=FILE,
        metavar="DIR",
        default=Path("results"),
        show_default=True,
        help="Where the page and the table are written.",
    ),
    click.option("--quiet", is_flag=True, help="Show no progress."),
)


@click.command(NAME)
@click.argument("runs", metavar="RUNS", type=FILE)
@with_options(_OPTIONS)
@backend_options()
def command(
    runs: Path,
    pairs: int,
    catalogue: Path,
    seeds: int,
    folder: Path | None,
    preset: str,
    epochs: int | None,
    jobs: int | None,
    out: Path,
    quiet: bool,
) -> None:
    """Train blocks of a front, and as many at equal parameters that fail the field, side by side.

    RUNS is a folder with a file for each trained network: after an interruption the same command
    goes on. Writes tournament.md, which states what it shows and what it does not, and
    tournament.csv, which `ifspace validate` reads.
    """
    check_installed(TORCH, "networks are trained with them", extras="torch,train")
    from benchmarks.measure import write_results
    from experiments.training import preset as schedule_of
    from experiments.training.tournament.page import paragraphs, table_rows
    from experiments.training.tournament.pairs import pairs_of
    from experiments.training.tournament.runs import Tournament, images_in, run_tournament
    from ifspace.bench.record import provenance
    from ifspace.catalogue.dataset import load
    from ifspace.folder import LocalFolder
    from ifspace.storage import check_writable

    schedule = schedule_of(preset)
    schedule = schedule if epochs is None else schedule.for_epochs(epochs)
    images_in(folder)  # before seconds of work: raises where there are none
    tournament = Tournament(pairs_of(load(catalogue), pairs), schedule, seeds, folder)
    out.mkdir(parents=True, exist_ok=True)
    check_writable(out / f"{NAME}.md")
    with ProgressBar("training", quiet=quiet) as bar:
        rows = run_tournament(tournament, LocalFolder(runs), jobs, bar)
    choices = {
        "pairs": (pairs, PAIRS),
        "seeds": (seeds, SEEDS),
        "folder": (folder and "CIFAR", None),
        "preset": (preset, "few-images"),
        "epochs": (epochs, None),
    }
    options = "".join(f" --{name} {one}" for name, (one, usual) in choices.items() if one != usual)
    program = f"python -m experiments.training.tournament RUNS{options}"
    page = paragraphs(tournament, rows, str(provenance(program)))
    write_results(out, NAME, page, table_rows(tournament, rows), program, line_end="\n")
