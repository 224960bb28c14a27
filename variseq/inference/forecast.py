"""Encoded histories into probabilities of every item: the fast twin of `variseq.recommend.forecast`, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.artifacts.bundle import Tables
from variseq.inference.columns import Block, Columns
from variseq.inference.encoder import Encoded
from variseq.inference.memory import PRIOR_EVENTS, Followers, Memory
from variseq.inference.softmaxes import Softmaxes
from variseq.ranking.calibration import Calibration
from variseq.sequences.histories import Histories

FLOOR = 1e-37


@dataclass(frozen=True, eq=False)
class Voices:
    """What the four voices say of some histories; `shares` are those of `ForecastQuery`.

    `place` is the column of each follower, −1 where there is none.
    """

    softmaxes: Softmaxes
    shares: Float[np.ndarray, "voice history"]
    followers: Followers
    place: Int[np.ndarray, " cell"]
    prior: Float[np.ndarray, "#history column"]
    trend: Float[np.ndarray, "#history column"]

    def mixture(self) -> Float[np.ndarray, "history column"]:
        """p of every column."""
        p = np.empty((self.shares.shape[1], self.softmaxes.columns.num_columns), dtype=np.float32)
        factor = self.softmaxes.factor * (self.shares[0] / self._num_samples).astype(np.float32)[:, None, None]
        for number, block in enumerate(self._blocks):
            exponential = self.softmaxes.exponential[..., block.span]
            network = np.matmul(factor[:, None, :, number], exponential)[:, 0]
            np.add(network, self._others(block.span), out=p[:, block.span])
        return np.maximum(p, FLOOR, out=p)

    def sampled(self, item: Int[np.ndarray, "history k"]) -> Float[np.ndarray, "history sample k"]:
        """p of some items that have columns, under each sample alone."""
        row = np.arange(len(item))[:, None]
        column = self.softmaxes.columns.of_items(row, item)
        neural = self.softmaxes.at(row[..., None], np.arange(self._num_samples)[:, None], column[:, None])
        network, transitions, trend, anything = self.shares[..., None]
        prior_row = np.minimum(row, len(self.prior) - 1)
        remembered = self.followers.share(item, self.prior[prior_row, column])
        of_late = self.trend[prior_row, column]
        others = transitions * remembered + trend * of_late + anything / self.softmaxes.columns.num_items
        return network[..., None] * neural + others[:, None]

    def entropies(
        self, mixture: Float[np.ndarray, "history column"]
    ) -> tuple[Float[np.ndarray, " history"], Float[np.ndarray, " history"]]:
        """In nats, the entropy of the forecast, and the mean of its entropies under each sample alone."""
        total, sampled = np.zeros(len(mixture)), np.zeros(len(mixture))
        factor = self.softmaxes.factor * self.shares[0].astype(np.float32)[:, None, None]
        for number, block in enumerate(self._blocks):
            total += _entropy(mixture[:, block.span], block.counts)
            if self._num_samples > 1:
                p = self.softmaxes.exponential[..., block.span] * factor[..., number, None]
                p += self._others(block.span)[:, None]
                counts = None if block.counts is None else block.counts[:, None]
                sampled += _entropy(np.maximum(p, FLOOR, out=p), counts).sum(axis=1)
        return total, sampled / self._num_samples if self._num_samples > 1 else total

    def _others(self, span: slice) -> Float[np.ndarray, "history column"]:
        """What all voices but the network say of a block, times their shares."""
        _, transitions, trend, anything = self.shares
        per_event = (transitions / (self.followers.total + PRIOR_EVENTS)).astype(np.float32)
        evenly = (anything / self.softmaxes.columns.num_items).astype(np.float32)
        said = per_event[:, None] * self.prior[:, span]
        said += trend.astype(np.float32)[:, None] * self.trend[:, span]
        said += evenly[:, None]
        inside = (self.place >= span.start) & (self.place < span.stop)
        row = self.followers.row[inside]
        # A follower occurs once in a row, so no cell is added to twice.
        said[row, self.place[inside] - span.start] += per_event[row] * self.followers.count[inside]
        return said

    @property
    def _blocks(self) -> list[Block]:
        return self.softmaxes.columns.blocks

    @property
    def _num_samples(self) -> int:
        return self.softmaxes.exponential.shape[1]


class FastForecast:
    """A calibrated forecast of all items, or of the columns that an index chose."""

    def __init__(self, tables: Tables, calibration: Calibration) -> None:
        self.calibration = calibration
        self.memory = Memory(tables)
        self.vectors = with_bias(tables)
        self.everything = Columns.whole(self.vectors)

    def scaled(self, encoded: Encoded, histories: Histories) -> Float[np.ndarray, "history sample hidden_plus_one"]:
        """Preferences over the temperature, with 1 / temperature as last column, the weight of the item bias."""
        warmth = 1 / self.calibration.temperature(histories.lengths)
        num_samples, num_histories, hidden_size = encoded.preference.shape
        scaled = np.empty((num_histories, num_samples, hidden_size + 1), dtype=np.float32)
        np.multiply(encoded.preference.swapaxes(0, 1), warmth[:, None, None], out=scaled[..., :-1])
        scaled[..., -1] = warmth[:, None]
        return scaled

    def voices(self, encoded: Encoded, histories: Histories, columns: Columns) -> Voices:
        """What is said of the items that have columns."""
        softmaxes = Softmaxes(columns, self.scaled(encoded, histories))
        shares = self.shares(softmaxes.log_mass.mean(axis=1), encoded.log_variance)
        followers = self.memory.followers(histories)
        place = columns.of_items(followers.row, followers.item)
        prior, trend = columns.of_columns(self.memory.prior), columns.of_columns(self.memory.trend)
        return Voices(softmaxes, shares, followers, place, prior, trend)

    def shares(
        self, log_mass: Float[np.ndarray, " history"], log_variance: Float[np.ndarray, " history"]
    ) -> Float[np.ndarray, "voice history"]:
        """How much each voice is heard: the network, and the others in the order of `GatingNetwork`."""
        odds = np.stack([np.zeros_like(log_mass), *self.calibration.gate.logits(log_mass, log_variance)])
        weight = np.exp(odds - odds.max(axis=0))
        return weight / weight.sum(axis=0)


def with_bias(tables: Tables) -> Float[np.ndarray, "item hidden_plus_one"]:
    """Item vectors with the bias as their last column."""
    return np.concatenate([tables.item_vectors, tables.item_bias[:, None]], axis=1)


def _entropy(
    p: Float[np.ndarray, "*row column"], counts: Float[np.ndarray, "*#row column"] | None
) -> Float[np.ndarray, "*row"]:
    log_p = np.log(p)
    return -np.vecdot(p if counts is None else p * counts, log_p)
