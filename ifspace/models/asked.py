"""What a person asks of a decomposition, made canonical: blocks to choose from, and budgets."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Final

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.nn.checks import wrong_type
from ifspace.stages.problem import Budgets
from ifspace.stages.replacement import ORDERS
from ifspace.values import amount

CHEAPEST: Final = "cheapest"
Given = Block | str


def blocks_asked(block: Given | None, blocks: Iterable[Given] | None) -> tuple[Block, ...] | None:
    """Return the blocks to choose from, None for those with the full field."""
    if blocks is not None and block is not None:
        raise SettingError.because(
            "blocks said twice",
            got="block and blocks",
            allowed="one of them",
            remedy="put all into blocks",
            argument="blocks",
        )
    if blocks is None and (block is None or str(block).lower() == CHEAPEST):
        return None
    several = [block] if blocks is None else [blocks] if isinstance(blocks, str) else list(blocks)
    for each in several or [None]:
        if not isinstance(each, Block | str):
            raise wrong_type(
                "block",
                each,
                'a block such as "DW+PW", a Block, or "cheapest"',
                "write it in the notation",
            )
    return tuple(dict.fromkeys(b if isinstance(b, Block) else Block.parse(str(b)) for b in several))


def budgets_asked(
    params: Any, macs: Any, latency: Any, latency_budget_ms: Any, objective: str
) -> Budgets:
    """Return the budgets of the network, and that of the chosen layers' latency.

    Raises: SettingError.
    """
    if objective not in ORDERS:
        raise SettingError.because(
            "unknown objective",
            got=repr(objective),
            allowed=", ".join(ORDERS),
            remedy="choose one of them",
            argument="objective",
        )
    timed = latency_budget_ms is not None or objective == "latency_ms"
    if timed != (latency is not None):
        raise SettingError.because(
            "latency half said",
            got="no table" if timed else "a table that decides nothing",
            allowed='a table, and a budget or the objective "latency_ms"',
            remedy="give both or none",
            argument="latency",
        )
    budgets = Budgets(
        None if params is None else amount(params, "params"),
        None if macs is None else amount(macs, "macs"),
        latency_ms=None if latency_budget_ms is None else _exact(latency_budget_ms),
    )
    budgets.check()
    return budgets


def _exact(milliseconds: Any) -> Fraction:
    if isinstance(milliseconds, int | Fraction) and not isinstance(milliseconds, bool):
        return Fraction(milliseconds)
    raise SettingError.because(
        "latency budget is not exact",
        got=repr(milliseconds),
        allowed="whole numbers, Fractions",
        remedy='write Fraction("2.5")',
        argument="latency_budget_ms",
    )
