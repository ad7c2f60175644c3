"""`ifspace energy`: the widths of greatest layout energy within a budget of weights."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from ifspace.cli.options import (
    AMOUNT,
    INTEGER,
    NUMBERS,
    OneOf,
    Output,
    no_plan,
    output_options,
    shared,
    with_options,
)
from ifspace.cli.requirements import check_solver

if TYPE_CHECKING:
    from ifspace.cli.options import Forms
    from ifspace.energy.problem import EnergyAnswer, EnergyProblem


_OPTIONS = (
    click.option(
        "--layers", type=INTEGER, metavar="N", help="Number of convolutions, each a unit."
    ),
    click.option(
        "--repeats",
        type=NUMBERS,
        metavar="LIST",
        help="Or units: the number of convolutions of one width in each, such as 1,10,10,10.",
    ),
    click.option(
        "--budget",
        type=AMOUNT,
        metavar="B",
        required=True,
        help="Weights divided by the kernel's area k x k, to be met exactly: 50k are "
        "450,000 parameters of 3 x 3 kernels.",
    ),
    click.option("--at-most", is_flag=True, help="Stay within the budget instead of meeting it."),
    click.option("--nondecreasing", is_flag=True, help="Let neighbours have the same width."),
    click.option(
        "--inputs",
        type=INTEGER,
        metavar="N",
        default=3,
        show_default=True,
        help="Channels of the image.",
    ),
    shared("kernel", default=3, help="Kernel size k, odd: parameters are k x k times the weights."),
    click.option(
        "--per",
        type=OneOf(["unit", "convolution"]),
        default="unit",
        show_default=True,
        help="What gives a factor to the energy.",
    ),
    click.option(
        "--method",
        type=OneOf(["auto", "cpsat", "exact"]),
        default="auto",
        show_default=True,
        help="Search method; auto is exact, the faster; cpsat needs OR-Tools.",
    ),
    shared("top", default=1, help="Number of layouts, greatest energy first."),
    shared("time-limit", help="Stop then, with the best layout so far and its bound."),
)
_MESSAGES: Final = {
    "optimal": "proven: no layout of this budget has more energy",
    "feasible": "time ran out: the best found so far, with the bound beside it",
    "infeasible": "proven: no layout meets the budget",
    "unknown": "time ran out before a layout was found; give it more with --time-limit",
}
# The longest list of units in a title, so that the line has at most 80 columns.
_LONGEST_LIST: Final = 60
_COLUMNS: Final = ("widths", "energy", "params", "weights", "depth", "width_sum")


@click.command("energy", short_help="Find the layer widths of greatest layout energy.")
@with_options(_OPTIONS)
@output_options()
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Output,
    method: str,
    top: int,
    time_limit: float | None,
    **values: Any,
) -> None:
    """Find widths n_1 < n_2 < … of a plain or residual network whose layout energy is greatest.

    The energy is the product of ln n_i. Compare it at equal depth and budget only. The answer is
    proven, or it has a bound. Amounts may end in k, M or G. Exit status 3 when no layout meets the
    budget, 4 when the time limit came first.
    """
    from ifspace.energy.problem import EnergyProblem
    from ifspace.energy.solve import best_energy, exact_energy

    problem = EnergyProblem(**values)
    search = exact_energy
    if method == "cpsat":
        check_solver("layouts", " or leave --method out")
        from ifspace.energy.cpsat import cpsat_energy as search
    started = time.monotonic()
    answer = best_energy(problem, top=top, time_limit_s=time_limit, search=search)
    out_of_time = time_limit is not None and time.monotonic() - started >= time_limit
    output.emit(_forms(problem, answer), keep=bool(answer.plans))
    if not answer.plans:
        no_plan(context, _message(problem, answer), answer.status.value == "unknown")
    for note in _notes(answer, top, out_of_time):
        output.note(note)


def _notes(answer: "EnergyAnswer", top: int, out_of_time: bool) -> Iterator[str]:
    """Yield what the answer lacks: proof, or plans."""
    gap = _gap_text(answer)
    if gap:
        yield f"not proven: {gap}"
    if len(answer.plans) < top:
        interrupted = out_of_time or answer.status.value == "feasible"
        why = "time ran out" if interrupted else "there are no more"
        yield f"{len(answer.plans)} of the {top} plans asked for were found: {why}"


def _forms(problem: "EnergyProblem", answer: "EnergyAnswer") -> "Forms":
    """Return the answer in every format."""
    from ifspace.serialize import json_text
    from ifspace.table import Table

    table = Table(
        _COLUMNS,
        tuple(
            (
                ",".join(map(str, plan.widths)),
                plan.energy(),
                plan.params,
                plan.weights(),
                problem.depth,
                plan.width_sum,
            )
            for plan in answer.plans
        ),
    )
    values = {
        "status": answer.status.value,
        "message": _message(problem, answer),
        "bound": answer.bound,
        "gap": answer.gap,
        "budget": problem.budget,
        "repeats": problem.units,
        "below": answer.below,
        "above": answer.above,
        "plans": [
            record | {"widths": plan.widths}
            for plan, record in zip(answer.plans, table.records(), strict=True)
        ],
    }
    return {
        "table": lambda: _text(problem, answer),
        "json": lambda: json_text(values),
        "csv": table.csv,
        "markdown": table.markdown,
    }


def _text(problem: "EnergyProblem", answer: "EnergyAnswer") -> str:
    from ifspace.table import Table, facts

    if not answer.plans:
        return ""
    rows = tuple(
        (
            number,
            ",".join(map(str, plan.widths)),
            _energy_text(plan.energy()),
            plan.params,
            plan.weights(),
            problem.depth,
            plan.width_sum,
        )
        for number, plan in enumerate(answer.plans, start=1)
    )
    lines = [
        ("budget", _budget_text(problem)),
        ("status", f"{answer.status.value}, {_message(problem, answer)}"),
    ]
    if answer.bound is not None:
        reached = f"{_energy_text(answer.bound)}, which the first one reaches"
        lines.append(("bound", _gap_text(answer) or reached))
    columns = (">#", "widths~", ">energy", ">params", ">weights", ">depth", ">Σwidth")
    title = f"Greatest energy of {_units_text(problem)}"
    return Table(columns, rows, title).text() + "\n" + facts(lines)


def _units_text(problem: "EnergyProblem") -> str:
    """Return what the network consists of, short enough for a title."""
    count = len(problem.units)
    if problem.depth == count:
        return f"{count} layer{'s' if count > 1 else ''}"
    units = f"units of {', '.join(map(str, problem.units))} convolutions"
    if len(units) <= _LONGEST_LIST:
        return units
    return f"{count} unit{'s' if count > 1 else ''} of {problem.depth} convolutions in all"


def _budget_text(problem: "EnergyProblem") -> str:
    """Return the budget in weights and in parameters, so that they are not confused."""
    limit = "at most " if problem.at_most else ""
    kernel = problem.kernel
    params = f"{kernel**2 * problem.budget:,} parameters of {kernel}×{kernel} kernels"
    return f"{limit}{problem.budget:,} weights ({params})"


def _message(problem: "EnergyProblem", answer: "EnergyAnswer") -> str:
    """Return how the search ended; without a plan with the problem and the nearest budgets."""
    message = _MESSAGES[answer.status.value]
    if answer.plans:
        return message
    budgets = [f"{budget:,}" for budget in (answer.below, answer.above) if budget is not None]
    if len(budgets) == 2:
        message += f"; the nearest below and above that are met are {' and '.join(budgets)}"
    elif budgets:
        message += f"; the least met is {budgets[0]}"
    return f"{_units_text(problem)} with {_budget_text(problem)}: {message}"


def _energy_text(energy: float) -> str:
    """Return an energy to four decimals, or of a great one the first nine digits.

    >>> _energy_text(173.0357677), _energy_text(9106515250.03)
    ('173.0358', '9.10651525e+09')
    """
    return f"{energy:,.4f}" if energy < 1e7 else f"{energy:.9g}"


def _gap_text(answer: "EnergyAnswer") -> str:
    """Return how far the best plan may be from the greatest; empty where it is proven."""
    if answer.status.value != "feasible" or answer.bound is None:
        return ""
    best = answer.plans[0].energy()
    gap = f"a gap of {1 - best / answer.bound:.2%}" if answer.bound else "no gap"
    return (
        f"the best found has {_energy_text(best)}, the bound is {_energy_text(answer.bound)}: {gap}"
    )
