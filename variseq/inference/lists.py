"""Histories and wishes into lists: the fast twin of `variseq.recommend.lists`, in numpy, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from variseq.evaluation.groups import length_group
from variseq.inference.bundle import Facts
from variseq.inference.choosing import Chooser
from variseq.inference.encoder import Encoded, OnnxEncoder
from variseq.inference.forecast import FastForecast, Voices
from variseq.inference.index import ItemIndex
from variseq.inference.softmaxes import Catalogue
from variseq.model.noise import antithetic_noise
from variseq.recommend.because import reasons
from variseq.recommend.calibration import NORMAL_90
from variseq.recommend.manner import Manner
from variseq.recommend.wishes import Wish
from variseq.sequences.histories import Histories

CELLS_AT_ONCE = 1 << 22
"""At most so many samples × histories × items are held at once: 16 MB."""
MOST_BOOSTED, MOST_EXCLUDED, MOST_LISTED = 1000, 100, 100
"""With more boosted or excluded items, or longer lists, the whole catalogue is looked at."""


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

    def part(self, rows: slice) -> Asked:
        """Some of the histories, one after the other."""
        chosen = np.arange(rows.start, rows.stop)
        histories, encoded = self.histories.rows(chosen), self.encoded.of(chosen)
        return replace(self, histories=histories, encoded=encoded, wishes=self.wishes[rows])


class FastLists:
    """An exported model, asked for lists. With an index it looks at a part of the catalogue where that is enough."""

    def __init__(
        self, encoder: OnnxEncoder, forecast: FastForecast, facts: Facts, index: ItemIndex | None = None
    ) -> None:
        self.encoder, self.forecast, self.facts, self.index = encoder, forecast, facts, index
        self._noise = self._drawn(forecast.calibration.num_samples, 0)
        self._mean = self._drawn(0, 0)
        # A part of the histories is answered at a time, so that memory does not grow with what is asked together.
        self.at_once = max(1, CELLS_AT_ONCE // (len(self._noise) * len(forecast.vectors)))

    def make(self, histories: Histories, wishes: Sequence[Wish], manner: Manner, because: bool) -> list[Listed]:
        """A list for each history and its wish."""
        encoded = self.encoder.encode(histories, self._noise)
        asked = Asked(histories, encoded, wishes, manner)
        parts = self._parts(asked)
        listed = [one for rows, catalogue in parts for one in self._make(asked.part(rows), catalogue)]
        if not because:
            return listed
        width = max(1, *(len(one.item) for one in listed))
        item = np.full((len(listed), width), -1, dtype=np.int64)
        for row, one in enumerate(listed):
            item[row, : len(one.item)] = one.item
        catalogues = [catalogue for rows, catalogue in parts for _ in range(rows.start, rows.stop)]
        named = reasons(partial(self._log_probability, catalogues), histories, item)
        return [replace(one, because=of_one[: len(one.item)]) for one, of_one in zip(listed, named, strict=True)]

    def _parts(self, asked: Asked) -> list[tuple[slice, Catalogue]]:
        """Rows that are answered together, and what of the catalogue is looked at for them."""
        num_rows = len(asked.histories)
        if self.index is None:
            firsts = range(0, num_rows, self.at_once)
            return [(slice(row, min(row + self.at_once, num_rows)), self.forecast.everything) for row in firsts]
        scaled = self.forecast.scaled(asked.encoded, asked.histories)
        found = self.index.best(scaled.mean(axis=0))
        return [
            (slice(row, row + 1), self._looked_at(asked.part(slice(row, row + 1)), found[row], self.index))
            for row in range(num_rows)
        ]

    def _looked_at(self, asked: Asked, found: Int[np.ndarray, " candidate"], index: ItemIndex) -> Catalogue:
        """What is worth looking at for one history: what an index found for it, and what is known otherwise."""
        (wish,), history = asked.wishes, asked.histories
        if not _can_be_approximate(wish, asked.manner):
            return self.forecast.everything
        certain = [found, self.forecast.memory.followers(history).item, history.item.astype(np.int64)]
        if asked.manner.explore is not None:
            sampled = self.encoder.encode(history, self._drawn(1, asked.manner.seed))
            certain.append(index.best(self.forecast.scaled(sampled, history)[0])[0])
        certain.append(np.array([item for _, item in wish.pins], dtype=np.int64))
        if wish.log_boost is not None:
            certain.append(np.flatnonzero(wish.log_boost))
        return index.catalogue(np.concatenate(certain))

    def _make(self, asked: Asked, catalogue: Catalogue) -> list[Listed]:
        histories, wishes = asked.histories, asked.wishes
        voices = self.forecast.voices(asked.encoded, histories, catalogue)
        mixture = voices.mixture()
        total, aleatoric = voices.entropies(mixture)
        ranking = self._ranking(asked, mixture, catalogue)
        choosers = [
            Chooser.of(mixture[row], histories.history(row), wish, catalogue) for row, wish in enumerate(wishes)
        ]
        chosen = [self._chosen(one, ranking[row], asked.manner) for row, one in enumerate(choosers)]
        width = max(1, *(len(of_row) for of_row, _ in chosen))
        item = np.full((len(chosen), width), -1, dtype=np.int64)
        for row, (of_row, _) in enumerate(chosen):
            item[row, : len(of_row)] = of_row
        said = _said(voices, item, np.array([one.log_weight for one in choosers]))
        return [
            Listed(
                item=of_row,
                score=score,
                probability=said.probability[row, : len(score)],
                low=said.low[row, : len(score)],
                high=said.high[row, : len(score)],
                total=float(total[row]),
                aleatoric=float(aleatoric[row]),
                because=[[] for _ in score],
                attention=asked.encoded.attention[row],
                approximate=catalogue.listed is not None,
            )
            for row, (of_row, score) in enumerate(chosen)
        ]

    def _drawn(self, num_samples: int, seed: int) -> Float[np.ndarray, "sample place latent"]:
        return antithetic_noise(num_samples, self.facts.max_length, self.facts.latent_width, seed)

    def _ranking(self, asked: Asked, mixture: np.ndarray, catalogue: Catalogue) -> np.ndarray:
        """What items are ranked by: the forecast, or what it is under one sample of every belief."""
        if asked.manner.explore is None:
            return mixture
        encoded = self.encoder.encode(asked.histories, self._drawn(1, asked.manner.seed))
        return self.forecast.voices(encoded, asked.histories, catalogue).mixture()

    def _chosen(
        self, chooser: Chooser, ranking: Float[np.ndarray, " column"], manner: Manner
    ) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """The items of one list and their scores."""
        if manner.coverage is None:
            return chooser.best(ranking, manner.diversity, self.forecast.vectors[:, :-1])
        (group,) = length_group(chooser.history.lengths)
        return chooser.covering(ranking, float(self.facts.learned.thresholds.at(manner.coverage)[group]))

    def _log_probability(
        self,
        catalogues: Sequence[Catalogue],
        histories: Histories,
        items: Int[np.ndarray, "copy k"],
        source: Int[np.ndarray, " copy"],
    ) -> Float[np.ndarray, "copy k"]:
        """What reasons ask: log p of some items of each copy of a history, at the posterior mean."""
        encoded, order = self.encoder.encode(histories, self._mean), np.argsort(source, kind="stable")
        found = np.empty(items.shape, dtype=np.float32)
        first = 0
        while first < len(order):
            catalogue = catalogues[source[order[first]]]
            last = first
            most = first + max(1, CELLS_AT_ONCE // catalogue.num_columns)
            while last < min(most, len(order)) and catalogues[source[order[last]]] is catalogue:
                last += 1
            rows = order[first:last]
            voices = self.forecast.voices(encoded.of(rows), histories.rows(rows), catalogue)
            found[rows] = np.log(voices.sampled(catalogue.column_of(items[rows]))[0])
            first = last
        return found


def _can_be_approximate(wish: Wish, manner: Manner) -> bool:
    """A set, a category or a choice of items can lie far from what an index finds; those are looked for exactly."""
    few_boosts = wish.log_boost is None or np.count_nonzero(wish.log_boost) <= MOST_BOOSTED
    excluded = 0 if wish.candidates is None else len(wish.candidates) - int(wish.candidates.sum())
    return bool(manner.coverage is None and few_boosts and excluded <= MOST_EXCLUDED and wish.k <= MOST_LISTED)


@dataclass(frozen=True, eq=False)
class Said:
    """What is said of ranked items; the fields are those of `BeliefsOfTile`."""

    probability: Float[np.ndarray, "history k"]
    low: Float[np.ndarray, "history k"]
    high: Float[np.ndarray, "history k"]


def _said(voices: Voices, item: Int[np.ndarray, "history k"], log_weight: Float[np.ndarray, " history"]) -> Said:
    sampled = voices.sampled(voices.softmaxes.catalogue.column_of(np.maximum(item, 0)))
    weight = np.exp(log_weight)[:, None]
    mean = sampled.mean(axis=0)
    log_sampled = np.log(sampled)
    spread = np.sqrt(np.square(log_sampled - log_sampled.mean(axis=0)).mean(axis=0))
    reach = np.exp(NORMAL_90 * spread)
    return Said(mean * weight, mean / reach * weight, np.minimum(mean * reach * weight, 1.0))
