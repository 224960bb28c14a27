"""Callbacks of a training run: the base class, the metrics file and TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from variseq.errors import MissingDependencyError


@runtime_checkable
class TrainingCallback(Protocol):
    """Receives the progress of a training run.

    Every method does nothing; a subclass overrides what it needs and is passed to `fit(callback=...)`.
    """

    def on_refit(self, number: int, num_refits: int) -> None:
        """Refit `number` (from 0) begins."""
        return

    def on_begin(self, num_epochs: int) -> None:
        """Training begins or resumes; it ends after `num_epochs` epochs, or earlier by patience."""
        return

    def on_batch(self, epoch: int, done: float, tokens_per_second: float, seconds_left: float) -> None:
        """A batch is finished; `done` is the finished fraction of the epoch (counted from 0)."""
        return

    def on_epoch(self, record: dict[str, Any]) -> None:
        """An epoch is finished; `record` is its line of metrics.jsonl."""
        return

    def on_end(self, is_finished: bool) -> None:
        """Training has ended; it is not finished after an interrupt or an error."""
        return


class MetricsFile(TrainingCallback):
    """One JSON object per line and epoch, written as the epoch ends."""

    def __init__(self, path: Path, first_epoch: int = 0) -> None:
        self.path = path
        # A resumed run writes its epochs again: lines of epochs that are still to come are dropped.
        self.kept = [record for record in read_metrics(path) if record["epoch"] < first_epoch]
        path.write_text("".join(json.dumps(record) + "\n" for record in self.kept), encoding="utf-8")

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Append the record."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics file; none where it does not exist."""
    if not path.exists():
        return []
    # A line without its end was being written when the run broke off.
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


class TensorBoardFile(TrainingCallback):
    """The numbers of each record as TensorBoard scalars; needs the extra `tensorboard`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError("TensorBoard", "tensorboard") from error
        self.writer = SummaryWriter(str(folder))

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Write every number of the record."""
        for name, value in record.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, record["epoch"])
        self.writer.flush()
