"""Epoch records into metrics.jsonl, and into TensorBoard where that is wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from variseq.errors import MissingDependencyError


class MetricsFile:
    """One JSON object per line and epoch, written as the epoch ends."""

    def __init__(self, path: Path, first_epoch: int = 0) -> None:
        self.path = path
        # A resumed run writes its epochs again: lines of epochs that are still to come are dropped.
        self.kept = [record for record in read_metrics(path) if record["epoch"] < first_epoch]
        path.write_text("".join(json.dumps(record) + "\n" for record in self.kept), encoding="utf-8")

    def __call__(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics file; none where it does not exist."""
    if not path.exists():
        return []
    # A line without its end was being written when the run broke off.
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


class TensorBoardFile:
    """The numbers of each record as TensorBoard scalars; needs the extra `tensorboard`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError("TensorBoard", "tensorboard") from error
        self.writer = SummaryWriter(str(folder))

    def __call__(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, record["epoch"])
        self.writer.flush()
