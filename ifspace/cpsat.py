"""Solve a CP-SAT model with one worker and a fixed seed: the same answer every time.

This is the one entry point to OR-Tools. It imports pandas, so it is imported when a model is made:
commands without a solver start sooner.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, Final

from ifspace.answer import Status
from ifspace.errors import SettingError, SolverError

SEED: Final = 20190101
# Ends of a domain from here on stand for none.
_NO_LIMIT: Final = 1 << 61
# Prices of a relaxation are whole numbers of 1 / _PRICES.
_PRICES: Final = 1 << 20
# Numbers of the solver have 64 bits with a sign.
_TOO_LARGE: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a solve ended: status, proven bound on the objective, and values of the variables."""

    status: Status
    bound: int | None
    values: tuple[int, ...]


def new_model() -> Any:
    """Return a model without variables, a `cp_model.CpModel`.

    Raises: ModuleNotFoundError without OR-Tools.
    """
    from ortools.sat.python import cp_model

    return cp_model.CpModel()


def model_text(model: Any) -> str:
    """Return a model as text, whole: variables, constraints, objective and hints.

    >>> model = new_model()
    >>> model.minimize(3 * model.new_bool_var("a"))
    >>> model_text(model_of_text(model_text(model))) == model_text(model)
    True
    """
    return str(model.proto)


def model_of_text(text: str) -> Any:
    """Return the model of a text that `model_text` wrote, in this process or another."""
    model = new_model()
    model.proto.parse_text_format(text)
    return model


def number_among(model: Any, values: Sequence[int], name: str) -> Any:
    """Return a variable of a model that takes one of some whole numbers."""
    from ortools.sat.python import cp_model

    return model.new_int_var_from_domain(cp_model.Domain.from_values(values), name)


def weighted_sum(variables: Sequence[Any], weights: Sequence[int]) -> Any:
    """Return the sum of weights times variables as an expression of a model.

    Raises: SettingError for a weight that does not fit into 64 bits.
    """
    from ortools.sat.python import cp_model

    if max(map(abs, weights), default=0) >= _TOO_LARGE:
        raise _too_large("a weight over 2^63")
    return cp_model.LinearExpr.weighted_sum(variables, weights)


def solve(
    model: Any,
    variables: Sequence[Any],
    time_limit_s: float | None = None,
    effort: float | None = None,
    tolerance: int = 0,
) -> Outcome:
    """Return the values of some variables in the best solution of a model.

    The same model has the same answer on every machine, unless a time limit in seconds interrupts
    the search. `effort`: how much work the search may do, in the solver's deterministic time (some
    seconds each), so that it ends with the same answer on every machine. `tolerance`: the search
    ends where the objective is so near to its bound; it is optimal only where both are equal. The
    bound, that of the linear relaxation where an interrupted search has none or a worse one, is
    rounded up to the next whole number, since objectives are whole.

    Raises: SettingError when the model's sums do not fit into 64 bits.
    """
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = SEED
    # OR-Tools 9.15 calls layouts optimal that are not when it simplifies a model before the search
    # (its issue 5293): a proof is worth more than the time that this may save.
    solver.parameters.cp_model_presolve = False
    # An interrupt ends the program, not only this solve.
    solver.parameters.catch_sigint_signal = False
    if effort is not None:
        solver.parameters.max_deterministic_time = effort
    solver.parameters.absolute_gap_limit = tolerance
    if time_limit_s is not None:
        solver.parameters.max_time_in_seconds = max(0.0, time_limit_s)
    code = solver.solve(model)
    if code == cp_model.MODEL_INVALID:
        raise _too_large((model.validate() or "sums over 2^63").splitlines()[0])
    if code == cp_model.INFEASIBLE:
        return Outcome(Status.INFEASIBLE, None, ())
    if code not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Outcome(Status.UNKNOWN, relaxed_bound(model, time_limit_s), ())
    # The bound is a float with some noise: it must not lift the bound to the next whole number.
    bound = ceil(solver.best_objective_bound - 1e-6) if model.has_objective() else None
    is_exact = bound is None or not tolerance or bound == round(solver.objective_value)
    status = Status.OPTIMAL if code == cp_model.OPTIMAL and is_exact else Status.FEASIBLE
    if code != cp_model.OPTIMAL:
        relaxed = relaxed_bound(model, time_limit_s)
        bound = max((value for value in (bound, relaxed) if value is not None), default=None)
    return Outcome(status, bound, tuple(int(solver.value(variable)) for variable in variables))


def _too_large(got: str) -> SettingError:
    return SettingError.because(
        "numbers too large for the solver",
        got=got,
        allowed="sums below 2^63",
        remedy="choose smaller widths, kernels or weights",
    )


def relaxed_bound(model: Any, time_limit_s: float | None) -> int | None:
    """Return what the objective of a model is at least, by its linear relaxation; None without one.

    The relaxation knows the linear constraints and those of exactly one; what else there is only
    raises the truth. Its prices come from a solver in floating point. Any prices prove a bound, so
    they are rounded, and the bound is counted from them in whole numbers. It may take a fifth of
    the time that the search had, and a second.
    """
    if not model.has_objective() or model.proto.objective.scaling_factor < 0:
        return None
    from ortools.linear_solver import pywraplp

    objective, rows = model.proto.objective, list(_linear_rows(model.proto))
    domains = [list(variable.domain) for variable in model.proto.variables]
    costs = [0] * len(domains)
    for variable, cost in zip(objective.vars, objective.coeffs, strict=True):
        costs[variable] += cost
    solver = pywraplp.Solver.CreateSolver("GLOP")
    solver.SetTimeLimit(int(1000 + 200 * (time_limit_s or 0.0)))
    variables = [solver.NumVar(domain[0], domain[-1], "") for domain in domains]
    limits = []
    for low, high, terms in rows:
        limit = solver.Constraint(
            -solver.infinity() if low <= -_NO_LIMIT else low,
            solver.infinity() if high >= _NO_LIMIT else high,
        )
        for variable, factor in terms.items():
            limit.SetCoefficient(variables[variable], factor)
        limits.append(limit)
    for variable, cost in zip(variables, costs, strict=True):
        solver.Objective().SetCoefficient(variable, cost)
    solver.Objective().SetMinimization()
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        return None
    total, left = 0, [cost * _PRICES for cost in costs]
    for (low, high, terms), limit in zip(rows, limits, strict=True):
        price = round(limit.dual_value() * _PRICES)
        end = low if price > 0 else high
        if abs(end) < _NO_LIMIT:
            total += price * end
            for variable, factor in terms.items():
                left[variable] -= price * factor
    total += sum(
        min(cost * domain[0], cost * domain[-1]) for cost, domain in zip(left, domains, strict=True)
    )
    return ceil(Fraction(total, _PRICES) + Fraction(objective.offset))


def _linear_rows(proto: Any) -> Iterator[tuple[int, int, dict[int, int]]]:
    """Yield the least, the most and the factors of each linear constraint that always holds."""
    for constraint in proto.constraints:
        if len(constraint.enforcement_literal):
            continue
        terms: dict[int, int] = {}
        if constraint.has_exactly_one():
            low = high = 1
            for literal in constraint.exactly_one.literals:
                if literal >= 0:
                    terms[literal] = terms.get(literal, 0) + 1
                else:  # the number -1 - x stands for 1 - x
                    terms[-1 - literal] = terms.get(-1 - literal, 0) - 1
                    low, high = low - 1, high - 1
        elif constraint.has_linear():
            linear = constraint.linear
            domain = list(linear.domain)
            low, high = domain[0], domain[-1]
            for variable, factor in zip(linear.vars, linear.coeffs, strict=True):
                terms[variable] = terms.get(variable, 0) + factor
        else:
            continue
        yield low, high, terms


def contradiction(got: str, allowed: str) -> SolverError:
    """Return the error to raise for answers of the solver that cannot all be true."""
    return SolverError.because(
        "the solver contradicts itself",
        got=got,
        allowed=allowed,
        remedy="report it with the command that was run",
    )


def seconds_left(deadline: float | None) -> float | None:
    """Return the seconds until a deadline of time.monotonic, 0 after it, None without one."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def least_of_cuts(
    values: Any, slopes: Any, points: Any, low: Any, high: Any, rows: Any
) -> tuple[float, Any, Any]:
    """Return the least of the largest of some planes over a box, where it is, and their shares.

    Plane i has `values` [n] at `points` [n, m] and `slopes` [n, m]; the box is `low` to `high` [m],
    and `rows` [k, m] times the place are at most 0. Shares [n] sum to 1: those with which the
    slopes of the planes balance at the least. Where the solver fails, the lowest plane's own point.
    """
    import numpy as np
    from ortools.linear_solver import pywraplp

    solver = pywraplp.Solver.CreateSolver("GLOP")
    unbounded = solver.infinity()
    height = solver.NumVar(-unbounded, unbounded, "")
    # Coordinates as shares of the box, values of the lowest plane's: the sides may differ by orders
    # of magnitude.
    sizes, lowest = high - low, int(np.argmin(values))
    unit = max(1.0, abs(float(values[lowest])))
    place = [solver.NumVar(0.0, 1.0, "") for _ in sizes]
    limits = []
    for value, slope, point in zip(values, slopes, points, strict=True):
        tilt = slope * sizes / unit
        start = float(value + slope @ (low - point)) / unit
        limits.append(
            solver.Add(
                height >= start + sum(float(t) * x for t, x in zip(tilt, place, strict=True))
            )
        )
    for row in rows:
        tilt = row * sizes / np.abs(row * sizes).max()
        total = sum(float(t) * x for t, x in zip(tilt, place, strict=True))
        solver.Add(total <= -float(row @ low) / float(np.abs(row * sizes).max()))
    solver.Minimize(height)
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        return float(values[lowest]), points[lowest], np.eye(len(values))[lowest]
    shares = np.maximum(0.0, [limit.dual_value() for limit in limits])
    where = low + sizes * np.array([x.solution_value() for x in place])
    return unit * float(height.solution_value()), where, shares / max(shares.sum(), 1e-12)
