"""`python -m experiments.training`: see `--help`."""

from experiments.training.command import command
from ifspace.cli.main import main

main(program=command, name="python -m experiments.training")
