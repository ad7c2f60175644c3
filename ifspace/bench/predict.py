"""Predicted latencies of the designs of a catalogue, by a model that `ifspace bench` wrote."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch

from ifspace.bench.case import BlockCandidate, Conditions
from ifspace.bench.forms import find_forms, is_changed
from ifspace.bench.latency import MODEL, RANK_GOAL, LatencyModel, features
from ifspace.catalogue.design import Design
from ifspace.errors import SettingError
from ifspace.measurements import AS_IS, FORWARD
from ifspace.nn.block import block_style

# The side of a feature map, where a model does not say which one it was measured at.
SIDE: Final = 32


@dataclass(frozen=True, slots=True)
class LatencyPredictor:
    """The latency model of inference, and what it holds under.

    `device`: the name of the device; `side`: that of the output feature map, in pixels.
    `rank_correlation`: that of its predictions with the times of blocks held out of the fit.
    """

    model: LatencyModel
    conditions: Conditions
    device: str
    side: int
    batch: int
    rank_correlation: float | None

    @classmethod
    def read(cls, path: Path, side: int | None = None) -> Self:
        """Return the predictor of a file `blocks-DEVICE.json`, at a side if one is given.

        Raises: SettingError for a file of something else, or without a model.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls._parse(values, side)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            missing = isinstance(error, KeyError)
            raise SettingError.because(
                f"{path.name} has no latency model",
                got=f"no {error}" if missing else str(error).partition("\n")[0],
                allowed="blocks-DEVICE.json, which `ifspace bench` writes into results/bench",
                remedy="measure here: `ifspace bench CATALOGUE`",
                argument="latency",
            ) from None

    @classmethod
    def _parse(cls, values: Any, side: int | None) -> Self:
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
        return cls(
            LatencyModel({name: float(ms) for name, ms in record["coefficients"].items()}),
            conditions,
            device,
            side or int(about.get("side", SIDE)),
            int(about["batch"]),
            record["errors"][MODEL]["rank_correlation"],
        )

    def __call__(self, design: Design) -> tuple[float, str] | None:
        """Return the milliseconds of the fastest form of a design, and its name.

        None for a design of one dimension, or one that the model cannot predict in any form.
        """
        if design.dims != 2:
            return None
        style = block_style(self.conditions.style)
        latencies = []
        for form in find_forms(None, self.conditions.device):
            candidate = BlockCandidate(
                design.sized, self.side, self.batch, design.stride, design=design, form=form
            )
            if form == AS_IS or is_changed(form, design.sized, design.stride, style):
                ms = self.model.predict(features(candidate, self.conditions))
                latencies += [] if ms is None else [(ms, form)]
        return min(latencies, key=lambda pair: pair[0], default=None)

    @property
    def about(self) -> str:
        """What the latencies hold under, in words, and how far they are to be trusted."""
        conditions = self.conditions
        words = [conditions.dtype, conditions.layout, f"{conditions.style} style"]
        if conditions.device.type == "cpu":
            words.append(f"{conditions.threads} thread{'s' * (conditions.threads > 1)}")
        text = f"latencies predicted for {self.device}: side {self.side}, batch {self.batch}, "
        text += ", ".join(words)
        rank = self.rank_correlation
        if rank is None or rank < RANK_GOAL:
            judged = "is not known" if rank is None else f"is {rank:.2f}"
            text += f"; the model's rank correlation {judged}, the goal {RANK_GOAL}"
        return text
