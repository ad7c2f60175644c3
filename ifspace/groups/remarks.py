"""What a reader should know of the plans of `ifspace groups`: other pixels, a layer to spare."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ifspace.groups.problem import GroupPlan
from ifspace.reach import Reference, field_after, quality, removable_layers


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a plan stands to the convolutions it competes with, decided on the exact field.

    `field` is (pixels, channels); `removable` counts the layers of all copies from 0. They mean
    what `ifspace show` means by them: without widths inside, what can go is asked at width C.

    Reference: [3DRF] section 4.2.
    """

    field: tuple[int, int]
    quality: bool
    removable: tuple[int, ...]

    @property
    def compact(self) -> bool:
        """Whether no single layer can go."""
        return not self.removable


def judge(plan: GroupPlan) -> Judgement:
    """Return the judgement on a plan.

    >>> from ifspace.block import Block
    >>> from ifspace.groups.problem import GroupsProblem
    >>> block = Block.parse("DW+PW+SH(2)")
    >>> judge(GroupPlan(GroupsProblem(block.composition, 64), block))
    Judgement(field=(3, 64), quality=True, removable=(2,))
    """
    problem, sized = plan.problem, plan.sized
    reference = _reference(plan)
    # A change of width alone is no reason to keep a layer, see `ifspace.show.describe`.
    inside = problem.bottleneck is not None or problem.widths is not None
    even = sized if inside else plan.block.at(problem.channels, dims=problem.dims)
    return Judgement(
        field_after(sized)[-1], quality(sized, reference), removable_layers(even, reference)
    )


def _reference(plan: GroupPlan) -> Reference:
    return Reference(plan.problem.kernel, plan.block.repeats)


def remarks(plans: Sequence[GroupPlan], judgements: Sequence[Judgement]) -> list[str]:
    """Return each remark once, with the numbers of the plans it is on where there are several.

    >>> from ifspace.block import Block
    >>> from ifspace.groups.problem import GroupsProblem
    >>> block = Block.parse("RPW(8,0)+GPW(8)")
    >>> plan = GroupPlan(GroupsProblem(block.composition, 64), block)
    >>> remarks([plan], [judge(plan)])
    ['sees 1×1 pixels, a CONV(3) sees 3×3']
    """
    found: dict[str, list[int]] = {}
    for number, (plan, judgement) in enumerate(zip(plans, judgements, strict=True), start=1):
        for text in (_pixels(plan, judgement), _spare(plan, judgement)):
            if text:
                found.setdefault(text, []).append(number)
    if len(plans) == 1:
        return list(found)
    return [f"{spans(numbers)}: {text}" for text, numbers in found.items()]


def _pixels(plan: GroupPlan, judgement: Judgement) -> str:
    reference = _reference(plan)
    side = judgement.field[0]
    if side == reference.side:
        return ""
    seen, wanted = ("×".join([str(each)] * plan.problem.dims) for each in (side, reference.side))
    one = reference.repeats == 1
    name = f"{'a' if one else reference.repeats} CONV({reference.kernel})"
    return f"sees {seen} pixels, {name} {'sees' if one else 'see'} {wanted}"


def _spare(plan: GroupPlan, judgement: Judgement) -> str:
    kinds = [layer.layer.kind for layer in plan.sized.layers]
    spare = dict.fromkeys(kinds[place] for place in judgement.removable)
    if not spare:
        return ""
    names = " or ".join(f"one {kind}" if kinds.count(kind) > 1 else kind for kind in spare)
    # Widths inside are nothing that `show` takes.
    return f"{names} can go" + (", see `ifspace show`" if plan.problem.widths is None else "")


def spans(numbers: Iterable[int]) -> str:
    """Return ascending numbers as a reader lists them.

    >>> spans([1, 2, 3, 5])
    '1–3, 5'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("–".join(map(str, run)) for run in runs)
