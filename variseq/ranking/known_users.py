"""Recommendations for the users of a log, some thousand at a time, and the history that somebody gives."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from variseq.events.vocabulary import Id, nearest_hint
from variseq.ranking.engine import UNKNOWN_USER, Engine, KnownHistory
from variseq.ranking.options import RecommendOptions
from variseq.ranking.recommendations import Recommendations
from variseq.sequences.given_history import given_history, too_early
from variseq.sequences.histories import Histories

USERS_AT_ONCE = 2048
MAX_HINTS = 3


def known_history(engine: Engine, history: object) -> KnownHistory:
    """A history that somebody gives, as the model reads it; see `given_history`. Warns of items that are left out."""
    known = engine.given(given_history(history))
    if unknown := known.unknown:
        ids = engine.vocabulary.items.to_pylist()
        hints = [nearest_hint(item, ids) for item in unknown[:MAX_HINTS]] + [""] * len(unknown[MAX_HINTS:])
        named = ", ".join(f"{item!r}{hint}" for item, hint in zip(unknown[:10], hints, strict=False))
        warnings.warn(
            f"{len(unknown)} of {len(unknown) + known.num_events} items of the history are not in the catalog and "
            f"were left out: {named}{', …' if len(unknown) > 10 else ''}",
            UserWarning,
            stacklevel=3,
        )
    return known


def histories_at(known: Histories, positions: Int[np.ndarray, " user"]) -> Histories:
    """The histories of some users; those of unknown ones (−1) are empty."""
    start, end = known.offsets[np.maximum(positions, 0)], known.offsets[np.maximum(positions, 0) + 1]
    return known.select(start, np.where(positions < 0, start, end))


def recommend_users(
    engine: Engine, known: Histories, users: Sequence[Id] | None, options: RecommendOptions, size: int | None = None
) -> Iterator[Recommendations]:
    """Recommendations for users, some thousand at a time; for all users of the vocabulary where `users` is None."""
    vocabulary, size = engine.vocabulary, size or USERS_AT_ONCE
    positions = np.arange(vocabulary.num_users) if users is None else vocabulary.user_positions(users)
    for first in range(0, len(positions), size):
        chosen = positions[first : first + size]
        ids = vocabulary.user_ids(chosen) if users is None else users[first : first + size]
        yield recommend_rows(engine, known, chosen, ids, options)


def recommend_rows(
    engine: Engine,
    known: Histories,
    positions: Int[np.ndarray, " user"],
    ids: Sequence[Id],
    options: RecommendOptions,
) -> Recommendations:
    """Recommendations for the histories at some positions, −1 for an unknown user, with the ids of the users.

    Raises InputError for a request time before the last event of one of them.
    """
    fallback = [None if position >= 0 else UNKNOWN_USER for position in positions.tolist()]
    return recommend_histories(engine, histories_at(known, positions), ids, fallback, options)


def recommend_histories(
    engine: Engine,
    histories: Histories,
    ids: Sequence[Id],
    fallback: Sequence[str | None],
    options: RecommendOptions,
) -> Recommendations:
    """Recommendations for histories of people with these ids; `fallback` says why a history is empty.

    Raises InputError for a request time before the last event of one of them.
    """
    if (at := options.request_time()) is not None:
        latest = np.array([one.max(initial=0) for one in np.split(histories.timestamp, histories.offsets[1:-1])])
        if len(early := np.flatnonzero(latest > at)):
            raise too_early(options.at, int(latest[early[0]]), f"user {ids[early[0]]!r}")
        histories = replace(histories, request_time=np.full(len(histories), at))
    return engine.recommend(histories, list(ids), fallback, options)
