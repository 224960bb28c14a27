"""Histories and wishes into lists: the fast twin of `variseq.recommend.lists`, in numpy, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.evaluation.groups import length_group
from variseq.inference.bundle import Facts
from variseq.inference.encoder import Encoded, OnnxEncoder
from variseq.inference.forecast import FastForecast, Voices
from variseq.model.noise import antithetic_noise
from variseq.recommend.because import reasons
from variseq.recommend.diversity import pool_size, spread_out
from variseq.recommend.manner import Manner
from variseq.recommend.wishes import Wish, allowed_pins, with_pins
from variseq.sequences.histories import Histories

NORMAL_90 = 1.645
"""How many standard deviations the central 90 % of a normal distribution reach to each side."""
CELLS_AT_ONCE = 1 << 23
"""At most so many samples × histories × items are held at once: 32 MB."""


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

    @property
    def epistemic(self) -> float:
        return max(0.0, self.total - self.aleatoric)

    def rows(self) -> Iterator[tuple[int, float, float, float, float, list[int]]]:
        """(item, score, probability, low, high, reasons) of each place."""
        columns = (self.item, self.score, self.probability, self.low, self.high)
        return zip(*(column.tolist() for column in columns), self.because, strict=True)


class FastLists:
    """An exported model, asked for lists."""

    def __init__(self, encoder: OnnxEncoder, forecast: FastForecast, facts: Facts) -> None:
        self.encoder, self.forecast, self.facts = encoder, forecast, facts
        self.learned = facts.learned
        self._noise = self._drawn(forecast.calibration.num_samples, 0)
        self._mean = self._drawn(0, 0)
        # A part of the histories is answered at a time, so that memory does not grow with what is asked together.
        of_one = len(self._noise) * len(forecast.vectors)
        self.at_once = max(1, CELLS_AT_ONCE // of_one)

    def make(self, histories: Histories, wishes: Sequence[Wish], manner: Manner, because: bool) -> list[Listed]:
        """A list for each history and its wish."""
        found: list[Listed] = []
        for first in range(0, len(histories), self.at_once):
            bounds = histories.offsets[first : first + self.at_once + 1]
            part = histories.select(bounds[:-1], bounds[1:])
            found += self._make(part, wishes[first : first + self.at_once], manner, because)
        return found

    def _make(self, histories: Histories, wishes: Sequence[Wish], manner: Manner, because: bool) -> list[Listed]:
        encoded = self.encoder.encode(histories, self._noise)
        voices = self.forecast.voices(encoded, histories)
        mixture = voices.mixture()
        total, aleatoric = voices.entropies(mixture)
        log_weight = np.array([self._log_weight(histories, mixture, row, one) for row, one in enumerate(wishes)])
        ranking = self._ranking(histories, mixture, manner)
        chosen = [
            self._chosen(ranking[row], histories.history(row), wish, manner, float(log_weight[row]))
            for row, wish in enumerate(wishes)
        ]
        width = max(1, *(len(item) for item, _ in chosen))
        item = np.full((len(chosen), width), -1, dtype=np.int64)
        for row, (of_row, _) in enumerate(chosen):
            item[row, : len(of_row)] = of_row
        said = _said(voices, item, log_weight)
        named = reasons(self._log_probability, histories, item) if because else [[[]] * width] * len(chosen)
        return [
            Listed(
                item=item[row, : len(score)],
                score=score,
                probability=said.probability[row, : len(score)],
                low=said.low[row, : len(score)],
                high=said.high[row, : len(score)],
                total=float(total[row]),
                aleatoric=float(aleatoric[row]),
                because=named[row][: len(score)],
                attention=encoded.attention[row],
            )
            for row, (_, score) in enumerate(chosen)
        ]

    def _drawn(self, num_samples: int, seed: int) -> Float[np.ndarray, "sample place latent"]:
        return antithetic_noise(num_samples, self.facts.max_length, self.facts.latent_width, seed)

    def _ranking(self, histories: Histories, mixture: np.ndarray, manner: Manner) -> np.ndarray:
        """What items are ranked by: the forecast, or what it is under one sample of every belief."""
        if manner.explore is None:
            return mixture
        encoded = self.encoder.encode(histories, self._drawn(1, manner.seed))
        return self.forecast.voices(encoded, histories).mixture()

    def _log_weight(self, histories: Histories, mixture: np.ndarray, row: int, wish: Wish) -> float:
        """log of what p is multiplied by to be the probability of a new item: the hurdle of `log_weights`."""
        if not wish.exclude_seen:
            return 0.0
        seen = np.unique(histories.item[histories.offsets[row] : histories.offsets[row + 1]])
        # What a recommender's scores come to over all items is 1 here, up to rounding.
        of_seen = min(float(mixture[row, seen].sum(dtype=np.float64)), 1.0)
        if of_seen <= 0:
            return 0.0
        return math.log1p(-wish.repeat_share) - math.log(1 - of_seen) if of_seen < 1 else -math.inf

    def _chosen(
        self, p: np.ndarray, history: Histories, wish: Wish, manner: Manner, log_weight: float
    ) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """The items of one list and the scores that they are ranked by."""
        ranked = p.copy()
        if wish.exclude_seen:
            ranked[history.item] = -1.0
        if manner.coverage is not None:
            item = self._set(ranked, history, wish, manner.coverage, log_weight)
            return item, np.log(p[item])
        if wish.log_boost is not None:
            ranked *= np.exp(wish.log_boost)
        if wish.candidates is not None:
            ranked[~wish.candidates] = -1.0
        item = _best(ranked, pool_size(wish.k, wish.num_items) if manner.diversity else wish.k)
        if manner.diversity:
            vectors = self.forecast.vectors[item, :-1][None]
            pool = np.arange(len(item))[None]
            place = spread_out(pool, ranked[item][None], vectors[0], wish.k, manner.diversity)[0]
            item = item[place[place >= 0]]
        if wish.pins:
            pinned = with_pins(item.tolist(), allowed_pins(wish, history.item), wish.k)
            item = np.array(pinned, dtype=np.int64)
        return item, np.log(np.maximum(ranked[item], 1e-37))

    def _set(self, p: np.ndarray, history: Histories, wish: Wish, coverage: float, log_weight: float) -> np.ndarray:
        """The smallest set that holds the next item with a probability, as `Lists` makes it."""
        (group,) = length_group(history.lengths)
        limit = self.learned.thresholds.at(coverage)[group]
        order = np.argsort(-p, kind="stable")
        order = order[p[order] >= 0]
        said = p[order].astype(np.float64) * math.exp(log_weight)
        inside = order[np.cumsum(said) - said <= limit]
        return inside if wish.candidates is None else inside[wish.candidates[inside]]

    def _log_probability(
        self, histories: Histories, items: Int[np.ndarray, "history k"]
    ) -> Float[np.ndarray, "history k"]:
        """What reasons ask: log p of some items of each history at the posterior mean."""
        encoded: Encoded = self.encoder.encode(histories, self._mean)
        found = np.empty(items.shape, dtype=np.float32)
        size = max(1, CELLS_AT_ONCE // len(self.forecast.vectors))
        for first in range(0, len(histories), size):
            tile, bounds = slice(first, first + size), histories.offsets[first : first + size + 1]
            part = Encoded(encoded.preference[:, tile], encoded.log_variance[tile], encoded.attention[tile])
            voices = self.forecast.voices(part, histories.select(bounds[:-1], bounds[1:]))
            found[tile] = np.log(voices.sampled(items[tile])[0])
        return found


@dataclass(frozen=True, eq=False)
class Said:
    """What is said of ranked items; the fields are those of `BeliefsOfTile`."""

    probability: Float[np.ndarray, "history k"]
    low: Float[np.ndarray, "history k"]
    high: Float[np.ndarray, "history k"]


def _said(voices: Voices, item: Int[np.ndarray, "history k"], log_weight: Float[np.ndarray, " history"]) -> Said:
    sampled = voices.sampled(np.maximum(item, 0))
    weight = np.exp(log_weight)[:, None]
    mean = sampled.mean(axis=0)
    reach = np.exp(NORMAL_90 * np.log(sampled).std(axis=0))
    return Said(mean * weight, mean / reach * weight, np.minimum(mean * reach * weight, 1.0))


def _best(ranked: Float[np.ndarray, " item"], k: int) -> Int[np.ndarray, " k"]:
    """The k best candidates (those below 0 are none), best first; of equal ones the smaller item first."""
    if k < len(ranked):
        # The k-th best value first, so that of equal ones the smaller items are taken.
        limit = np.partition(ranked, len(ranked) - k)[len(ranked) - k]
        place = np.flatnonzero(ranked >= limit)
    else:
        place = np.arange(len(ranked))
    place = place[ranked[place] >= 0]
    return place[np.lexsort((place, -ranked[place]))][:k]
