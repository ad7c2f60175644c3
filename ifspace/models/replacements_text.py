"""The blocks in what `ifspace optimize` prints: what became which block, what stayed and why."""

from typing import Any

from ifspace.answer import Status
from ifspace.catalogue.export import ratio_text
from ifspace.models.decomposition import Decomposition
from ifspace.models.optimizing import Optimized
from ifspace.models.options import some
from ifspace.models.warm_start import Fit
from ifspace.stages.text import amounts_text, short
from ifspace.table import (
    facts,
    heading,
    table,
)

_SAID = {
    Status.OPTIMAL: "proven: within the budgets nothing is better",
    Status.FEASIBLE: "time ran out: the best found so far",
}
# Why a layer stays that a block fits, by what decides.
_WHY = {"keep": "the budgets ask for no more"}
_LESS = "no less of what decides with a block"


def replaced_values(found: Optimized) -> dict[str, Any]:
    """Return the blocks as values that JSON has."""
    plan = found.blocks
    if plan is None:
        return {"blocks": None, "replaced": [], "kept": [], "skipped": []}
    answer, fits = plan.answer, {fit.name: fit for fit in plan.fits}
    return {
        "blocks": {
            "objective": found.wanted.chosen_objective,
            "status": None if answer is None else answer.status.name.lower(),
            "left_out": [] if answer is None else list(answer.left_out),
        },
        "replaced": [
            {
                "name": each.name,
                "block": str(each.sized.block),
                "stride": each.step.stride,
                "params": list(each.params),
                "macs": list(each.macs),
                "field": [list(field) for field in each.fields],
                "fit": _fit(fits.get(each.name)),
            }
            for each in plan.replaced
        ],
        "kept": _kept(plan),
        "skipped": [{"name": each.name, "reason": each.reason} for each in plan.skipped],
    }


def replaced(found: Optimized) -> str:
    """Return the blocks as a table with a row a convolution, and what there is to say of them."""
    plan = found.blocks
    if plan is None:
        return ""
    fits = {fit.name: fit for fit in plan.fits}
    columns = ["layer", "block~", ">params", ">×", ">MACs", ">×"]
    columns += [">error", ">drawn", ">unseen"] if fits else []
    rows: list[list[Any]] = []
    for each in plan.replaced:
        row = [each.name, str(each.sized.block)]
        for before, after in (each.params, each.macs):
            row += [short(after), ratio_text(after / before)]
        rows.append(row + (_errors(fits.get(each.name)) if fits else []))
    total = len(plan.replaced) + len(_kept(plan)) + len(plan.skipped)
    text = heading(f"Replaced: {len(plan.replaced)} of {total} convolutions")
    said = _said(found, plan)
    return text + (table(columns, rows) if rows else "") + ("\n" + facts(said) if said else "")


def _kept(plan: Decomposition) -> list[str]:
    """Return the layers that a block fits and that stay all the same."""
    if plan.answer is None or plan.answer.plan is None:
        return []
    done = {each.name for each in plan.replaced}
    return [site.name for site in plan.answer.plan.problem.sites if site.name not in done]


def _fit(fit: Fit | None) -> dict[str, Any] | None:
    if fit is None:
        return None
    names = ("error", "random", "scaled", "unseen", "pixels")
    return {name: getattr(fit, name) for name in names}


def _errors(fit: Fit | None) -> list[str]:
    found = (None,) * 3 if fit is None else (fit.error, fit.random, fit.unseen)
    return ["" if each is None else f"{each:.3f}" for each in found]


def _narrow(plan: Decomposition) -> list[tuple[str, str]]:
    """Return which blocks see less than the convolution that they replace."""
    fields: dict[str, list[str]] = {}
    for each in plan.replaced:
        if each.sees_less:
            before, after = (f"{side}×{side}×{channels}" for side, channels in each.fields)
            fields.setdefault(f"{after} of {before}", []).append(each.name)
    lines = [f"{some(names)}: {field}" for field, names in fields.items()]
    lines += ["--cheapest takes blocks with the full field"] if lines else []
    return list(zip(["sees less", *[""] * len(lines)], lines, strict=False))


def _said(found: Optimized, plan: Decomposition) -> list[tuple[str, str]]:
    said = []
    reasons: dict[str, list[str]] = {}
    for each in plan.skipped:
        reasons.setdefault(each.reason, []).append(each.name)
    lines = [f"{some(names)}: {reason}" for reason, names in reasons.items()]
    if kept := _kept(plan):
        lines.append(f"{some(kept)}: {_WHY.get(found.wanted.chosen_objective, _LESS)}")
    said += list(zip(["kept", *[""] * len(lines)], lines, strict=False))
    said += _narrow(plan)
    answer = plan.answer
    if answer is not None and answer.plan is not None:
        said.append(("status", f"{answer.status.name.lower()}, {_SAID[answer.status]}"))
        left = {
            name: most - getattr(found.after, name)
            for name, most in plan.budgets.given.items()
            if name != "latency_ms"
        }
        said += [("left over", amounts_text(left))] if left else []
        said += [("left out", some(answer.left_out, 3))] if answer.left_out else []
    if plan.fits:
        said += [
            (
                "error",
                "what a fitted block leaves of its convolution's output y, |y - block|² / "
                "|y|², on images of noise",
            ),
            ("drawn", "the same before the fit; unseen: on images kept out of it"),
        ]
    return said
