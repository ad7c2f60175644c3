"""What the commands that call a solver share: that it is there, and how they end without a plan."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ifspace.cli.options import NO_ANSWER, TIME_RAN_OUT


@contextmanager
def solver_needed(what: str, otherwise: str = "") -> Iterator[None]:
    """Import inside: where OR-Tools is missing, say that `what` is found with it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ortools":
            raise
        raise click.ClickException(
            f"OR-Tools is not installed: {what} are found with it; "
            f"install ifspace[solver]{otherwise}"
        ) from None


def no_plan(context: click.Context, said: str, time_ran_out: bool) -> None:
    """Say on stderr why there is no plan, and end with the exit status that tells the reasons."""
    click.echo(f"ifspace: {said}", err=True)
    context.exit(TIME_RAN_OUT if time_ran_out else NO_ANSWER)
