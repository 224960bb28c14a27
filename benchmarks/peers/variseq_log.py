"""Sequences into the log that the project's own systems learn from: an order, and no times."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from sequences import Sequences

from variseq.events.options import ReadOptions
from variseq.log import Log, read


def log_of(sequences: Sequences) -> Log:
    """Each event stands one second after the one before it."""
    lengths = [len(history) for history in sequences.histories.values()]
    events = {
        "user_id": np.repeat(list(sequences.histories), lengths),
        "item_id": np.concatenate(list(sequences.histories.values())),
        "timestamp": np.concatenate([np.arange(1, length + 1) for length in lengths]),
    }
    return read(pa.table(events), options=ReadOptions(time_unit="seconds"))
