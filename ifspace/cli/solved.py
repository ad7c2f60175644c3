"""What the commands that call a solver share: that it is there, and how they end without a plan."""

from importlib.util import find_spec

import click

from ifspace.cli.options import NO_ANSWER, TIME_RAN_OUT


def check_solver(what: str, otherwise: str = "") -> None:
    """Refuse to go on without OR-Tools, with which `what` is found."""
    if find_spec("ortools") is None:
        raise click.ClickException(
            f"OR-Tools is not installed: {what} are found with it; "
            f"install ifspace[solver]{otherwise}"
        )


def no_plan(context: click.Context, said: str, time_ran_out: bool) -> None:
    """Say on stderr why there is no plan, and end with the exit status that tells the reasons."""
    click.echo(f"ifspace: {said}", err=True)
    context.exit(TIME_RAN_OUT if time_ran_out else NO_ANSWER)
