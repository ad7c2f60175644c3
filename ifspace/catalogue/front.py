"""The front as a reader wants it: the networks that no choice beats, and what each trades."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ifspace.catalogue.choose import DESIGN_AMOUNTS, amount_of, change_text, ranked
from ifspace.catalogue.dataset import designs_table, remarked
from ifspace.catalogue.design import Design, one_a_network
from ifspace.table import Table

# What is traded for parameters and MACs.
_OTHERS: Final = tuple(name for name in DESIGN_AMOUNTS if name not in ("params", "macs"))


def front_networks(designs: Iterable[Design]) -> tuple[tuple[Design, tuple[Design, ...]], ...]:
    """Return the networks of one setting that no choice beats, and their other ways to be written.

    The designs are those of a catalogue made with `front`; fewest parameters first.

    >>> front_networks(())
    ()
    """
    networks = one_a_network(designs)
    others = {design.block: members for design, members in networks}
    unbeaten = ranked(design for design, _ in networks if design.dominated_by is None)
    return tuple((design, others[design.block]) for design in unbeaten)


def trades(designs: Sequence[Design]) -> Iterator[str]:
    """Yield for each design what it trades against the one before it.

    The designs are those of a front, fewest parameters first.
    """
    for index, design in enumerate(designs):
        yield trade(designs[index - 1], design) if index else "fewest parameters"


def trade(before: Design, after: Design) -> str:
    """Return what one design gains and loses against another of no more parameters.

    "+256 params: least fan-in 4 to 8, layers 4 to 3; but activations 128 to 192".
    """
    if before.costs == after.costs:
        return "the same amounts"
    params = after.params - before.params
    macs = after.macs_per_pixel - before.macs_per_pixel
    price = [f"+{params:,} params"] if params else []
    gains = [f"{-macs:,} fewer MACs/px"] if macs < 0 else []
    if macs > 0 and macs != params:
        price.append(f"+{macs:,} MACs/px")
    losses: list[str] = []
    for name in _OTHERS:
        more = amount_of(after, name) - amount_of(before, name)
        if more:
            attribute, _ = DESIGN_AMOUNTS[name]
            text = change_text(name, getattr(before, attribute), getattr(after, attribute))
            (losses if more > 0 else gains).append(text)
    text = ": ".join(filter(None, [", ".join(price), ", ".join(gains)]))
    return "; but ".join(filter(None, [text, ", ".join(losses)]))


def front_table(
    networks: Sequence[tuple[Design, tuple[Design, ...]]],
    more: Mapping[str, Sequence[Any]] | None = None,
) -> Table:
    """Return the networks of a front as a table, each with what it trades against the row above.

    `more`: further columns by their headers.
    """
    designs = [design for design, _ in networks]
    notes = [
        "; ".join(filter(None, [text, remarked(design, others)]))
        for text, (design, others) in zip(trades(designs), networks, strict=True)
    ]
    return designs_table(
        designs, notes, "against the row above~", ranks=True, front=True, more=more
    )
