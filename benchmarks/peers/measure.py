"""One system of the bench into one file of what it cost and what it recommends; the same steps for every system.

Imports the standard library and its neighbor only: it runs in environments that do not have this project. The clock is
the CPU time of the process, which stands still while the bench lets another system run.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sequences import Sequences

K = 10
NEW_HISTORY_EVENTS = 50
NUM_LATENCIES, NUM_WARM_LATENCIES = 100, 5
NUM_STEPS, NUM_WARM_STEPS = 6, 2
Lists = dict[int, list[int]]


@dataclass(frozen=True)
class Settings:
    """What decides a result. `variant` is the model among those of one script; `cpu_minutes` is for training alone."""

    variant: str
    max_seq_len: int
    dropout: float
    batch_rows: int
    cpu_minutes: float
    only_cost: bool = False
    patience: int = 10
    seed: int = 0
    width: int = 64
    num_layers: int = 2
    num_heads: int = 2
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Job:
    """What the bench asks of a process: where the data lie, how to train, where the answer goes."""

    sequences: Path
    answer: Path
    settings: Settings

    @classmethod
    def from_command_line(cls) -> Job:
        described = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        return cls(Path(described["sequences"]), Path(described["answer"]), Settings(**described["settings"]))

    def write(self, path: Path) -> None:
        """The file that `from_command_line` reads."""
        described = {
            "sequences": str(self.sequences),
            "answer": str(self.answer),
            "settings": vars(self.settings),
        }
        path.write_text(json.dumps(described), encoding="utf-8")


class EnoughMeasured(Exception):
    """Raised inside a training of which only the cost is wanted."""


class CostProbe:
    """CPU seconds of a training step: `tick` at the start of each, which raises EnoughMeasured after the last."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def tick(self) -> None:
        self.times.append(time.process_time())
        if len(self.times) > NUM_WARM_STEPS + NUM_STEPS:
            raise EnoughMeasured

    @property
    def step_seconds(self) -> float:
        """The median of the steps after the warm-up; an epoch of fewer steps counts them all."""
        taken = [after - before for before, after in zip(self.times, self.times[1:], strict=False)]
        return statistics.median(taken[NUM_WARM_STEPS:] or taken)


class LearningCurve:
    """Validation NDCG@10 against CPU seconds of training; says when to stop. Validation does not count as training."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.points: list[tuple[float, int, float]] = []
        self.epoch_seconds: list[float] = []
        self.begun = 0.0

    def begin_epoch(self) -> None:
        self.begun = time.process_time()

    def end_epoch(self) -> None:
        """Training of the epoch is over; what follows is validation."""
        self.epoch_seconds.append(time.process_time() - self.begun)

    def validated(self, ndcg: float) -> bool:
        """Note a point; whether it is the best so far, so that the weights are to be kept."""
        ndcg = round(ndcg, 6)
        is_best = not self.points or ndcg > self.best[2]
        self.points.append((round(self.seconds, 3), len(self.epoch_seconds), ndcg))
        print(f"epoch {len(self.epoch_seconds)}  {self.seconds:.0f} CPU s  validation NDCG@10 {ndcg:.4f}", flush=True)
        return is_best

    @property
    def seconds(self) -> float:
        return sum(self.epoch_seconds)

    @property
    def best(self) -> tuple[float, int, float]:
        """The first point of the highest value: (CPU seconds, epoch, NDCG@10)."""
        return max(self.points, key=lambda point: point[2])

    @property
    def stop_reason(self) -> str | None:
        """Why no further epoch is to be trained, or None."""
        if self.points and len(self.epoch_seconds) - self.best[1] >= self.settings.patience:
            return "patience"
        return "budget" if self.seconds >= 60 * self.settings.cpu_minutes else None


class System(Protocol):
    """A recommender with its own ways of training and recommending; real item ids outside.

    `targets_per_epoch` counts the training events that one epoch predicts from at least one event before them; it is
    None for what has no epochs. `describe` gives versions, settings of its own and whatever a reader has to know.
    """

    @property
    def targets_per_epoch(self) -> int | None: ...

    @property
    def num_parameters(self) -> int | None: ...

    def describe(self) -> dict[str, Any]: ...

    def measure_cost(self) -> float:
        """CPU seconds of an epoch, estimated from a few batches."""

    def train(self, curve: LearningCurve) -> str:
        """Train to the end, go back to the best weights; why it stopped."""

    def recommend_all(self) -> None:
        """Recommend to every user, as a user of the system would."""

    def test_lists(self) -> Lists:
        """Ten items for each user, from the history before the test event."""

    def recommend_one(self, history: list[int]) -> Sequence[Any]:
        """Ten items for somebody new."""


def peak_megabytes() -> int:
    """The most memory that this process has held, without what its parent held before it (which `ru_maxrss` counts)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    held = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    if held:
        return held[0] >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


def cpu_seconds(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def measure(job: Job, build: Callable[[Sequences, Settings], System]) -> None:
    """Train, recommend and write the answer: `{"facts": {...}, "lists": {user: [item, ...]}}`.

    To be called when everything is imported: CPU time spent until then is the time of the imports.
    """
    facts: dict[str, Any] = {"import_seconds": time.process_time()}
    sequences = Sequences.read(job.sequences)
    begun = time.process_time()
    system = build(sequences, job.settings)
    facts["preparation_seconds"] = time.process_time() - begun
    lists: Lists = {}
    if job.settings.only_cost:
        facts |= {"epoch_seconds": system.measure_cost(), "training_peak_megabytes": peak_megabytes()}
    else:
        facts |= _train(system, job.settings)
        facts["recommend_all_seconds"] = cpu_seconds(system.recommend_all)
        facts["peak_megabytes"] = peak_megabytes()
        facts |= _latency(system, sequences.new_history(NEW_HISTORY_EVENTS))
        lists = system.test_lists()
    targets = system.targets_per_epoch
    facts |= {"targets_per_epoch": targets, "num_parameters": system.num_parameters, **system.describe()}
    facts["positions_per_second"] = None if targets is None else targets / facts["epoch_seconds"]
    _write(job.answer, {"facts": facts, "lists": lists})


def _train(system: System, settings: Settings) -> dict[str, Any]:
    curve = LearningCurve(settings)
    begun = time.process_time()
    stop_reason = system.train(curve)
    seconds, epoch, ndcg = curve.best
    return {
        "fit_seconds": time.process_time() - begun,
        "training_peak_megabytes": peak_megabytes(),
        "training_seconds": curve.seconds,
        "num_epochs": len(curve.epoch_seconds),
        "epoch_seconds": curve.seconds / len(curve.epoch_seconds),
        "curve": curve.points,
        "seconds_to_best": seconds,
        "best_epoch": epoch,
        "best_validation_ndcg": ndcg,
        "stop_reason": stop_reason,
        "was_improving": len(curve.points) > 1 and epoch == curve.points[-1][1],
    }


def _latency(system: System, history: list[int]) -> dict[str, Any]:
    taken = [
        1e3 * cpu_seconds(lambda: system.recommend_one(history)) for _ in range(NUM_WARM_LATENCIES + NUM_LATENCIES)
    ]
    ordered = sorted(taken[NUM_WARM_LATENCIES:])
    return {
        "latency_p50_milliseconds": ordered[len(ordered) // 2],
        "latency_p95_milliseconds": ordered[int(0.95 * len(ordered))],
    }


def _write(path: Path, answer: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(answer), encoding="utf-8")
    os.replace(partial, path)
