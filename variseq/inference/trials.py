"""Copies of histories with an item taken out into what each would say of recommended items: what reasons ask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.inference.columns import Columns
from variseq.inference.encoder import OnnxEncoder
from variseq.inference.forecast import FastForecast
from variseq.inference.softmaxes import Softmaxes
from variseq.sequences.histories import Histories


@dataclass(frozen=True, eq=False)
class Trials:
    """A forecast at the posterior mean, over columns that the copies of a history share."""

    encoder: OnnxEncoder
    forecast: FastForecast
    columns: Columns
    mean: Float[np.ndarray, "one place latent"]
    num_histories: int

    def log_probability(
        self, copies: Histories, items: Int[np.ndarray, "copy k"], source: Int[np.ndarray, " copy"]
    ) -> Float[np.ndarray, "copy k"]:
        """log p of some items of each copy; `source` says of which history it is one."""
        encoded = self.encoder.encode(copies, self.mean, source)
        # Copies of one history stand side by side, as samples do elsewhere; a row that has fewer is filled with zeros.
        place = _place_in_row(source)
        scaled = self.forecast.scaled(encoded, copies)[:, 0]
        side_by_side = np.zeros((self.num_histories, place.max() + 1, scaled.shape[1]), dtype=np.float32)
        side_by_side[source, place] = scaled
        softmaxes = Softmaxes(self.columns, side_by_side)
        shares = self.forecast.shares(softmaxes.log_mass[source, place], encoded.log_variance)
        network, transitions, trend, anything = shares[..., None]
        column = self.columns.of_items(source[:, None], items)
        neural = softmaxes.at(source[:, None], place[:, None], column)
        memory = self.forecast.memory
        remembered = memory.followers(copies).share(items, memory.prior[items])
        others = trend * memory.trend[items] + anything / self.columns.num_items
        p = network * neural + transitions * remembered + others
        return np.log(p).astype(np.float32)


def _place_in_row(source: Int[np.ndarray, " copy"]) -> Int[np.ndarray, " copy"]:
    """How many copies of the same history stand before each.

    >>> _place_in_row(np.array([0, 1, 0, 1, 1]))
    array([0, 0, 1, 1, 2])
    """
    order = np.argsort(source, kind="stable")
    ordered = source[order]
    place = np.empty(len(source), dtype=np.int64)
    place[order] = np.arange(len(source)) - np.searchsorted(ordered, ordered)
    return place
