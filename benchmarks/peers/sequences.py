"""A file of lines "user item item ..." into histories, split leave-one-out; for every system, whatever its environment.

Imports the standard library only, as the environments of the rivals have neither this project nor its requirements.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

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
