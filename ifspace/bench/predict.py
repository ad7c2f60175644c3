"""Predicted latencies of blocks, by a model that `ifspace bench` wrote."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import torch

from ifspace.bench.case import BlockCandidate, Conditions
from ifspace.bench.forms import find_forms, is_changed
from ifspace.bench.latency import MODEL, RANK_GOAL, LatencyModel, features
from ifspace.block import Block, SizedBlock, SizedLayer
from ifspace.errors import SettingError
from ifspace.latency import Latency, Shape, is_within
from ifspace.measurements import AS_IS, FORWARD, ONE_PASS
from ifspace.nn.block import block_style
from ifspace.storage import read_text, reason
from ifspace.values import counted

# The side of a feature map, where a model does not say which one it was measured at.
SIDE: Final = 32


@dataclass(frozen=True, slots=True)
class LatencyPredictor:
    """The latency model of inference, and what it holds under: an `ifspace.latency.LatencySource`.

    `device`: the name of the device; `side`: that of the output feature map, in pixels, that it was
    measured at. `shapes`: those of the blocks that it was fitted on. `rank_correlation`: that of
    its predictions with the times of blocks held out of the fit.
    """

    model: LatencyModel
    conditions: Conditions
    device: str
    side: int
    batch: int
    rank_correlation: float | None
    shapes: Collection[Shape] = frozenset()
    # What was predicted: a form is a module that is built for it, a hundredth of a second.
    _known: dict[tuple[SizedBlock, int, int], Latency | None] = field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the predictor of a file `blocks-DEVICE.json`.

        Raises: SettingError for a file of something else, or without a model.
        """
        try:
            values = json.loads(read_text(path))
            return cls._parse(values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            missing, other = (
                isinstance(error, KeyError),
                isinstance(error, TypeError | AttributeError),
            )
            got = "JSON of something else" if other else reason(error)
            raise SettingError.because(
                f"{path.name} has no latency model",
                got=f"no {error}" if missing else got,
                allowed="blocks-DEVICE.json, which `ifspace bench` writes into results/bench",
                remedy="measure here: `ifspace bench CATALOGUE`; or make a table of the profile "
                "of another runtime: `ifspace bench --import`",
                argument="latency",
            ) from None

    @classmethod
    def _parse(cls, values: Any) -> Self:
        record = values["model"][FORWARD]
        about, device = record["conditions"], str(values["provenance"]["device"])
        conditions = Conditions(
            torch.device("cpu" if device.startswith("cpu") else "cuda"),
            about["dtype"],
            about["layout"],
            int(about["threads"]),
            about["style"],
            (FORWARD,),
        )
        side = int(about.get("side", SIDE))
        # Older files do not say all shapes: those of their designs are among them.
        shapes = record.get("shapes") or [
            (design["channels"], design["out_channels"], side, design["stride"])
            for design in values.get("designs", ())
        ]
        return cls(
            LatencyModel({name: float(ms) for name, ms in record["coefficients"].items()}),
            conditions,
            device,
            side,
            int(about["batch"]),
            record["errors"][MODEL]["rank_correlation"],
            frozenset((int(c), int(f), int(side), int(stride)) for c, f, side, stride in shapes),
        )

    @property
    def dtype(self) -> str:
        """The type of the numbers."""
        return self.conditions.dtype

    def side_of(self, block: SizedBlock, stride: int) -> int:
        """Return the side that the model was measured at, whatever the block."""
        return self.side

    def find(self, block: SizedBlock, side: int, stride: int = 1) -> Latency | None:
        """Return the latency of a block in its fastest form.

        None for a block of one dimension, or one that the model cannot predict in any form.
        """
        case = block, side, stride
        if case not in self._known:
            self._known[case] = self._predicted(*case)
        return self._known[case]

    def _predicted(self, block: SizedBlock, side: int, stride: int) -> Latency | None:
        if block.dims != 2:
            return None
        extrapolated = not is_within(
            (block.channels, block.out_channels, side, stride), self.shapes
        )
        latencies = []
        for form in find_forms(None, self.conditions.device):
            ms = self.ms_in(form, block, side, stride)
            latencies += [] if ms is None else [Latency.of(ms, form, extrapolated)]
        return min(latencies, key=lambda latency: latency.ms, default=None)

    @property
    def layer_forms(self) -> tuple[str, ...]:
        """As is, and fused where that runs.

        A fused block takes a time for its operations and one for its bytes, both of which are sums.
        What a collapsed block computes depends on which layers are neighbours.
        """
        forms = find_forms(None, self.conditions.device)
        return tuple(form for form in forms if form in (AS_IS, ONE_PASS))

    def ms_in(self, form: str, block: SizedBlock, side: int, stride: int = 1) -> float | None:
        """Return the milliseconds of a block in a form, None where it does not run in it."""
        how = stride, block_style(self.conditions.style), self.conditions.device.type
        if block.dims != 2 or not (form == AS_IS or is_changed(form, block, *how)):
            return None
        candidate = BlockCandidate(block, side, self.batch, stride, form=form)
        return self.model.predict(features(candidate, self.conditions))

    def layer_ms(self, form: str, layer: SizedLayer, side: int, stride: int = 1) -> float | None:
        """Return the milliseconds of the block that is one layer.

        Whether a block is fused depends on its layers one by one and on their kinds: a layer that
        has weights and is not fused alone is not fused in any block.
        """
        block = Block((layer.layer,)).at(layer.c_in, layer.c_out)
        if form == AS_IS or layer.params:
            return self.ms_in(form, block, side, stride)
        candidate = BlockCandidate(block, side, self.batch, stride, form=form)
        return self.model.predict(features(candidate, self.conditions))

    def blocks_at(
        self, channels: int, out_channels: int, side: int, stride: int
    ) -> tuple[str, ...]:
        """Return nothing: a model has no blocks."""
        return ()

    def lacks(self, block: SizedBlock, side: int, stride: int = 1) -> frozenset[str]:
        """Return what a block as it is runs that no block of the fit ran, such as "RPW grouped"."""
        if block.dims != 2:
            return frozenset()
        candidate = BlockCandidate(block, side, self.batch, stride, form=AS_IS)
        names = features(candidate, self.conditions).keys() - self.model.coefficients.keys()
        # Behind the layer and the way it is run a name has what is counted.
        return frozenset(name.rpartition(" ")[0] for name in names)

    @property
    def about(self) -> str:
        """What the latencies hold under, in words, and how far they are to be trusted."""
        conditions = self.conditions
        words = [conditions.dtype, conditions.layout, f"{conditions.style} style"]
        if conditions.device.type == "cpu":
            words.append(counted(conditions.threads, "thread"))
        text = f"latencies predicted for {self.device}: batch {self.batch}, "
        text += ", ".join(words)
        rank = self.rank_correlation
        if rank is None or rank < RANK_GOAL:
            judged = "is not known" if rank is None else f"is {rank:.2f}"
            text += f"; the model's rank correlation {judged}, the goal {RANK_GOAL}"
        return text
