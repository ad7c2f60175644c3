"""The steps: each network in a process of its own, with limits of time and memory.

The limit of time is one of processor time: the machine may do other work. A process that exceeds it
is ended by the kernel, and another one goes on with the steps that are left.
"""

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil
import torch
from torch import Tensor, nn

from experiments.coverage import networks
from experiments.coverage.networks import Candidate
from ifspace.errors import IfspaceError
from ifspace.floors import Floors
from ifspace.models import (
    Blocks,
    Budgets,
    EditedNetwork,
    Layers,
    OptimizationProblem,
    Search,
    analyze,
    from_source,
    load,
    network,
    optimize,
    save,
)
from ifspace.models import trace as traced
from ifspace.models.decomposition import LEAST_FAN_IN
from ifspace.models.graph import ImageSize, Trace
from ifspace.models.sources import on_shapes
from ifspace.nn.checks import evaluated, first_line
from ifspace.stages.problem import FRONT

ANALYZE: Final = "analyze"
OPTIMIZE: Final = ("stages", "blocks")
USES: Final = ("train", "save", "load", "onnx")
# Every step of a network: the two results of `optimize`, and what is done with each.
STEPS: Final = (ANALYZE, *(s for way in OPTIMIZE for s in (way, *(f"{way} {u}" for u in USES))))
# What is done for all networks before the next.
PASSES: Final = ((ANALYZE,), STEPS[1:])
SHARE: Final = 0.6
# A process that waits is ended too, after so many times its limit.
_PATIENCE: Final = 10
# Of the searches in `optimize`, as processor time.
_SEARCH_S: Final = 30
# What every process imports, imported once.
_SHARED: Final = (__name__, networks.__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of each step: processor time in seconds; of each process: memory in bytes."""

    time_s: float = 60
    memory: int = 16 << 30


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a step, and why.

    `status`: "yes"; "refused" with an error of ifspace; "no" where nothing keeps the budget;
    "time" or "memory" over the limit; "fault" for any other error.
    """

    step: str
    status: str
    why: str = ""
    seconds: float | None = None


class _NoAnswerError(Exception):
    """Nothing keeps the budget."""


@dataclass
class _Subject:
    """A network that goes through its steps; what several steps need is made once."""

    source: str
    part: str | None
    image: ImageSize
    budget: int
    folder: Path
    _results: dict[str, EditedNetwork] = field(default_factory=dict)

    def step(self, name: str) -> str:
        """Do a step and return what is to be known of it.

        Raises: whatever its functions raise; _NoAnswerError.
        """
        way, _, use = name.partition(" ")
        if way == ANALYZE:
            return self._analysis()
        if not use:
            return self._optimization(way)
        uses: dict[str, Callable[[str], str]] = {
            "train": self._training,
            "save": self._saving,
            "load": self._loading,
            "onnx": self._onnx,
        }
        return uses[use](way)

    def prepare(self, name: str) -> None:
        """Make what a step needs, as an earlier process did it before it was ended."""
        way, _, use = name.partition(" ")
        if way in OPTIMIZE:
            assert self._opened
        if use and way not in self._results:
            self._optimization(way)

    def _analysis(self) -> str:
        report = on_shapes(
            lambda: network(self.source, self.image, part=self.part),
            lambda model: analyze(model, self.image),
        )
        layers = f"{len(report.layers)} layers in {len(report.stages)} stages"
        by_order = [note for note in report.notes if note.startswith("branches are not seen")]
        return "; ".join([layers, *by_order])

    @cached_property
    def _opened(self) -> tuple[EditedNetwork, Trace]:
        start = from_source(self.source, self.image, seed=0, part=self.part)
        return start, traced(start.model, self.image)

    def _optimization(self, way: str) -> str:
        start, graph = self._opened
        blocks = Blocks(FRONT) if way == "blocks" else None
        problem = OptimizationProblem(
            blocks=blocks,
            budgets=Budgets(params=self.budget),
            keep_stages=blocks is not None,
            search=Search(
                time_limit_s=_SEARCH_S * _waiting(),
                floors=Floors(least_fan_in=1 if blocks is None else LEAST_FAN_IN),
                lower_floors=blocks is not None,
            ),
        )
        optimization, with_classifier = optimize(start, graph, problem), ""
        if optimization.network is None and blocks is not None and not optimization.is_out_of_time:
            layers = Layers(classifier=True)
            optimization = optimize(start, graph, replace(problem, layers=layers))
            with_classifier = ", with --classifier"
        if optimization.network is None or optimization.after is None:
            late = optimization.is_out_of_time
            raise _NoAnswerError("the search ran out of time" if late else "over the budget")
        self._results[way] = optimization.network
        after, before = optimization.after.params, optimization.before.params
        return f"{after:,} of {before:,} parameters{with_classifier}"

    def _images(self, number: int) -> Tensor:
        return torch.rand(number, *self.image, generator=torch.Generator().manual_seed(0))

    def _training(self, way: str) -> str:
        model = self._results[way].model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        # Towards ones: some networks begin with outputs of zero.
        outputs = _outputs(model(self._images(2)))
        loss = torch.stack([(output - 1).square().mean() for output in outputs])
        loss.sum().backward()  # type: ignore[no-untyped-call]
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.step()
        changed = sum(
            not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)
        )
        if not changed or not loss.isfinite().all():
            raise ArithmeticError(f"{changed} parameters changed, loss {float(loss.sum())}")
        return f"{changed} of {len(before)} parameter tensors changed"

    def _saving(self, way: str) -> str:
        save(self._results[way], self.folder / f"{way}.safetensors", self.image)
        return f"{(self.folder / f'{way}.safetensors').stat().st_size:,} bytes"

    def _loading(self, way: str) -> str:
        loaded = load(self.folder / f"{way}.safetensors")
        error = _difference(self._evaluated(way), self._run(loaded))
        if error:
            raise ArithmeticError(f"outputs differ by {error:.1e}")
        return "same outputs"

    def _onnx(self, way: str) -> str:
        from onnxruntime import InferenceSession, SessionOptions

        path = self.folder / f"{way}.onnx"
        save(self._results[way], path, self.image)
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, {session.get_inputs()[0].name: self._images(1).numpy()})
        error = _difference(self._evaluated(way), [torch.from_numpy(array) for array in outputs])
        if error > 1e-3:
            raise ArithmeticError(f"outputs of ONNX Runtime differ by {error:.1e}")
        return f"outputs within {error:.0e}"

    def _evaluated(self, way: str) -> list[Tensor]:
        return self._run(self._results[way].model)

    def _run(self, model: nn.Module) -> list[Tensor]:
        with evaluated(model):
            return _outputs(model(self._images(1)))


def _waiting() -> float:
    """Return the time by the clock over the processor time of this process: other work may run."""
    lifetime_s: float = time.time() - psutil.Process().create_time()
    return max(lifetime_s / time.process_time(), 1)


def _outputs(value: Any) -> list[Tensor]:
    """Return the tensors of floats in what a network returns."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for part in value for tensor in _outputs(part)] if value is not None else []


def _difference(expected: Sequence[Tensor], outputs: Sequence[Tensor]) -> float:
    """Return the largest difference in units of the largest expected value."""
    if [output.shape for output in expected] != [output.shape for output in outputs]:
        return float("inf")
    scale = max(float(tensor.abs().max()) for tensor in expected)
    pairs = zip(expected, outputs, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs) / (scale or 1)


def outcome_of(
    name: str,
    step: Callable[[], str],
    prepare: Callable[[], object] = lambda: None,
    limit: Callable[[], object] = lambda: None,
) -> Outcome:
    """Return what comes of a step, and its time, without that of what it needs.

    >>> outcome_of("save", lambda: "3 bytes").status, outcome_of("save", lambda: 1 / 0).why
    ('yes', 'ZeroDivisionError: division by zero')
    """
    started = time.process_time()
    try:
        for action in (limit, prepare, limit):
            action()
        started = time.process_time()
        status, why = "yes", step()
    except _NoAnswerError as error:
        status, why = "no", str(error)
    except IfspaceError as error:
        status, why = "refused", error.finding
    except MemoryError:
        status, why = "memory", ""
    except Exception as error:
        status, why = "fault", f"{type(error).__name__}: {first_line(error)}"
    if "allocate memory" in why:
        status, why = "memory", ""
    return Outcome(name, status, why, round(time.process_time() - started, 2))


def outcomes(
    candidate: Candidate, image: ImageSize, steps: Sequence[str], limits: Limits
) -> Iterator[Outcome]:
    """Yield what comes of the steps of a network, one after another, in a process of its own.

    What needs a step that did not succeed is left out.
    """
    with TemporaryDirectory() as folder:
        budget = int(SHARE * candidate.params)
        subject = _Subject(candidate.network, candidate.part, image, budget, Path(folder))
        left = list(steps)
        while left:
            for outcome in _in_process(subject, left, limits):
                yield outcome
                failed = outcome.step if outcome.status != "yes" else None
                left = left[left.index(outcome.step) + 1 :]
                left = [step for step in left if failed is None or not needs(step, failed)]


def needs(step: str, earlier: str) -> bool:
    """Return whether a step cannot be done without an earlier one.

    >>> needs("stages save", "stages"), needs("blocks", "stages"), needs("blocks", "analyze")
    (True, False, True)
    """
    way = step.partition(" ")[0]
    return earlier in (ANALYZE, way) or (step == f"{way} load" and earlier == f"{way} save")


@cache
def _context() -> Any:
    context = get_context("forkserver")
    context.set_forkserver_preload(list(_SHARED))
    return context


def _in_process(subject: _Subject, steps: Sequence[str], limits: Limits) -> Iterator[Outcome]:
    """Yield the outcomes of steps until the process ends, whatever ends it."""
    receiver, sender = _context().Pipe(duplex=False)
    process = _context().Process(target=_work, args=(sender, subject, steps, limits))
    process.start()
    sender.close()
    begun = steps[0]
    with receiver:
        while True:
            try:
                message = receiver.recv()
            except EOFError:
                break
            if isinstance(message, Outcome):
                yield message
                begun = ""
            else:
                begun = message
    process.join()
    if begun:
        yield _ended(begun, process.exitcode, limits)


def _ended(step: str, status: int | None, limits: Limits) -> Outcome:
    """Return the outcome of a step in which its process ended."""
    if status is not None and -status in (signal.SIGPROF, signal.SIGALRM):
        return Outcome(step, "time", f"over {limits.time_s:g} s")
    if status is not None and -status == signal.SIGKILL:
        return Outcome(step, "memory", "ended by the system")
    return Outcome(step, "fault", f"the process ended with status {status}")


def _work(sender: Connection, subject: _Subject, steps: Sequence[str], limits: Limits) -> None:
    """Do steps, as the process of a network."""
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    failed: list[str] = []
    for step in steps:
        if any(needs(step, earlier) for earlier in failed):
            continue
        sender.send(step)
        outcome = outcome_of(
            step,
            partial(subject.step, step),
            partial(subject.prepare, step),
            partial(_limit, limits.time_s),
        )
        sender.send(outcome)
        if outcome.status != "yes":
            failed.append(step)


def _limit(time_s: float) -> None:
    """End this process after so much processor time from now on."""
    signal.setitimer(signal.ITIMER_PROF, time_s)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE * time_s)
