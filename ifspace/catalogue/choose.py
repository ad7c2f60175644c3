"""Which block of a catalogue to use: within bounds, ranked, with a reason; trade-offs."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, Final

from ifspace.catalogue.design import Catalogue, Design, dominators, one_a_network, other_ways
from ifspace.errors import ARGUMENT, SettingError
from ifspace.kinds import canonical_kinds
from ifspace.latency import BlockLatency
from ifspace.values import choice, whole_number

# What can be bounded and compared: the attribute of a design and its name in texts.
AMOUNTS: Final[Mapping[str, tuple[str, str]]] = {
    "params": ("params", "parameters"),
    "macs": ("macs_per_pixel", "MACs"),
    "activations": ("activations_per_pixel", "activations"),
    "layers": ("layers", "layers"),
}
# What can be compared with latencies alone.
LATENCY: Final = "latency"


def best(
    catalogue: Catalogue,
    *,
    params: int | None = None,
    macs: int | None = None,
    activations: int | None = None,
    layers: int | None = None,
    kinds: Iterable[str] | None = None,
    channels: int | None = None,
    by: str = "params",
    every_row: bool = False,
    limit: int | None = None,
    latency: BlockLatency | None = None,
) -> tuple[tuple[Design, str], ...]:
    """Return the designs within all bounds, best first, each with the reason for its rank.

    No more than `limit` of them where that is a number.

    Of designs that are one network only one is returned, which stands for the others within the
    bounds; all of them with `every_row`.

    A reason is about the designs that the bounds and kinds leave: where they rule out some, it says
    "not dominated within these bounds". `Design.dominated_by` is about the whole catalogue.

    Bounds are inclusive: parameters, MACs and activations per output pixel, layers of one copy.
    `kinds` are the kinds that a design may use, `channels` is the width it is for; all of them
    when None. `by` is what is compared first; ties go as in `ranked`. By "latency" the designs are
    compared by what `latency` returns for them; those that it does not know come last. Dominance is
    taken anew among the designs that may be used, so that no design is called dominated by one that
    was ruled out.

    >>> best(Catalogue((), (), ()), params=1000)
    ()

    Raises: SettingError for a negative bound or limit, an unknown kind or amount, and a width that
        the catalogue does not hold.
    """
    bounds = {"params": params, "macs": macs, "activations": activations, "layers": layers}
    for name, bound in bounds.items():
        if bound is not None and (isinstance(bound, bool) or bound < 0):
            raise SettingError.because(
                f"bound on {name} out of range",
                got=bound,
                allowed="whole numbers from 0",
                remedy="give another bound or none",
                argument=name,
            )
    if channels is not None:
        _check_width(catalogue, channels)
    if limit is not None:
        whole_number(limit, "limit", 0)
    usable = None if kinds is None else frozenset(canonical_kinds(kinds))
    at_width = [
        design for design in catalogue.designs if channels is None or design.channels == channels
    ]
    within = [
        design
        for design in at_width
        if (usable is None or usable.issuperset(design.kinds))
        and all(
            bound is None or getattr(design, AMOUNTS[name][0]) <= bound
            for name, bound in bounds.items()
        )
    ]
    is_narrowed = len(within) < len(at_width)
    others: dict[int, str] = {}
    if not every_row:
        networks = one_a_network(within)
        within = [design for design, _ in networks]
        others = {id(design): other_ways(members) for design, members in networks}
    if by == LATENCY and latency is None:
        raise SettingError.because(
            "nothing says how long the blocks take",
            got="by latency without a latency model",
            allowed="a model that `ifspace bench` wrote",
            remedy="--latency results/bench/blocks-DEVICE.json beside it",
            argument="latency",
        )
    first = "params" if by == LATENCY else by
    order = _order(first)
    rivalries: dict[Any, list[Design]] = {}
    for design in within:
        rivalries.setdefault(design.replaces, []).append(design)
    reasons: dict[int, str] = {}
    for rivals in rivalries.values():
        least = {name: min(_amount(design, name) for design in rivals) for name in order}
        for design, dominator in zip(rivals, dominators(rivals), strict=True):
            reasons[id(design)] = _reason(design, dominator, least, is_narrowed)
    designs: Sequence[Design] = ranked(within, first)
    if by == LATENCY and latency is not None:
        found = {id(design): latency(design.sized, design.stride) for design in designs}
        times = {key: inf if time is None else time.ms for key, time in found.items()}
        designs = sorted(designs, key=lambda design: times[id(design)])
        least_ms = min(times.values(), default=inf)
        for design in designs:
            if times[id(design)] == least_ms < inf:
                reasons[id(design)] = f"least latency; {reasons[id(design)]}"
    return tuple(
        (design, "; ".join(filter(None, [reasons[id(design)], others.get(id(design))])))
        for design in designs[:limit]
    )


def ranked(designs: Iterable[Design], by: str = "params") -> tuple[Design, ...]:
    """Return the designs with the least of an amount first; ties go to the other amounts.

    The amounts are parameters, MACs, activations and layers in this order. Of designs that tie in
    all of them those with the fewest layers of overlapping windows come first, then those with the
    fewest of any windows (RPW); the others stay in the order given.

    Raises: SettingError for an unknown amount.
    """
    order = _order(by)

    def key(design: Design) -> tuple[int, ...]:
        return *(_amount(design, name) for name in order), *design.block.window_counts

    return tuple(sorted(designs, key=key))


def trade_offs(designs: Iterable[Design]) -> tuple[tuple[Design, int], ...]:
    """Return the designs that are not dominated, one of each costs, and how many cost the same.

    The designs are those of one setting with `dominated_by` filled in; fewest parameters first.

    >>> trade_offs(())
    ()
    """
    alike: dict[Any, list[Design]] = {}
    for design in ranked(design for design in designs if design.dominated_by is None):
        alike.setdefault(design.costs, []).append(design)
    return tuple((group[0], len(group)) for group in alike.values())


def _order(by: str) -> list[str]:
    choice(by, "by", AMOUNTS, "unknown amount")
    return [by, *(name for name in AMOUNTS if name != by)]


def _amount(design: Design, name: str) -> int:
    value: int = getattr(design, AMOUNTS[name][0])
    return value


def _reason(
    design: Design, dominator: str | None, least: Mapping[str, int], is_narrowed: bool
) -> str:
    fewest = [AMOUNTS[name][1] for name in least if _amount(design, name) == least[name]]
    parts = ["fewest " + " and ".join(fewest)] if fewest else []
    undominated = "not dominated within these bounds" if is_narrowed else "not dominated"
    parts.append(undominated if dominator is None else f"dominated by {dominator}")
    if design.same_as:
        parts.append(f"cheaper as {design.same_as}")
    if design.permutation_note:
        parts.append(design.permutation_note)
    return "; ".join(parts)


def _check_width(catalogue: Catalogue, channels: int) -> None:
    widths = {setting.channels for setting in catalogue.settings}
    widths |= {design.channels for design in catalogue.designs}
    if widths and channels not in widths:
        raise SettingError.because(
            f"the catalogue has no such {ARGUMENT}",
            got=channels,
            allowed=", ".join(map(str, sorted(widths))),
            remedy="choose one of them or enumerate that width",
            argument="channels",
        )
