"""Training what comes out: weight decay by compression, and the original network as the teacher.

A block has fewer weights than the layer that it replaces, and published runs on such blocks reach
the accuracy of the original only if their weight decay is smaller by as much. A *recipe* says by
how much, layer by layer, as JSON beside a saved network.

Reference: Gray, Crowley and Storkey, Separable Layers Enable Structured Efficient Linear
Substitutions, section 3 (weight decay); Hinton, Vinyals and Dean, Distilling the Knowledge in a
Neural Network, section 2 (the loss).
"""

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ifspace.errors import ARGUMENT, KernelError, SettingError
from ifspace.models.decomposition import Decomposition
from ifspace.models.edits import EditedNetwork
from ifspace.nn.checks import evaluated
from ifspace.storage import read_bytes, reason, replacing
from ifspace.values import number_from_zero

RECIPE_SUFFIX: Final = ".recipe.json"
_FORMAT: Final = 1
TEMPERATURE: Final = 4.0
WEIGHT: Final = 0.9


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network that was changed is trained, with the original one as its teacher.

    `weight_decay`: by the full name of a block, the factor of its weight decay: its parameters over
    those of the layer that it replaced. `temperature` and `weight`: of the distillation loss.
    """

    weight_decay: Mapping[str, float] = field(default_factory=dict)
    temperature: float = TEMPERATURE
    weight: float = WEIGHT

    @classmethod
    def of(cls, plan: Decomposition) -> "Recipe":
        """Return the recipe of a plan.

        >>> from ifspace.models import Blocks, decompose
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1))
        >>> Recipe.of(decompose(model, (3, 8, 8), Blocks("DW+PW")).plan)
        Recipe(weight_decay={'1': 0.148...}, temperature=4.0, weight=0.9)
        """
        return cls({x.name: min(1.0, x.params[1] / x.params[0]) for x in plan.replaced})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the recipe beside a network's file `path`, and return where: FILE.recipe.json."""
        file = Path(path).with_suffix(RECIPE_SUFFIX)
        distillation = {"temperature": self.temperature, "weight": self.weight}
        values = {
            "format": _FORMAT,
            "weight_decay": dict(self.weight_decay),
            "distillation": distillation,
        }
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        return file

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Recipe":
        """Return the recipe of a file that `save` wrote. Raises: SettingError."""
        try:
            values = json.loads(read_bytes(path))
            factors, distillation = values["weight_decay"], values["distillation"]
            if values["format"] != _FORMAT:
                raise ValueError("another format")
            return cls(
                {str(name): float(factor) for name, factor in factors.items()},
                float(distillation["temperature"]),
                float(distillation["weight"]),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise SettingError.because(
                f"{ARGUMENT} cannot be read",
                got=f"{os.fspath(path)} ({reason(error)})",
                allowed=f"FILE{RECIPE_SUFFIX}, as it is written beside a saved network",
                remedy="save the network anew",
                argument="recipe",
            ) from None


def parameter_groups(
    model: nn.Module | EditedNetwork,
    recipe: Recipe | str | os.PathLike[str],
    weight_decay: float = 1e-4,
) -> list[dict[str, Any]]:
    """Return the parameters of a network in groups for an optimizer, each with its weight decay.

    Weights have `weight_decay`, those of blocks times the factor of the recipe (or of its file);
    biases, and the weights of norms, have none.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
    >>> groups = parameter_groups(model, Recipe({"2": 0.25}), 1e-3)
    >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
    [(1, 0.001), (1, 0.00025), (4, 0.0)]

    Raises: SettingError for a recipe of another network, or a file that is none.
    """
    network = EditedNetwork.of(model).model
    plan = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    decay = float(number_from_zero(weight_decay, "weight_decay"))
    names = {name for name, _ in network.named_modules()}
    if unknown := sorted(set(plan.weight_decay) - names):
        raise SettingError.because(
            f"{ARGUMENT} of another network",
            got=f"{unknown[0]}, which {type(network).__name__} does not have",
            allowed="that of the network with its blocks",
            remedy="take the file beside the network",
            argument="recipe",
        )
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        groups[decay * _factor(name, plan) if parameter.dim() > 1 else 0.0].append(parameter)
    return [
        {"params": groups[value], "weight_decay": value} for value in sorted(groups, reverse=True)
    ]


def _factor(name: str, recipe: Recipe) -> float:
    """Return the factor of the block that a parameter is in, 1 outside of them."""
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    return next((recipe.weight_decay[x] for x in prefixes if x in recipe.weight_decay), 1.0)


class DistillationLoss(nn.Module):
    """The loss of a network that is to answer as its teacher does: the original network.

    loss = (1 - weight) cross-entropy(logits, labels)
           + weight temperature² KL(teacher's probabilities || own), both at the temperature

    The teacher stands still: it runs in evaluation mode, without gradients, and is no part of what
    `parameters()` of the loss returns.

    >>> loss = DistillationLoss(nn.Identity(), weight=1.0)
    >>> x = torch.tensor([[2.0, 0.0]])
    >>> float(loss(x, x, torch.tensor([0])))
    0.0

    Raises: SettingError for a temperature that is not above 0, or a weight outside 0 ... 1.
    """

    def __init__(
        self, teacher: nn.Module, temperature: float = TEMPERATURE, weight: float = WEIGHT
    ) -> None:
        super().__init__()
        if not temperature > 0 or not 0 <= weight <= 1:
            raise SettingError.because(
                "distillation out of range",
                got=f"temperature {temperature}, weight {weight}",
                allowed="a temperature above 0, a weight from 0 to 1",
                remedy=f"leave them at {TEMPERATURE} and {WEIGHT}",
                argument="temperature" if not temperature > 0 else "weight",
            )
        # In a tuple, so that it is no submodule, whose mode and weights would change.
        self._teacher = (teacher,)
        self.temperature, self.weight = temperature, weight

    def forward(self, x: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits [N, classes] that a network gives for images x with labels.

        Raises: KernelError for a teacher that answers in another shape.
        """
        (teacher,) = self._teacher
        with evaluated(teacher):
            answers = teacher(x)
        if answers.shape != logits.shape:
            raise KernelError.because(
                "a teacher that answers in another shape",
                got=f"{list(answers.shape)} beside logits {list(logits.shape)}",
                allowed="logits [N, classes] of both, with the same classes",
                remedy="give the teacher the classes of the network, or the network its own",
            )
        own = functional.log_softmax(logits / self.temperature, 1)
        target = functional.log_softmax(answers / self.temperature, 1)
        divergence = functional.kl_div(own, target, reduction="batchmean", log_target=True)
        error = functional.cross_entropy(logits, labels)
        return torch.lerp(error, self.temperature**2 * divergence, self.weight)
