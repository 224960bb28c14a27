"""The probability of every item: a mixture of network, transitions, trend, uniform part, own history, near items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Num

from variseq.ranking.attributes import UserAttributes
from variseq.ranking.calibration import NEAR, OWN, TRANSITIONS, TREND, UNIFORM, Calibration
from variseq.ranking.cell_factors import CellFactors
from variseq.ranking.content_table import ContentTable
from variseq.ranking.counts import PRIOR_EVENTS, CountedItems, followers, own_history
from variseq.ranking.encoding import EncodedHistories, Encoder, antithetic_noise
from variseq.ranking.item_codes import ItemVectors
from variseq.ranking.near_items import NearItems, NearItemsModel
from variseq.ranking.new_items import LikeHistories, NewItemCells, NewItemForecast
from variseq.ranking.softmax import SMALLEST, Columns, Softmaxes
from variseq.sequences.histories import Histories

CELLS_AT_ONCE = 1 << 22
"""At most so many samples × histories × items are held at once: 16 MB."""
HISTORIES_AT_ONCE = 64
SCORE_OFFSET = "score_offset"
"""The name of what rewards add to scores, among the tables of a model."""


@dataclass(frozen=True, eq=False)
class ItemTables:
    """What a model knows of its items. The followers of item i are the cells `offsets[i]:offsets[i + 1]`.

    Args:
        vectors: Item vectors, the item bias as last column.
        log_share: Logarithm of the popularity of each item.
        log_trend: Logarithm of the share of each item of late.
        offsets: Where the followers of each item begin.
        follower: Items that came right after an item.
        count: How often.
        is_new: Which items have no training event.
        content: What is known of the items; None for a model without content.
        score_offset: What is added to log p before items are ranked, learned from rewards; None: nothing.
        coordinates: Latitude and longitude of each item in degrees, NaN for none; None where no item has any.
    """

    vectors: ItemVectors
    log_share: Float[np.ndarray, " item"]
    log_trend: Float[np.ndarray, " item"]
    offsets: Integer[np.ndarray, " item_plus_one"]
    follower: Integer[np.ndarray, " cell"]
    count: Num[np.ndarray, " cell"]
    is_new: Bool[np.ndarray, " item"]
    content: ContentTable | None = None
    score_offset: Float[np.ndarray, " item"] | None = None
    coordinates: Float[np.ndarray, "item two"] | None = None


@dataclass(frozen=True, eq=False)
class Distribution:
    """p of every column for some histories.

    `weights` are those of `GatingNetwork`; `counted` are the components that are counted, each with its number among
    the weights; `column` has for each of them the column of each cell, −1 where it has none; `others` are prior, trend
    and uniform part of each column. `new` is how new items are forecast, their columns, and how like their content
    and how near they are to the histories. `ratios` are the cells of items that people with the attributes of a history
    take more or less often, with log ratios. `seen` are the cells of seen items, and the shares of repeats; see
    `CellFactors`. `near` is the component of near items.
    """

    softmaxes: Softmaxes
    weights: Float[np.ndarray, "component history"]
    counted: Sequence[tuple[int, CountedItems]]
    column: Sequence[np.ndarray]
    others: Float[np.ndarray, "#history three column"]
    new: tuple[NewItemForecast, Int[np.ndarray, "#history new"], LikeHistories] | None = None
    ratios: tuple[Int[np.ndarray, " ratio"], Int[np.ndarray, " ratio"], Float[np.ndarray, " ratio"]] | None = None
    seen: tuple[Int[np.ndarray, " cell"], Int[np.ndarray, " cell"], Float[np.ndarray, " history"]] | None = None
    near: Float[np.ndarray, "history column"] | None = None

    def probabilities(self) -> Float[np.ndarray, "history column"]:
        """p of every column, at least `SMALLEST`; the same array each time."""
        return self._whole[0]

    @cached_property
    def _whole(self) -> tuple[Float[np.ndarray, "history column"], NewItemCells | None, list[CellFactors]]:
        p, new, factors = self._mixed(), None, []
        if self.new is not None:
            forecast, column, like = self.new
            new = NewItemCells.of(forecast, self.softmaxes, column, like, p, self.weights[0])
            new.apply(p, slice(0, p.shape[1]))
        for cells, make in ((self.ratios, CellFactors.of_ratios), (self.seen, CellFactors.of_repeats)):
            if cells is not None:
                factors.append(make(p, *cells))
                factors[-1].apply(p)
        return p, new, factors

    def _mixed(self) -> Float[np.ndarray, "history column"]:
        p = np.empty((self.weights.shape[1], self.softmaxes.columns.num_columns), dtype=np.float32)
        num_samples = self.softmaxes.num_samples
        weight = (self.weights[0] / num_samples).astype(np.float32)[:, None]
        for number, block in enumerate(self.softmaxes.columns.blocks):
            out, exponential = p[:, block.span], self.softmaxes.exponential(number)
            factor = self.softmaxes.factor[..., number] * weight
            if num_samples == 1:
                np.multiply(exponential[:, 0], factor, out=out)
            else:
                np.matmul(factor[:, None], exponential, out=out[:, None])
            out += self._others(number)
            np.maximum(out, SMALLEST, out=out)
        return p

    def sampled(self, item: Int[np.ndarray, "history k"]) -> Float[np.ndarray, "history sample k"]:
        """p of some items that have columns, under each posterior sample alone; their mean is p."""
        row = np.arange(len(item))[:, None]
        column = self.softmaxes.columns.of_items(row, item)
        sample = np.arange(self.softmaxes.num_samples)[:, None]
        network = self.softmaxes.at(row[..., None], sample, column[:, None])
        prior, trend, uniform = self.others[np.minimum(row, len(self.others) - 1), :, column].transpose(2, 0, 1)
        weights = self.weights[..., None]
        rest = sum(weights[number] * counted.share(item, prior) for number, counted in self.counted)
        rest += weights[TREND] * trend + weights[UNIFORM] * uniform
        if self.near is not None:
            rest += weights[NEAR] * self.near[row, column]
        p = weights[0, ..., None] * network + rest[:, None]
        _, new, factors = self._whole
        p = p if new is None else new.applied(p, column)
        for one in factors:
            p = p * one.at(column, self.softmaxes.columns.num_columns)[:, None]
        return p

    def entropies(
        self, p: Float[np.ndarray, "history column"]
    ) -> tuple[Float[np.ndarray, " history"], Float[np.ndarray, " history"]]:
        """The entropy of p in nats, and the mean of the entropies under each posterior sample alone.

        The difference is the mutual information of posterior and next item, the epistemic part; the mean is the
        aleatoric part. Source: Depeweg et al. 2018, section 3.
        """
        total, sampled, (_, new, factors) = np.zeros(len(p)), np.zeros(len(p)), self._whole
        num_samples, factor = self.softmaxes.num_samples, self.softmaxes.factor * self.weights[0][:, None, None]
        for number, block in enumerate(self.softmaxes.columns.blocks):
            total += _entropy(p[:, block.span], block.counts)
            if num_samples > 1:
                of_sample = self.softmaxes.exponential(number) * factor[..., number, None].astype(np.float32)
                of_sample += self._others(number)[:, None]
                if new is not None:
                    new.apply(of_sample, block.span)
                for one in factors:
                    one.apply(of_sample, block.span)
                counts = None if block.counts is None else block.counts[:, None]
                sampled += _entropy(np.maximum(of_sample, SMALLEST, out=of_sample), counts).sum(axis=1)
        return total, sampled / num_samples if num_samples > 1 else total

    def _others(self, number: int) -> Float[np.ndarray, "history column"]:
        """All components of a block but the network, times their weights."""
        span = self.softmaxes.columns.blocks[number].span
        per_event = [(self.weights[which] / counted.events).astype(np.float32) for which, counted in self.counted]
        prior = sum(
            weight * np.float32(counted.prior_events / PRIOR_EVENTS)
            for weight, (_, counted) in zip(per_event, self.counted, strict=True)
        )
        weight = np.stack([prior, *self.weights[[TREND, UNIFORM]].astype(np.float32)], axis=1)
        numbers = self.others[..., span]
        # A shortlist has numbers of its own for each history.
        mixed = weight @ numbers[0] if len(numbers) == 1 else np.matmul(weight[:, None], numbers)[:, 0]
        for of_event, (_, counted), column in zip(per_event, self.counted, self.column, strict=True):
            inside = (column >= span.start) & (column < span.stop)
            row = counted.row[inside]
            # An item occurs once in a row, so no cell is added to twice.
            mixed[row, column[inside] - span.start] += of_event[row] * counted.count[inside]
        if self.near is not None:
            mixed += self.weights[NEAR].astype(np.float32)[:, None] * self.near[:, span]
        return mixed


class MixtureModel:
    """The mixture of up to six components, p(i) = Σ weight · p_component(i).

    - network: the mean over samples of softmax(network / temperature)(i). It is the posterior predictive.
    - transitions: what followed the last item, (count(last, i) + m · popularity(i)) / (count(last) + m), m = 100; or
      the mean over several last items.
    - trend: what was popular of late.
    - uniform: 1 / n.
    - own: what the person did before, see `own_history`; only in logs where people return to items.
    - near: items near those of the history on the map, see `NearItemsModel`; only where items have coordinates.

    The weights sum to 1 for each history, see `GatingNetwork`.

    Args:
        encoder: Gives the preferences.
        tables: What is known of the items.
        calibration: Temperatures and mixture weights.
        repeat_share: The probability of a repeat, for a hurdle; None: the mixture itself says how likely repeats are.
        attributes: What people with some attributes take; None: attributes are not known.
    """

    def __init__(
        self,
        encoder: Encoder,
        tables: ItemTables,
        calibration: Calibration,
        repeat_share: float | None = None,
        attributes: UserAttributes | None = None,
    ) -> None:
        self.encoder, self.tables, self.calibration, self.repeat_share = encoder, tables, calibration, repeat_share
        self.attributes = attributes
        self.num_items = len(tables.vectors)
        self.everything = Columns.whole(tables.vectors)
        self.prior = PRIOR_EVENTS * np.exp(tables.log_share.astype(np.float64))
        self.trend = np.exp(tables.log_trend)
        numbers = [self.prior, self.trend, np.full(self.num_items, 1 / self.num_items)]
        self._others = np.stack([column.astype(np.float32) for column in numbers])
        self.new_items: Int[np.ndarray, " new"] = np.flatnonzero(tables.is_new)
        self.near = self.near_items(calibration.near)

    def near_items(self, options: NearItems | None) -> NearItemsModel | None:
        """The component of near items; None without options, and where no item has coordinates."""
        tables = self.tables
        if options is None or tables.coordinates is None:
            return None
        return NearItemsModel(tables.coordinates, ~tables.is_new, self.prior / PRIOR_EVENTS, options)

    def without_attributes(self) -> MixtureModel:
        """The same model, which knows no attributes of people."""
        return MixtureModel(self.encoder, self.tables, self.calibration, self.repeat_share)

    @cached_property
    def by_trend(self) -> Int[np.ndarray, " item"]:
        """All items, the most popular of late first."""
        return np.argsort(-self.trend, kind="stable")

    def noise(self, num_samples: int, seed: int = 0) -> Float[np.ndarray, "sample position latent"]:
        """The noise of `antithetic_noise` for this network."""
        return antithetic_noise(num_samples, self.encoder.max_seq_len, self.encoder.latent_dim, seed)

    def encode(self, histories: Histories) -> EncodedHistories:
        """The preferences under as many samples as the calibration says."""
        return self.encoder.encode(histories, self.noise(self.calibration.num_samples))

    def rows_at_once(self, num_samples: int) -> int:
        """How many histories are looked at together, so that memory does not grow with the catalog."""
        return int(np.clip(CELLS_AT_ONCE // (num_samples * self.num_items), 1, HISTORIES_AT_ONCE))

    def scaled(
        self, encoded: EncodedHistories, histories: Histories
    ) -> Float[np.ndarray, "history sample hidden_plus_one"]:
        """Preferences over the temperature, with 1 / temperature as last column, the weight of the item bias."""
        inverse = 1 / self.calibration.of(histories).temperature(histories.lengths)
        num_samples, num_histories, hidden_size = encoded.preference.shape
        scaled = np.empty((num_histories, num_samples, hidden_size + 1), dtype=np.float32)
        np.multiply(encoded.preference.swapaxes(0, 1), inverse[:, None, None], out=scaled[..., :-1])
        scaled[..., -1] = inverse[:, None]
        return scaled

    def distribution(
        self,
        encoded: EncodedHistories,
        histories: Histories,
        columns: Columns | None = None,
        repeats: Float[np.ndarray, " history"] | None = None,
        memory: Float[np.ndarray, " number"] | None = None,
    ) -> Distribution:
        """p of the columns (all items by default) for histories that are encoded.

        `repeats` is the share of repeats of each history for a hurdle, NaN for none; None: that of the model.
        `memory` is for `Softmaxes`; a later distribution with the same one overwrites this one.
        """
        others = self._others[None]
        if columns is not None and columns.listed is not None:
            others = np.stack([columns.of_columns(numbers) for numbers in self._others], axis=1)
        columns, calibration, new = columns or self.everything, self.calibration.of(histories), None
        if (forecast := self.calibration.new) is not None and len(self.new_items):
            of_each = np.arange(len(histories) if columns.listed is not None else 1)[:, None]
            new = forecast, columns.of_items(of_each, self.new_items), self.like(histories)
        # Where all items are new, as in another catalog, the network's softmax is over them.
        left_out = None if new is None or len(self.new_items) == self.num_items else new[1]
        softmaxes = Softmaxes(columns, self.scaled(encoded, histories), left_out, memory)
        log_gap = calibration.log_gap(histories)
        weights = calibration.gate.weights(softmaxes.log_mass.mean(axis=1), encoded.log_variance, log_gap)
        counted = self.counted(histories)
        column = [columns.of_items(of_component.row, of_component.item) for _, of_component in counted]
        if repeats is None and self.repeat_share is not None:
            repeats = np.full(len(histories), self.repeat_share)
        ratios = seen = None
        if self.attributes is not None and self.attributes.change(histories).any():
            row, item, log_ratio = self.attributes.log_ratios(histories)
            of_item = columns.of_items(row, item)
            ratios = row[of_item >= 0], of_item[of_item >= 0], log_ratio[of_item >= 0]
        if repeats is not None and not np.isnan(repeats).all():
            row, item = histories.distinct_items()
            of_item = columns.of_items(row, item)
            is_there = (of_item >= 0) & ~np.isnan(repeats)[row]
            seen = row[is_there], of_item[is_there], repeats
        near = None if self.near is None else self.near.of_columns(histories, columns)
        return Distribution(softmaxes, weights, counted, column, others, new, ratios, seen, near)

    def like(self, histories: Histories) -> LikeHistories:
        """How like the content of new items is to that of each history, and log p of how near they are.

        None without content, and without coordinates.
        """
        content, near = self.tables.content, self._near_new
        likeness = None if content is None else content.of_histories(histories) @ self._directions_of_new.T
        if near is None:
            return likeness, None
        p = near.at(histories, np.tile(self.new_items, (len(histories), 1)))
        return likeness, np.log(np.where(near.is_candidate[self.new_items], p, 1 / len(self.new_items)))

    @cached_property
    def _near_new(self) -> NearItemsModel | None:
        """How near new items are, among themselves."""
        if self.near is None:
            return None
        is_new = self.tables.is_new
        assert self.tables.coordinates is not None
        return NearItemsModel(self.tables.coordinates, is_new, is_new / max(1, is_new.sum()), self.near.options)

    @cached_property
    def _directions_of_new(self) -> Float[np.ndarray, "new content"]:
        assert self.tables.content is not None
        return self.tables.content.directions(self.new_items)

    def counted(self, histories: Histories) -> list[tuple[int, CountedItems]]:
        """The components that are counted, each with its number among the weights of `GatingNetwork`."""
        counted, own = [(TRANSITIONS, self.followers(histories))], self.calibration.of(histories).own
        if own is not None:
            counted.append((OWN, own_history(histories, own)))
        return counted

    def followers(self, histories: Histories) -> CountedItems:
        """What followed the last item of each history; with visits the items of the last visit, each once."""
        tables, calibration = self.tables, self.calibration
        table = (tables.offsets, tables.follower, tables.count)
        return followers(histories, *table, calibration.lags, calibration.lag_decay)


def _entropy(
    p: Float[np.ndarray, "*row column"], counts: Float[np.ndarray, "*#row column"] | None
) -> Float[np.ndarray, "*row"]:
    log_p = np.log(p)
    return -np.vecdot(p if counts is None else p * counts, log_p)
