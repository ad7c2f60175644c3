"""Where the layouts that [3DRF] prints stand among the states of the organizer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ifspace.stages.moves import Trajectory
from ifspace.stages.published import (
    PublishedLayout,
    published_layouts,
)

# Where a network has another name than in the papers, whatever the package.
_NAMES: Final[Mapping[str, str]] = {
    "vgg16_bn": "vgg16",
    "vgg19_bn": "vgg19",
    "mobilenetv1_100": "mobilenet",
}


def published_of(model: str, image: tuple[int, int, int]) -> tuple[PublishedLayout, ...]:
    """Return what was published of the network that MODEL stands for, on square images.

    >>> [each.table for each in published_of("torchvision:vgg16_bn", (3, 32, 32))]
    [3, 4]
    """
    name = model.strip().lower().rpartition(":")[2].partition(".")[0]
    if model.lower().rpartition(":")[0].endswith(".py") or image[1] != image[2]:
        return ()
    return published_layouts(_NAMES.get(name, name), image[1])


@dataclass(frozen=True, slots=True)
class Beside:
    """A published layout beside the states of the organizer.

    `classifier`: the parameters of the network's own dense layers, None where they are those of the
    papers.
    """

    published: PublishedLayout
    found: Trajectory[Any]
    classifier: int | None = None

    @property
    def step(self) -> int | None:
        """The step after which the layout is reached, 0 for the start."""
        depths = [layout.depths for layout in self.found.layouts]
        there = self.published.depths
        return depths.index(there) if there in depths else None

    @property
    def counted(self) -> list[int]:
        """The steps after which the network's own parameters are those printed, as printed."""
        return [
            step
            for step, layout in enumerate(self.found.layouts)
            if f"{layout.params / 1e6:.2f}" == self.published.params
        ]

    @property
    def values(self) -> dict[str, Any]:
        """What was published, and where it stands here."""
        each = self.published
        own = None if self.step is None else self.found.layouts[self.step].params
        return asdict(each) | {
            "layout_params": each.layout.params,
            "layout_macs": each.layout.macs,
            "step": self.step,
            "moved_gain": self._moved(self.step),
            "own_params": own,
            "counted": self.counted,
        }

    def _moved(self, steps: int | None) -> float:
        """Return Σ(max − min) of the first steps, of all if None."""
        return replace(self.found, moves=self.found.moves[:steps]).moved_gain

    def __str__(self) -> str:
        each, step, end = self.published, self.step, len(self.found.moves)
        if step is None:
            where = "no state here"
        elif step == end:
            where = f"step {step}, the end"
        else:
            where = f"step {step}, {end - step} before the end"
        text = f"[3DRF] Table {each.table}, {each.data}: {each.params}M is "
        text += f"{{{','.join(map(str, each.depths))}}}, {where}"
        if not each.has_printed_params:
            text += f", {each.layout.params / 1e6:.2f}M by our count"
        text += self._own()
        sums = [
            f"{self._moved(at):.2f} {when}"
            for at, when in ((step, "up to it"), (end, "in all"))
            if at is not None and (at, when) != (end, "up to it")
        ]
        return f"{text}; Δ3DRF printed {each.gain}, here {', '.join(sums)}"

    def _own(self) -> str:
        """Return how far the network's own count is from that of the published layout, and why."""
        if self.step is None:
            others = ", ".join(map(str, self.counted))
            return f"; step {others} has as many parameters" if others else ""
        own = self.found.layouts[self.step].params
        more = own - self.published.layout.params
        if not more or self.classifier is None:
            return ""
        theirs = _classifier(self.published)
        rest = more - (self.classifier - theirs)
        said = f"; here {own / 1e6:.2f}M"
        if self.classifier != theirs:
            said += f": its classifier has {self.classifier:,}, that of the table {theirs:,}"
        if rest:
            said += f"{' and' if self.classifier != theirs else ':'} {rest:+,} in biases and "
            said += "batch norm"
        return said


def _classifier(published: PublishedLayout) -> int:
    """Return the parameters of the dense layers of a published layout."""
    layout = published.layout
    width = layout.stages[-1].width
    return layout.frame.params(width) - replace(layout.frame, classifier=()).params(width)
