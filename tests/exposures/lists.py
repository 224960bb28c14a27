"""Lists and exposures that tests make by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from variseq.events.vocabulary import Id
from variseq.exposures.history import HistoryDigest, history_hash
from variseq.exposures.records import EventRecord, ExposureRecord, Record
from variseq.exposures.segments import ExposureLog
from variseq.exposures.table import Exposures
from variseq.ranking.options import RecommendOptions
from variseq.ranking.recommendations import Recommendations

SECOND = 1_000_000
START = 1_764_504_000 * SECOND
"""November 30, 2025, noon."""


def listed(items: Sequence[Id], at_rank: Sequence[float] | None = None, scores: Sequence[float] | None = None) -> Any:
    """A list, with the same probability at each rank and in the list."""
    num = len(items)
    column = None if at_rank is None else np.array(at_rank, dtype=np.float64)
    nothing = [None] * num
    score = -np.arange(1.0, num + 1) if scores is None else np.array(scores)
    return Recommendations(
        nothing, list(items), np.arange(1, num + 1), score, None, None, None, nothing, [""] * num, None, nothing, None,
        None, None, column, column,
    )  # fmt: skip


def exposure(
    exposure_id: str,
    items: Sequence[Id],
    user_id: Id | None = "ann",
    time: int = START,
    at_rank: Sequence[float] | None = None,
    **options: Any,
) -> ExposureRecord:
    """A record of a list."""
    history = HistoryDigest(history_hash([], b"key"), 0, None)
    return ExposureRecord(
        exposure_id, time, user_id, history, "m1", RecommendOptions(**options), listed(items, at_rank)
    )


def event(event_id: str, item_id: Id, time: int, user_id: Id = "ann", behavior: str | None = None, **more: Any) -> Any:
    """A record of an event."""
    return EventRecord(event_id, time, user_id, item_id, behavior, None, **more)


def write(folder: Path, *records: Record, **options: Any) -> dict[tuple[str, str], int]:
    """Write records as one process does; how many had each outcome, by kind."""
    outcomes: dict[tuple[str, str], int] = {}

    def count(kind: str, outcome: str) -> None:
        outcomes[kind, outcome] = outcomes.get((kind, outcome), 0) + 1

    log = ExposureLog(folder, count=count, **options)
    for record in records:
        log.add(record)
    log.close()
    return outcomes


def rows_of(exposures: Exposures) -> list[tuple[str, Id, int, float]]:
    """Exposure id, item id, rank and reward of each row."""
    ids = [exposures.exposure_id[one] for one in exposures.row_exposure.tolist()]
    items = [exposures.item_ids[one] for one in exposures.item.tolist()]
    return list(zip(ids, items, exposures.rank.tolist(), exposures.reward.tolist(), strict=True))
