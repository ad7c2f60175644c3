"""Budgets and energies of [Layout] Tables 1, 2, 4 and 5, and their ranks among all layouts."""

from collections.abc import Iterator
from functools import cache

from experiments.reproduction.page import (
    MATCH,
    Judged,
    Section,
    as_table,
    signed,
    verdict,
)
from experiments.reproduction.printed import (
    LEARNED,
    LEAST_WIDTH,
    LISTED,
    NAMED_ENERGIES,
    RESIDUAL,
    RESIDUAL_ENERGIES,
    RESIDUAL_LAYOUTS,
    Listed,
    Widths,
)
from ifspace.energy.problem import (
    EnergyPlan,
    EnergyProblem,
)
from ifspace.energy.solve import best_energy, rank
from ifspace.table import Table


@cache
def all_layouts(problem: EnergyProblem) -> tuple[Widths, ...]:
    """Return all layouts of a problem, greatest energy first; only for problems with few."""
    return tuple(plan.widths for plan in best_energy(problem, top=10_000).plans)


def layout_section() -> Section:
    """Return the section of the page."""
    parts: list[str | Table | Judged] = [
        "Weights are divided by 9. The paper asks for n_i < n_(i+1), but Tables 1, 2 and 4 have "
        "neighbours that are equal: there `≤` is taken, for Table 5 `<`.",
        "### How many layouts there are",
        "Cells of Tables 1 and 2 with their labels, and Table 4. *Read*: entries in the text; "
        f"*distinct*: without repetitions; *exist*: all layouts with n_1 ≥ {LEAST_WIDTH}, the "
        "least width in Tables 1 and 2 (Table 4: all). The second cell of Table 1 is labelled "
        "three convolutions and lists four. Every entry of the text could be read.",
        numbers_table(),
        "### Tables 1 and 2: entries that miss their budget",
        "*Would meet it*: layouts that do and differ in one width.",
        as_table(["table", "layout", "weights", "off", "would meet it"], misprints()),
        "### Table 4: energies",
        "Units of 1, 10, 10 and 10 convolutions. *Rank*: among all with n_i ≤ n_(i+1); *gap*: "
        "energy below the greatest. The decimals printed for (16,16,32,64) are those of the row "
        "after it.",
        residual_table(),
        "### Table 5: six learned best layouts",
        "A row matches when the layout meets its budget and has one of the six greatest energies. "
        "The paper prints no energies in this table.",
        learned_table(),
        "### Section 4.2: two energies without their layouts",
        "Which entries of Tables 1, 2 and 5 have the energies that the text names?",
        named_energies_table(),
    ]
    names = [
        "[Layout] how many layouts",
        "[Layout] Table 4: energies",
        "[Layout] Table 5: best",
        "[Layout] section 4.2: energies",
    ]
    for cell in LISTED:
        depth = len(cell.layouts[0])
        parts += [
            f"### Table {cell.table}: {depth} convolutions, {cell.budget:,} weights",
            listed_table(cell),
        ]
        names.append(f"[Layout] Table {cell.table}: budgets, {depth} convolutions")
    return Section("[Layout] Tables 1, 2, 4 and 5: budgets and energies", parts, names)


def problem_of(layout: Widths, budget: int) -> EnergyProblem:
    """Return the problem that an entry of Table 1 or 2 answers."""
    return EnergyProblem(budget, layers=len(layout), nondecreasing=True)


def numbers_table() -> Judged:
    """Return how many layouts the paper counts and lists, and how many exist."""
    rows: list[list[object]] = []
    for cell in LISTED:
        depth = len(cell.layouts[0])
        stated = int(cell.label.rpartition("/")[2])
        wide = problem_of(cell.layouts[0], cell.budget)
        exist = (
            f"{sum(w[0] >= LEAST_WIDTH for w in all_layouts(wide)):,}"
            if depth == 3
            else "not counted"
        )
        read, distinct = len(cell.layouts), len(set(cell.layouts))
        rows.append(
            [
                f"{cell.table}, {depth} convolutions",
                cell.label,
                read,
                distinct,
                exist,
                MATCH if stated == distinct else f"{signed(distinct - stated, 0)} distinct",
            ]
        )
    units, budget = RESIDUAL
    strict = len(all_layouts(EnergyProblem(budget, repeats=units)))
    wide_count = len(all_layouts(EnergyProblem(budget, repeats=units, nondecreasing=True)))
    listed = len(RESIDUAL_ENERGIES)
    judged = MATCH if strict == RESIDUAL_LAYOUTS else f"{strict} with <"
    rows.append(
        [
            "4, residual",
            f"{RESIDUAL_LAYOUTS} in the text",
            listed,
            listed,
            f"{strict} with <, {wide_count} with ≤",
            judged,
        ]
    )
    return Judged(as_table(["table", "label", "read", "distinct", "exist", "verdict"], rows))


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


def misprints() -> list[list[object]]:
    """Return the entries of Tables 1 and 2 that miss their budgets."""
    rows: list[list[object]] = []
    for cell in LISTED:
        for layout in cell.layouts:
            weights = problem_of(layout, cell.budget).weights(layout)
            if weights != cell.budget:
                others = " ".join(map(named, near_misses(layout, cell.budget)))
                rows.append(
                    [
                        cell.table,
                        named(layout),
                        f"{weights:,}",
                        signed(weights - cell.budget, 0),
                        others or "none",
                    ]
                )
    return rows


def named(layout: Widths) -> str:
    """Return a layout as the paper writes it.

    >>> named((8, 13, 320))
    '(8,13,320)'
    """
    return f"({','.join(map(str, layout))})"


def listed_table(cell: Listed) -> Judged:
    """Return the entries of a cell with their weights and energies."""
    rows = []
    best = best_energy(problem_of(cell.layouts[0], cell.budget)).plans[0].energy()
    for layout in cell.layouts:
        plan = EnergyPlan(problem_of(layout, cell.budget), layout)
        off = plan.weights() - cell.budget
        judged = f"{signed(off, 0)} weights" if off else MATCH
        rows.append(
            [
                named(layout),
                f"{plan.weights():,}",
                f"{plan.energy():.3f}",
                f"{100 * plan.energy() / best:.1f}%",
                judged,
            ]
        )
    return Judged(as_table(["layout", "weights", "energy", "of the best", "verdict"], rows))


def residual_table() -> Judged:
    """Return Table 4 beside the computed energies and ranks."""
    units, budget = RESIDUAL
    problem = EnergyProblem(budget, repeats=units, nondecreasing=True)
    best = best_energy(problem).plans[0].energy()
    rows = []
    for layout, printed in RESIDUAL_ENERGIES:
        plan = EnergyPlan(problem, layout)
        judged = verdict(printed, plan.energy())
        if plan.weights() != budget:
            judged += f"; {signed(plan.weights() - budget, 0)} weights"
        rows.append(
            [
                named(layout),
                f"{plan.weights():,}",
                printed,
                f"{plan.energy():.4f}",
                str(rank(problem, layout)),
                f"{100 * (1 - plan.energy() / best):.1f}%",
                judged,
            ]
        )
    return Judged(
        as_table(["layout", "weights", "printed", "ours", "rank", "gap", "verdict"], rows)
    )


def learned_table() -> Judged:
    """Return Table 5 with the ranks among all layouts."""
    rows = []
    for budget, layouts in LEARNED:
        problem = EnergyProblem(budget, layers=len(layouts[0]))
        best = best_energy(problem).plans[0].energy()
        for layout in layouts:
            plan, standing = EnergyPlan(problem, layout), rank(problem, layout)
            missed = plan.weights() != budget
            among = standing.exact and standing.greater < len(layouts)
            judged = MATCH if among and not missed else f"rank {standing}"
            rows.append(
                [
                    f"{budget:,}",
                    named(layout),
                    f"{plan.weights():,}",
                    f"{plan.energy():.4f}",
                    str(standing),
                    f"{100 * (1 - plan.energy() / best):.2f}%",
                    judged + (f"; {signed(plan.weights() - budget, 0)} weights" if missed else ""),
                ]
            )
    return Judged(
        as_table(["budget", "layout", "weights", "energy", "rank", "gap", "verdict"], rows)
    )


def named_energies_table() -> Judged:
    """Return for each energy in the paper's text the printed layouts that have it."""
    printed = [(cell.budget, layout) for cell in LISTED for layout in cell.layouts]
    printed += [(budget, layout) for budget, layouts in LEARNED for layout in layouts]
    plans = [EnergyPlan(problem_of(layout, budget), layout) for budget, layout in printed]
    rows = []
    for energy in NAMED_ENERGIES:
        matching = [plan for plan in plans if verdict(energy, plan.energy()).startswith(MATCH)]
        judged = verdict(energy, matching[0].energy()) if matching else "no entry has it"
        rows.append(
            [
                energy,
                " ".join(named(plan.widths) for plan in matching),
                ", ".join(f"{plan.energy():.4f}" for plan in matching),
                judged,
            ]
        )
    return Judged(as_table(["printed", "layout", "ours", "verdict"], rows))
