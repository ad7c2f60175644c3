"""`python -m experiments.training.tournament`: see `--help`."""

from experiments.training.tournament.command import command
from ifspace.cli.main import main

main(program=command, name="python -m experiments.training.tournament")
