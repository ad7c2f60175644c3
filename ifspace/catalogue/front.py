"""The front as a reader wants it: the networks that no choice beats, and what each trades."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ifspace.catalogue.choose import DESIGN_AMOUNTS, amount_of, change_text, ranked
from ifspace.catalogue.dataset import designs_table, remarked
from ifspace.catalogue.design import Design, one_a_network
from ifspace.latency import Latency
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


def trades(
    designs: Sequence[Design], latencies: Sequence[Latency | None] | None = None
) -> Iterator[str]:
    """Yield for each design but the first what it trades against the one before it.

    Of the first it is said if it has the fewest parameters. `latencies`: of the designs, where they
    are an amount too.
    """
    for index, design in enumerate(designs):
        if index:
            pair = (None, None) if latencies is None else latencies[index - 1 : index + 1]
            yield trade(designs[index - 1], design, *pair)
        else:
            least = min(other.params for other in designs)
            yield "fewest parameters" if design.params == least else ""


def trade(
    before: Design,
    after: Design,
    latency_before: Latency | None = None,
    latency_after: Latency | None = None,
) -> str:
    """Return what one design gains and loses against another.

    "+256 params: least fan-in 4 to 8, layers 4 to 3; but activations 128 to 192".
    """
    params = after.params - before.params
    macs = after.macs_per_pixel - before.macs_per_pixel
    price = [f"+{params:,} params"] if params > 0 else []
    gains = [f"{-params:,} fewer params"] if params < 0 else []
    if macs > 0 and macs != params:
        price.append(f"+{macs:,} MACs/px")
    if macs < 0 and macs != params:
        gains.append(f"{-macs:,} fewer MACs/px")
    losses: list[str] = []
    for name in _OTHERS:
        more = amount_of(after, name) - amount_of(before, name)
        if more:
            attribute, _ = DESIGN_AMOUNTS[name]
            text = change_text(name, getattr(before, attribute), getattr(after, attribute))
            (losses if more > 0 else gains).append(text)
    if latency_before is not None and latency_after is not None:
        change = latency_after.ms - latency_before.ms
        if change:
            (losses if change > 0 else gains).append(f"{float(change):+.3g} ms")
    if latency_before is not None and latency_after is None:
        losses.append("a latency that is not known")
    if not (price or gains or losses):
        return "the same amounts"
    text = ": ".join(filter(None, [", ".join(price), ", ".join(gains)]))
    return "; but ".join(filter(None, [text, ", ".join(losses)]))


def front_table(
    networks: Sequence[tuple[Design, tuple[Design, ...]]],
    more: Mapping[str, Sequence[Any]] | None = None,
    latencies: Sequence[Latency | None] | None = None,
) -> Table:
    """Return the networks of a front as a table, each with what it trades against the row above.

    `more`: further columns by their headers. `latencies`: where they are an amount too.
    """
    designs = [design for design, _ in networks]
    but_for = "" if latencies is None else "latency"
    notes = [
        "; ".join(filter(None, [text, remarked(design, others, but_for)]))
        for text, (design, others) in zip(trades(designs, latencies), networks, strict=True)
    ]
    return designs_table(
        designs, notes, "against the row above~", ranks=True, front=True, more=more
    )
