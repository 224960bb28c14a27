"""Histories and wishes into lists: the fast twin of `variseq.recommend.lists`, in numpy, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.artifacts.bundle import Facts
from variseq.inference.choosing import Chooser
from variseq.inference.columns import Columns
from variseq.inference.encoder import Encoded, OnnxEncoder
from variseq.inference.forecast import FastForecast, Voices
from variseq.inference.index import ItemIndex
from variseq.inference.trials import Trials
from variseq.model.noise import antithetic_noise
from variseq.ranking.calibration import NORMAL_90, length_group
from variseq.recommend.because import HISTORIES_AT_ONCE, NUM_CANDIDATES, Reasons, reasons
from variseq.recommend.manner import Manner
from variseq.recommend.wishes import Wish
from variseq.sequences.histories import Histories

CELLS_AT_ONCE = 1 << 22
"""At most so many samples × histories × items are held at once: 16 MB."""
MOST_BOOSTED, MOST_EXCLUDED, MOST_LISTED = 1000, 100, 100
"""With more boosted or excluded items, or longer lists, the whole catalog is looked at."""


@dataclass(frozen=True, eq=False)
class Listed:
    """One list, best first; the fields are those of `MadeLists`. `attention` has one weight a token of the window."""

    item: Int[np.ndarray, " k"]
    score: Float[np.ndarray, " k"]
    probability: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]
    total: float
    aleatoric: float
    because: list[list[int]]
    attention: Float[np.ndarray, " token"]
    approximate: bool

    @property
    def epistemic(self) -> float:
        return max(0.0, self.total - self.aleatoric)

    def rows(self) -> Iterator[tuple[int, float, float, float, float, list[int]]]:
        """(item, score, probability, low, high, reasons) of each place."""
        columns = (self.item, self.score, self.probability, self.low, self.high)
        return zip(*(column.tolist() for column in columns), self.because, strict=True)


@dataclass(frozen=True, eq=False)
class Asked:
    """Some histories, encoded, with what is wished for each, and how their lists are made."""

    histories: Histories
    encoded: Encoded
    wishes: Sequence[Wish]
    manner: Manner

    def part(self, rows: Int[np.ndarray, " row"]) -> Asked:
        """Some of the histories."""
        wishes = [self.wishes[row] for row in rows.tolist()]
        return Asked(self.histories.rows(rows), self.encoded.of(rows), wishes, self.manner)


class FastLists:
    """An exported model, asked for lists. With an index it looks at a part of the catalog where that is enough."""

    def __init__(
        self, encoder: OnnxEncoder, forecast: FastForecast, facts: Facts, index: ItemIndex | None = None
    ) -> None:
        self.encoder, self.forecast, self.facts, self.index = encoder, forecast, facts, index
        self._noise = self._drawn(forecast.calibration.num_samples, 0)
        self._mean = self._drawn(0, 0)

    def make(self, histories: Histories, wishes: Sequence[Wish], manner: Manner, because: bool) -> list[Listed]:
        """A list for each history and its wish."""
        asked = Asked(histories, self.encoder.encode(histories, self._noise), wishes, manner)
        listed: dict[int, Listed] = {}
        for rows, index in self._parts(asked):
            listed |= zip(rows.tolist(), self._make(asked.part(rows), index, because), strict=True)
        return [listed[row] for row in range(len(histories))]

    def _parts(self, asked: Asked) -> Iterator[tuple[Int[np.ndarray, " row"], ItemIndex | None]]:
        """Rows that are answered together, so many that memory does not grow with what is asked; and by which index."""
        is_short = np.array([_can_be_approximate(wish, asked.manner) for wish in asked.wishes])
        if self.index is None:
            is_short[:] = False
        copies = max(len(self._noise), 1 + NUM_CANDIDATES)
        of_whole = max(1, CELLS_AT_ONCE // (copies * len(self.forecast.vectors)))
        for rows, size, index in (
            (np.flatnonzero(is_short), HISTORIES_AT_ONCE, self.index),
            (np.flatnonzero(~is_short), min(of_whole, HISTORIES_AT_ONCE), None),
        ):
            yield from ((rows[first : first + size], index) for first in range(0, len(rows), size))

    def _make(self, asked: Asked, index: ItemIndex | None, because: bool) -> list[Listed]:
        histories, encoded, wishes, manner = asked.histories, asked.encoded, asked.wishes, asked.manner
        explored = None if manner.explore is None else self.encoder.encode(histories, self._drawn(1, manner.seed))
        columns = self.forecast.everything if index is None else self._short(asked, explored, index)
        voices = self.forecast.voices(encoded, histories, columns)
        mixture = voices.mixture()
        total, aleatoric = voices.entropies(mixture)
        chooser = Chooser.of(mixture, histories, wishes, columns)
        ranking = mixture if explored is None else self.forecast.voices(explored, histories, columns).mixture()
        if manner.coverage is None:
            chosen = chooser.best(ranking, manner.diversity, self.forecast.vectors[:, :-1])
        else:
            limits = self.facts.calibrated.thresholds.at(manner.coverage)[length_group(histories.lengths)]
            chosen = chooser.covering(ranking, limits)
        item = np.full((len(chosen), max(1, *(len(of_row) for of_row, _ in chosen))), -1, dtype=np.int64)
        for row, (of_row, _) in enumerate(chosen):
            item[row, : len(of_row)] = of_row
        said = _said(voices, item, chooser.log_weight)
        named = self._reasons(columns, histories, item) if because else [[[] for _ in of_row] for of_row in item]
        return [
            Listed(
                item=of_row,
                score=score,
                probability=said.probability[row, : len(score)],
                low=said.low[row, : len(score)],
                high=said.high[row, : len(score)],
                total=float(total[row]),
                aleatoric=float(aleatoric[row]),
                because=named[row][: len(score)],
                attention=encoded.attention[row],
                approximate=index is not None,
            )
            for row, (of_row, score) in enumerate(chosen)
        ]

    def _short(self, asked: Asked, explored: Encoded | None, index: ItemIndex) -> Columns:
        """What is worth looking at for each history: what an index finds for it, and what is known otherwise."""
        histories, num_histories = asked.histories, len(asked.histories)
        row, memory = np.arange(num_histories), self.forecast.memory
        followers, trending = memory.followers(histories), memory.by_trend[: index.num_trending]
        cells = [
            (np.repeat(row, histories.lengths), histories.item.astype(np.int64)),
            (followers.row, followers.item),
            (np.repeat(row, len(trending)), np.tile(trending, num_histories)),
        ]
        for encoded in (asked.encoded, explored):
            if encoded is not None:
                found = index.best(self.forecast.scaled(encoded, histories).mean(axis=1))
                cells.append((np.repeat(row, found.shape[1]), found.ravel()))
        for place, wish in enumerate(asked.wishes):
            boosted = [] if wish.log_boost is None else np.flatnonzero(wish.log_boost).tolist()
            wished = np.array([*boosted, *(item for _, item in wish.pins)], dtype=np.int64)
            cells.append((np.full(len(wished), place), wished))
        of_row, item = (np.concatenate(part) for part in zip(*cells, strict=True))
        return index.columns(of_row, item, num_histories)

    def _drawn(self, num_samples: int, seed: int) -> Float[np.ndarray, "sample place latent"]:
        return antithetic_noise(num_samples, self.facts.max_seq_len, self.facts.latent_dim, seed)

    def _reasons(self, columns: Columns, histories: Histories, item: Int[np.ndarray, "history k"]) -> Reasons:
        trials = Trials(self.encoder, self.forecast, columns, self._mean, len(histories))
        return reasons(trials.log_probability, histories, item)


def _can_be_approximate(wish: Wish, manner: Manner) -> bool:
    """A set, a category or a choice of items can lie far from what an index finds; those are looked for exactly."""
    few_boosts = wish.log_boost is None or np.count_nonzero(wish.log_boost) <= MOST_BOOSTED
    excluded = 0 if wish.candidates is None else len(wish.candidates) - int(wish.candidates.sum())
    return bool(manner.coverage is None and few_boosts and excluded <= MOST_EXCLUDED and wish.k <= MOST_LISTED)


@dataclass(frozen=True, eq=False)
class Said:
    """What is said of ranked items; the fields are those of `PosteriorsOfTile`."""

    probability: Float[np.ndarray, "history k"]
    low: Float[np.ndarray, "history k"]
    high: Float[np.ndarray, "history k"]


def _said(voices: Voices, item: Int[np.ndarray, "history k"], log_weight: Float[np.ndarray, " history"]) -> Said:
    sampled = voices.sampled(np.maximum(item, 0))
    weight = np.exp(log_weight)[:, None]
    mean = sampled.mean(axis=1)
    log_sampled = np.log(sampled)
    spread = log_sampled.std(axis=1)
    reach = np.exp(NORMAL_90 * spread)
    return Said(mean * weight, mean / reach * weight, np.minimum(mean * reach * weight, 1.0))
