"""Outside ids and wishes into tables of recommendations with titles, probabilities and reasons."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch.nn import functional

from variseq.errors import InputError
from variseq.events.vocabulary import Id, nearest_hint
from variseq.recommend.lists import Lists
from variseq.recommend.manner import Manner
from variseq.recommend.wishes import FROM_HISTORY, NO_HISTORY, UNKNOWN_USER, Filters, Wish, Wishes, check_k, id_list
from variseq.sequences.given_history import as_histories, given_history, history_rows
from variseq.sequences.histories import Histories

USERS_AT_ONCE = 2048
MAX_HINTS = 3
COLUMNS = [
    *("user_id", "item_id", "rank", "score", "probability", "low", "high", "title", "because", "source"),
    *("uncertainty", "aleatoric", "epistemic"),
]


class Answers:
    """A forecast with its vocabulary: asked with outside ids, it answers with them.

    An event without a behavior is taken to be of `usual_behavior`.
    """

    def __init__(
        self,
        lists: Lists,
        wishes: Wishes,
        histories: Histories | None,
        usual_behavior: int = 0,
    ) -> None:
        self.lists = lists
        self.wishes = wishes
        self.vocabulary = wishes.vocabulary
        self.items = wishes.items
        self.histories = histories
        self.usual_behavior = usual_behavior

    def for_users(self, users: Sequence[Id] | None, filters: Filters, manner: Manner) -> Iterator[pa.Table]:
        """Tables of recommendations, some thousand users at a time; all known users where `users` is None."""
        if self.histories is None:
            raise InputError("This run was saved without histories, so users are not known to it. Give a history.")
        manner.check(filters)
        wish = self.wishes.wish(filters)
        users = None if users is None else id_list(users, "users")
        known = np.arange(self.vocabulary.num_users) if users is None else self.vocabulary.user_positions(users)
        for first in range(0, len(known), USERS_AT_ONCE):
            positions = known[first : first + USERS_AT_ONCE]
            chosen = np.maximum(positions, 0)
            start, end = self.histories.offsets[chosen], self.histories.offsets[chosen + 1]
            histories = self.histories.select(start, np.where(positions < 0, start, end))
            ids = self.vocabulary.user_ids(positions) if users is None else users[first : first + USERS_AT_ONCE]
            sources = [FROM_HISTORY if position >= 0 else UNKNOWN_USER for position in positions]
            yield self._answer(list(ids), histories, wish, manner, sources)

    def for_history(self, history: object, filters: Filters, manner: Manner) -> pa.Table:
        """Recommendations for somebody who did this; unknown items are left out and warned of. See `given_history`."""
        manner.check(filters)
        rows = history_rows(given_history(history))
        known, skipped = as_histories(rows, self.vocabulary, self.usual_behavior)
        if skipped:
            warnings.warn(
                f"{len(skipped)} of {len(rows)} items of the history are not in the catalog and were left out: "
                f"{self._with_hints(skipped[:10])}{', …' if len(skipped) > 10 else ''}",
                UserWarning,
                stacklevel=3,
            )
        source = FROM_HISTORY if known.num_events else NO_HISTORY
        return self._answer([None], known, self.wishes.wish(filters), manner, [source])

    def _with_hints(self, unknown: list[Id]) -> str:
        known = self.vocabulary.items.to_pylist()
        hints = [nearest_hint(item, known) for item in unknown[:MAX_HINTS]] + [""] * len(unknown[MAX_HINTS:])
        return ", ".join(f"{item!r}{hint}" for item, hint in zip(unknown, hints, strict=True))

    def similar(self, item_ids: Sequence[Id], k: int) -> pa.Table:
        """The k items whose vectors point most nearly the same way (cosine), for each item."""
        item_ids = id_list(item_ids, "item_ids")
        check_k(k, self.vocabulary.num_items - 1, "the number of other items")
        positions = self.wishes.known_items(item_ids, "item_ids")
        vectors = functional.normalize(self.lists.forecast.network.item_vectors.detach().cpu(), dim=1)
        cosine = vectors[torch.from_numpy(positions)] @ vectors.T
        cosine[torch.arange(len(positions)), torch.from_numpy(positions)] = -torch.inf
        best = cosine.topk(k, dim=1)
        similar = best.indices.numpy().ravel()
        return pa.table(
            {
                "item_id": [item for item in item_ids for _ in range(k)],
                "similar_item_id": self.vocabulary.item_ids(similar),
                "rank": np.tile(np.arange(1, k + 1), len(positions)),
                "score": best.values.numpy().ravel(),
                "title": self._titles(similar),
            }
        )

    def _answer(
        self, users: list[Any], histories: Histories, wish: Wish, manner: Manner, sources: list[str]
    ) -> pa.Table:
        if manner.ranks_only:
            ranked = self.lists.ranks(histories, wish)
            return pa.table(self._columns(users, ranked.item, ranked.score, sources))
        made = self.lists.make(histories, wish, manner)
        columns = self._columns(users, made.item, made.score, sources)
        row, place = np.nonzero(made.item >= 0)
        reasons = self._named([made.because[h][p] for h, p in zip(row.tolist(), place.tolist(), strict=True)])
        more = {
            "probability": made.probability[row, place],
            "low": made.low[row, place],
            "high": made.high[row, place],
            "because": pa.array(reasons, pa.list_(pa.string())),
            "uncertainty": made.total[row],
            "aleatoric": made.aleatoric[row],
            "epistemic": made.epistemic[row],
        }
        return pa.table(columns | more).select(COLUMNS)

    def _columns(
        self,
        users: list[Any],
        item: Int[np.ndarray, "history k"],
        score: Float[np.ndarray, "history k"],
        sources: list[str],
    ) -> dict[str, Any]:
        """What is told of every recommended item."""
        row, place = np.nonzero(item >= 0)
        found = item[row, place]
        return {
            "user_id": pa.array(users, self.vocabulary.users.type).take(pa.array(row)),
            "item_id": pa.array(self.vocabulary.item_ids(found), self.vocabulary.items.type),
            "rank": place + 1,
            "score": score[row, place],
            "title": pa.array(self._titles(found), pa.string()),
            "source": pa.array(sources, pa.string()).take(pa.array(row)),
        }

    def _titles(self, item: Int[np.ndarray, " item"]) -> list[str | None]:
        return [None] * len(item) if self.items is None else self.items.titles(item)

    def _named(self, items: list[list[int]]) -> list[list[str]]:
        """Titles of items, ids where there is none; looked up all at once."""
        flat = np.array([item for one in items for item in one], dtype=np.int64)
        ids, titles = self.vocabulary.item_ids(flat), self._titles(flat)
        names = iter([title if title is not None else str(of) for of, title in zip(ids, titles, strict=True)])
        return [[next(names) for _ in one] for one in items]
