"""Encoded histories into probabilities of every item: the fast twin of `variseq.recommend.forecast`, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.inference.bundle import Tables
from variseq.inference.encoder import Encoded
from variseq.inference.softmaxes import Block, Catalogue, Softmaxes
from variseq.recommend.calibration import Calibration
from variseq.sequences.histories import Histories

FLOOR = 1e-37
PRIOR_EVENTS = 100.0
"""As in `LastItemTransitions`, whose counts these are."""


@dataclass(frozen=True, eq=False)
class Followers:
    """What followed the last item of each history: cells (row, item) with a count, and the total of each row."""

    total: Float[np.ndarray, " history"]
    row: Int[np.ndarray, " cell"]
    item: Int[np.ndarray, " cell"]
    count: Float[np.ndarray, " cell"]


class Memory:
    """Counted transitions, smoothed by the popularity of the items."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.prior = (PRIOR_EVENTS * np.exp(tables.log_share.astype(np.float64))).astype(np.float32)

    def followers(self, histories: Histories) -> Followers:
        """Those of the last item of each history."""
        tables, known = self.tables, np.flatnonzero(histories.lengths)
        last_item = histories.item[histories.offsets[known + 1] - 1]
        start, end = tables.offsets[last_item], tables.offsets[last_item + 1]
        row = np.repeat(known, end - start)
        index = np.arange(len(row)) - np.repeat(np.cumsum(end - start) - (end - start), end - start)
        index += np.repeat(start, end - start)
        count = tables.count[index]
        # Without any cell numpy counts in integers.
        total = np.bincount(row, weights=count, minlength=len(histories)).astype(np.float64)
        return Followers(total, row, tables.follower[index].astype(np.int64), count)


@dataclass(frozen=True, eq=False)
class Voices:
    """What the three voices say of some histories; `shares` and `log_mass` are those of `ForecastQuery`.

    Columns are those of the catalogue that was asked, which may stand for some items only; `place` is the column of
    each follower, −1 where there is none.
    """

    softmaxes: Softmaxes
    num_samples: int
    shares: Float[np.ndarray, "voice history"]
    followers: Followers
    place: Int[np.ndarray, " cell"]
    prior: Float[np.ndarray, " column"]
    num_items: int

    @property
    def num_histories(self) -> int:
        return self.shares.shape[1]

    def network(self, number: int) -> Float[np.ndarray, "history column"]:
        """The mean over samples of what the network says of a block, without its share."""
        exponential = self._samples(self.softmaxes.exponential[:, self._blocks[number].span])
        factor = self._samples(self.softmaxes.factor[:, number]) / self.num_samples
        return np.einsum("shc,sh->hc", exponential, factor)

    def others(self, number: int) -> Float[np.ndarray, "history column"]:
        """What memory and anything say of a block, times their shares."""
        span = self._blocks[number].span
        _, memory, anything = self.shares
        per_event = (memory / (self.followers.total + PRIOR_EVENTS)).astype(np.float32)
        said = per_event[:, None] * self.prior[span] + (anything / self.num_items).astype(np.float32)[:, None]
        inside = (self.place >= span.start) & (self.place < span.stop)
        row = self.followers.row[inside]
        # A follower occurs once in a row, so no cell is added to twice.
        said[row, self.place[inside] - span.start] += per_event[row] * self.followers.count[inside]
        return said

    def mixture(self) -> Float[np.ndarray, "history column"]:
        """p of every column."""
        p = np.empty((self.num_histories, self.softmaxes.catalogue.num_columns), dtype=np.float32)
        share = self.shares[0].astype(np.float32)[:, None]
        for number, block in enumerate(self._blocks):
            p[:, block.span] = share * self.network(number) + self.others(number)
        return np.maximum(p, FLOOR, out=p)

    def sampled(self, column: Int[np.ndarray, "history k"]) -> Float[np.ndarray, "sample history k"]:
        """p of some columns under each sample alone."""
        row = np.arange(self.num_histories)
        rows = row[None, :, None] + self.num_histories * np.arange(self.num_samples)[:, None, None]
        neural = self.softmaxes.at(rows, column[None])
        network, memory, anything = (share[:, None] for share in self.shares)
        counted = np.zeros(column.shape)
        for place in range(column.shape[1]):
            same = self.place == column[self.followers.row, place]
            counted[:, place] = np.bincount(
                self.followers.row[same], weights=self.followers.count[same], minlength=len(column)
            )
        remembered = (counted + self.prior[column]) / (self.followers.total + PRIOR_EVENTS)[:, None]
        return network * neural + memory * remembered + anything / self.num_items

    def entropies(
        self, mixture: Float[np.ndarray, "history column"]
    ) -> tuple[Float[np.ndarray, " history"], Float[np.ndarray, " history"]]:
        """In nats, the entropy of the forecast, and the mean of its entropies under each sample alone."""
        total, sampled = np.zeros(self.num_histories), np.zeros(self.num_histories)
        for number, block in enumerate(self._blocks):
            total += _entropy(mixture[:, block.span], block.counts)
            if self.num_samples > 1:
                scale = self._samples(self.softmaxes.factor[:, number]) * self.shares[0].astype(np.float32)
                p = self._samples(self.softmaxes.exponential[:, block.span]) * scale[..., None]
                p += self.others(number)
                sampled += _entropy(np.maximum(p, FLOOR, out=p), block.counts).sum(axis=0)
        return total, sampled / self.num_samples if self.num_samples > 1 else total

    @property
    def _blocks(self) -> list[Block]:
        return self.softmaxes.catalogue.blocks

    def _samples(self, rows: np.ndarray) -> np.ndarray:
        """Rows (sample by sample) with the sample as an axis of its own."""
        return rows.reshape(self.num_samples, self.num_histories, *rows.shape[1:])


class FastForecast:
    """A calibrated forecast of a whole catalogue, or of the columns that an index chose."""

    def __init__(self, tables: Tables, calibration: Calibration) -> None:
        self.calibration = calibration
        self.memory = Memory(tables)
        self.vectors = with_bias(tables)
        self.everything = Catalogue.whole(self.vectors)

    def scaled(self, encoded: Encoded, histories: Histories) -> Float[np.ndarray, "sample history width_plus_one"]:
        """Preferences over the temperature, with 1 / temperature as last column, the weight of the item bias."""
        ones = np.ones_like(encoded.preference[..., :1])
        temperature = self.calibration.temperature(histories.lengths)
        return np.concatenate([encoded.preference, ones], axis=2) / temperature[:, None]

    def voices(self, encoded: Encoded, histories: Histories, catalogue: Catalogue | None = None) -> Voices:
        """What is said of the items of a catalogue, all items where None."""
        catalogue = self.everything if catalogue is None else catalogue
        preference = self.scaled(encoded, histories)
        softmaxes = Softmaxes(catalogue, preference.reshape(-1, preference.shape[2]))
        followers = self.memory.followers(histories)
        log_mass = softmaxes.log_mass.reshape(preference.shape[:2]).mean(axis=0)
        shares = _voice_shares(self.calibration, log_mass, encoded.log_variance)
        prior, place = catalogue.of_columns(self.memory.prior), catalogue.column_of(followers.item)
        return Voices(softmaxes, len(preference), shares, followers, place, prior, len(self.vectors))


def with_bias(tables: Tables) -> Float[np.ndarray, "item width_plus_one"]:
    """Item vectors with the bias as their last column."""
    return np.concatenate([tables.item_vectors, tables.item_bias[:, None]], axis=1)


def _voice_shares(
    calibration: Calibration, log_mass: Float[np.ndarray, " history"], log_variance: Float[np.ndarray, " history"]
) -> Float[np.ndarray, "voice history"]:
    odds = np.stack([np.zeros_like(log_mass), *calibration.gate.odds(log_mass, log_variance)])
    weight = np.exp(odds - odds.max(axis=0))
    return weight / weight.sum(axis=0)


def _entropy(
    p: Float[np.ndarray, "*row column"], counts: Float[np.ndarray, " column"] | None
) -> Float[np.ndarray, "*row"]:
    log_p = np.log(p)
    return -np.vecdot(p if counts is None else p * counts, log_p)
