"""Budgets and energies of [Layout] Tables 1, 2, 4 and 5, and their ranks among all layouts."""

from collections.abc import Iterator
from functools import cache
from typing import Final

from experiments.reproduction.page import (
    Judged,
    Outcome,
    Reading,
    Section,
    Verdict,
    agrees,
    matched,
    signed,
)
from experiments.reproduction.printed import (
    LEARNED,
    LEAST_WIDTH,
    LISTED,
    NAMED_ENERGIES,
    RESIDUAL,
    RESIDUAL_ENERGIES,
    RESIDUAL_LAYOUTS,
    Widths,
)
from ifspace.energy.problem import (
    EnergyPlan,
    EnergyProblem,
)
from ifspace.energy.solve import best_energy, rank

NAME: Final = "E"
PAPER: Final = "[Layout]"
NUMBERS: Final = {3: "Three", 4: "Four"}


@cache
def all_layouts(problem: EnergyProblem) -> tuple[Widths, ...]:
    """Return all layouts of a problem, greatest energy first; only for problems with few."""
    return tuple(plan.widths for plan in best_energy(problem, top=10_000).plans)


def layout_section() -> Section:
    """Return the section of the page."""
    return Section(
        "[Layout] Tables 1, 2, 4 and 5: budgets and energies",
        [
            "Weights are divided by 9. The paper asks for n_i < n_(i+1), but Tables 1, 2 and 4 "
            "have neighbours that are equal.",
            "### How many layouts there are",
            "Cells of Tables 1 and 2 with their labels, and Table 4. *Read*: entries in the text; "
            f"*distinct*: without repetitions; *exist*: all layouts with n_1 ≥ {LEAST_WIDTH}, the "
            "least width in Tables 1 and 2 (Table 4: all).",
            numbers_table(),
            "### Tables 1 and 2: entries and their budgets",
            "An entry that misses its budget is shown with the layouts that meet it and differ in "
            "one width.",
            budgets_table(),
            "### Table 4: energies",
            "Units of 1, 10, 10 and 10 convolutions. *Rank*: among all with n_i ≤ n_(i+1); *gap*: "
            "energy below the greatest.",
            residual_table(),
            "### Table 5: six learned best layouts",
            "A row matches when the layout meets its budget and has one of the six greatest "
            "energies. The paper prints no energies in this table.",
            learned_table(),
            "### Section 4.2: two energies without their layouts",
            "Which entries of Tables 1, 2 and 5 have the energies that the text names?",
            named_energies_table(),
        ],
        (
            Reading(
                NAME,
                "[Layout] all tables",
                "eq. 3 with the natural logarithm, one factor for each unit, the budget met "
                "exactly; n_i ≤ n_(i+1) in Tables 1, 2 and 4, < in Table 5",
            ),
        ),
    )


def problem_of(layout: Widths, budget: int) -> EnergyProblem:
    """Return the problem that an entry of Table 1 or 2 answers."""
    return EnergyProblem(budget, layers=len(layout), nondecreasing=True)


def numbers_table() -> Judged:
    """Return how many layouts the paper counts and lists, and how many exist."""
    rows: list[tuple[object, ...]] = []
    verdicts = []
    for cell in LISTED:
        depth = len(cell.layouts[0])
        word, _, stated = cell.label.partition(" Convs/")
        exist = None
        if depth == 3:
            wide = all_layouts(problem_of(cell.layouts[0], cell.budget))
            exist = f"{sum(widths[0] >= LEAST_WIDTH for widths in wide):,}"
        read, distinct = len(cell.layouts), len(set(cell.layouts))
        rows.append((f"Table {cell.table}", cell.label, read, distinct, exist))
        if word != NUMBERS[depth]:
            verdict = Verdict(
                Outcome.MISPRINT, f"the label says {word.lower()}, every entry has {depth} widths"
            )
        elif int(stated) == distinct:
            verdict = Verdict(Outcome.MATCH, NAME)
        else:
            verdict = Verdict(Outcome.NO_READING, f"{signed(distinct - int(stated), 0)} distinct")
        verdicts.append(verdict)
    units, budget = RESIDUAL
    strict = len(all_layouts(EnergyProblem(budget, repeats=units)))
    wide_count = len(all_layouts(EnergyProblem(budget, repeats=units, nondecreasing=True)))
    listed = len(RESIDUAL_ENERGIES)
    rows.append(
        (
            "Table 4",
            f"{RESIDUAL_LAYOUTS} in the text",
            listed,
            listed,
            f"{strict} with <, {wide_count} with ≤",
        )
    )
    if strict == RESIDUAL_LAYOUTS and wide_count == listed:
        verdicts.append(
            Verdict(
                Outcome.MISPRINT,
                f"the text counts {RESIDUAL_LAYOUTS} layouts, those with <; the table lists "
                f"{listed}, those with ≤",
            )
        )
    else:
        verdicts.append(Verdict(Outcome.NO_READING, f"{strict} with <, {wide_count} with ≤"))
    return Judged(
        PAPER,
        "how many layouts",
        ("table", "label", ">read", ">distinct", ">exist"),
        tuple(rows),
        tuple(verdicts),
    )


def near_misses(layout: Widths, budget: int) -> Iterator[Widths]:
    """Yield the layouts that meet a budget and differ from one in one width.

    >>> list(near_misses((36, 43, 58), 4288))
    [(39, 43, 58)]
    """
    problem = problem_of(layout, budget)
    for index in range(len(layout)):
        low = layout[index - 1] if index else 1
        high = layout[index + 1] if index + 1 < len(layout) else budget // max(low, 1)
        for width in range(low, high + 1):
            other = (*layout[:index], width, *layout[index + 1 :])
            if other != layout and problem.weights(other) == budget:
                yield other


def misses_budget(layout: Widths, budget: int) -> int:
    """Return by how many weights a layout is off its budget.

    >>> misses_budget((36, 43, 58), 4288)
    -138
    """
    return int(problem_of(layout, budget).weights(layout) - budget)


def budgets_table() -> Judged:
    """Return one row for each table of layouts, and one for each entry that misses its budget."""
    rows: list[tuple[object, ...]] = []
    verdicts = []
    for table in (1, 2):
        cells = [cell for cell in LISTED if cell.table == table]
        entries = [(cell.budget, layout) for cell in cells for layout in cell.layouts]
        wrong = [(layout, budget) for budget, layout in entries if misses_budget(layout, budget)]
        meeting = len(entries) - len(wrong)
        rows.append((table, f"{meeting} of {len(entries)} entries meet {cells[0].budget:,}", None))
        verdicts.append(Verdict(Outcome.MATCH, NAME))
        for layout, budget in wrong:
            others = " ".join(map(named, near_misses(layout, budget)))
            weights = budget + misses_budget(layout, budget)
            rows.append((table, named(layout), f"{weights:,}"))
            verdicts.append(
                Verdict(
                    Outcome.MISPRINT,
                    f"{signed(weights - budget, 0)} weights; {others or 'no one width'} would do",
                )
            )
    return Judged(
        PAPER,
        "Tables 1 and 2: budgets",
        ("table", "entries", ">weights"),
        tuple(rows),
        tuple(verdicts),
    )


def named(layout: Widths) -> str:
    """Return a layout as the paper writes it.

    >>> named((8, 13, 320))
    '(8,13,320)'
    """
    return f"({','.join(map(str, layout))})"


def residual_table() -> Judged:
    """Return Table 4 beside the computed energies and ranks."""
    units, budget = RESIDUAL
    problem = EnergyProblem(budget, repeats=units, nondecreasing=True)
    best = best_energy(problem).plans[0].energy()
    rows, verdicts = [], []
    for layout, printed in RESIDUAL_ENERGIES:
        plan = EnergyPlan(problem, layout)
        rows.append(
            (
                named(layout),
                f"{plan.weights():,}",
                printed,
                f"{plan.energy():.4f}",
                str(rank(problem, layout)),
                f"{100 * (1 - plan.energy() / best):.1f}%",
            )
        )
        verdicts.append(judge_energy(layout, printed, plan))
    return Judged(
        PAPER,
        "Table 4: energies",
        ("layout", ">weights", ">printed", ">ours", ">rank", ">gap"),
        tuple(rows),
        tuple(verdicts),
    )


def judge_energy(layout: Widths, printed: str, plan: EnergyPlan) -> Verdict:
    """Return the verdict of a row of Table 4."""
    verdict = matched(NAME, printed, plan.energy())
    if verdict is not None and plan.weights() == plan.problem.budget:
        return verdict
    _, _, decimals = printed.partition(".")
    same = [
        other
        for other, text in RESIDUAL_ENERGIES
        if other != layout and decimals and text.endswith(f".{decimals}")
    ]
    if same:
        return Verdict(
            Outcome.MISPRINT,
            f"its decimals are those of {named(same[0])}; the energy is {plan.energy():.4f}",
        )
    return Verdict(Outcome.NO_READING, f"the energy is {plan.energy():.4f}")


def learned_table() -> Judged:
    """Return Table 5 with the ranks among all layouts."""
    rows, verdicts = [], []
    for budget, layouts in LEARNED:
        problem = EnergyProblem(budget, layers=len(layouts[0]))
        best = best_energy(problem).plans[0].energy()
        for layout in layouts:
            plan, standing = EnergyPlan(problem, layout), rank(problem, layout)
            among = standing.exact and standing.greater < len(layouts)
            good = among and plan.weights() == budget
            rows.append(
                (
                    f"{budget:,}",
                    named(layout),
                    f"{plan.weights():,}",
                    f"{plan.energy():.4f}",
                    str(standing),
                    f"{100 * (1 - plan.energy() / best):.2f}%",
                )
            )
            verdicts.append(
                Verdict(Outcome.MATCH, NAME)
                if good
                else Verdict(Outcome.NO_READING, f"rank {standing}")
            )
    return Judged(
        PAPER,
        "Table 5: best",
        (">budget", "layout", ">weights", ">energy", ">rank", ">gap"),
        tuple(rows),
        tuple(verdicts),
    )


def named_energies_table() -> Judged:
    """Return for each energy in the paper's text the printed layouts that have it."""
    printed = [(cell.budget, layout) for cell in LISTED for layout in cell.layouts]
    printed += [(budget, layout) for budget, layouts in LEARNED for layout in layouts]
    plans = [EnergyPlan(problem_of(layout, budget), layout) for budget, layout in printed]
    rows, verdicts = [], []
    for energy in NAMED_ENERGIES:
        matching = [plan for plan in plans if agrees(energy, plan.energy())]
        rows.append(
            (
                energy,
                " ".join(named(plan.widths) for plan in matching),
                ", ".join(f"{plan.energy():.4f}" for plan in matching),
            )
        )
        verdict = matched(NAME, energy, matching[0].energy()) if matching else None
        verdicts.append(verdict or Verdict(Outcome.NO_READING, f"{len(plans)} printed layouts"))
    return Judged(
        PAPER,
        "section 4.2: energies",
        (">printed", "layout", ">ours"),
        tuple(rows),
        tuple(verdicts),
    )
