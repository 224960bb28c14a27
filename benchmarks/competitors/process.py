"""One system in one process: data, training, recommending and timing, the same steps for every library.

Imports the standard library only, as the environments of competing libraries have neither this project nor what it
needs (torch is imported where scores are ranked). The clock is the CPU time of the process, which stands still while
another system runs.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

K = 10
NEW_HISTORY_EVENTS = 50
NUM_LATENCIES, NUM_WARM_LATENCIES = 100, 5
NUM_STEPS, NUM_WARM_STEPS = 6, 2
Lists = dict[int, list[int]]
Histories = dict[int, list[int]]
NEW_HISTORY_SEED = 7


@dataclass(frozen=True)
class Sequences:
    """The whole history of each user, oldest first: the last event is test, the one before it validation."""

    histories: Histories

    @classmethod
    def read(cls, path: Path) -> Sequences:
        """All lines of a file; `data_sets.py` has made sure that each has three events or more."""
        histories: Histories = {}
        with path.open(encoding="utf-8") as file:
            for line in file:
                user, *items = (int(field) for field in line.split())
                histories[user] = items
        return cls(histories)

    @cached_property
    def items(self) -> list[int]:
        """The catalog, in ascending order."""
        return sorted({item for history in self.histories.values() for item in history})

    @cached_property
    def train(self) -> Histories:
        """What is learned from, and what is known when the validation event is asked for."""
        return {user: history[:-2] for user, history in self.histories.items()}

    @cached_property
    def before_test(self) -> Histories:
        """What is known when the test event is asked for."""
        return {user: history[:-1] for user, history in self.histories.items()}

    @cached_property
    def validation(self) -> dict[int, int]:
        return {user: history[-2] for user, history in self.histories.items()}

    @cached_property
    def test(self) -> dict[int, int]:
        return {user: history[-1] for user, history in self.histories.items()}

    def num_targets(self, max_seq_len: int | None = None) -> int:
        """Training events with an event before them; with `max_seq_len` only the latest so many of each user."""
        counts = (len(history) - 1 for history in self.train.values() if len(history) > 1)
        return sum(count if max_seq_len is None else min(count, max_seq_len) for count in counts)

    def new_history(self, num_events: int) -> list[int]:
        """Different items that nobody has had in this order, drawn as often as they occur in training."""
        drawn = random.Random(NEW_HISTORY_SEED)
        events = [item for history in self.train.values() for item in history]
        drawn.shuffle(events)
        return list(dict.fromkeys(events))[:num_events]


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
    hidden_size: int = 64
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


def without_seen(scores: Any, seen: list[list[int]]) -> Any:
    """The scores [history, item] with the columns of each history's items at −∞; changed in place."""
    import torch

    row = torch.tensor([place for place, items in enumerate(seen) for _ in items])
    column = torch.tensor([item for items in seen for item in items])
    scores[row, column] = -torch.inf
    return scores


def sum_of_ndcg(scores: Any, target: Any) -> float:
    """NDCG@10 summed over histories with one target each; ties count against the model, as in `variseq.evaluation`."""
    import torch

    rank = (scores >= scores.gather(1, target[:, None])).sum(1)
    return float(torch.where(rank <= K, 1 / torch.log2(rank + 1.0), 0.0).sum())


def padded(histories: list[list[int]], max_seq_len: int, padding: int, at_end: bool) -> Any:
    """The latest events of each history [history, max_seq_len], with the padding after them or before them."""
    import torch

    table = torch.full((len(histories), max_seq_len), padding)
    for row, history in enumerate(histories):
        latest = history[-max_seq_len:]
        place = slice(0, len(latest)) if at_end else slice(max_seq_len - len(latest), max_seq_len)
        table[row, place] = torch.tensor(latest, dtype=torch.long)
    return table
