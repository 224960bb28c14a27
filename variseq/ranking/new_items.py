"""New items: vectors from what is known of them, and their place in the forecast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from variseq.content.columns import Ids
from variseq.content.item_content import ItemContent
from variseq.errors import CheckpointError
from variseq.events.items import ItemTable
from variseq.ranking.softmax import SMALLEST, Softmaxes, inside_of

NAMES, KNOWN = "new_items.names", "new_items.content_of_known"
LikeHistories = tuple[Float[np.ndarray, "history new"] | None, Float[np.ndarray, "history new"] | None]
"""How like the content of new items is to that of each history, and log p of how near they are; None for neither."""


@dataclass(frozen=True, eq=False)
class NewItemVectors:
    """From what is known of an item to its vector: the vectors of its categories, plus content · W.

    Args:
        content: W; None for a model without content.
        category: The vectors of categories; None for a model without categories.
        names: The names of these categories.
        encoder: Gives content vectors; None for a model without content.
        content_of_known: What W is for items with events, whose vectors are the sum of this and their own.
    """

    content: Float[np.ndarray, "content hidden"] | None
    category: Float[np.ndarray, "category hidden"] | None
    names: tuple[str, ...] = ()
    encoder: ItemContent | None = None
    content_of_known: Float[np.ndarray, "content hidden"] | None = None

    def of(
        self, items: ItemTable, ids: Ids = None
    ) -> tuple[Float[np.ndarray, "item hidden"], Float[np.ndarray, "item content"]]:
        """The vectors of items, zero where nothing is known, and their content vectors; `ids` are for messages.

        Raises what `ItemContent.encode` raises.
        """
        parts, content = [], np.zeros((len(items), 0), dtype=np.float32)
        if self.content is not None and self.encoder is not None:
            content = self.encoder.encode(items.table, ids)
            parts.append(content @ self.content)
        if self.category is not None:
            links = items.category_links(self.names)
            length = np.diff(links.offsets)
            of_items = np.zeros((len(length), self.category.shape[1]), dtype=np.float32)
            weighted = links.weight[:, None] * self.category[links.category]
            np.add.at(of_items, np.repeat(np.arange(len(length)), length), weighted)
            parts.append(of_items)
        return np.asarray(sum(parts[1:], parts[0]), dtype=np.float32), content

    def tensors(self) -> dict[str, np.ndarray]:
        """The record for a run; see `of_tensors`."""
        parts = {"new_items.content": self.content, "new_items.category": self.category, KNOWN: self.content_of_known}
        if self.category is not None:
            parts[NAMES] = np.frombuffer(json.dumps(self.names, ensure_ascii=False).encode(), np.uint8).copy()
        of_encoder = {} if self.encoder is None else self.encoder.tensors()
        return {name: part for name, part in parts.items() if part is not None} | of_encoder

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray]) -> NewItemVectors | None:
        """The inverse of `tensors`; None where there is no such record. Raises CheckpointError for a damaged one."""
        content, category = (tensors.get(f"new_items.{name}") for name in ("content", "category"))
        if content is None and category is None:
            return None
        names: tuple[str, ...] = ()
        encoder = ItemContent.of_tensors(tensors)
        if category is not None:
            try:
                names = tuple(map(str, json.loads(tensors[NAMES].tobytes().decode())))
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(f"The names of categories are damaged ({error}).") from error
            require_length("names of categories", len(names), len(category))
        of_known = tensors.get(KNOWN)
        for one in [one for one in (content, of_known) if one is not None]:
            require_length("content", 0 if encoder is None else encoder.dim, len(one))
        return cls(content, category, names, encoder, of_known)


def require_length(what: str, found: int, wanted: int) -> None:
    """Raises CheckpointError where the lengths differ."""
    if found != wanted:
        raise CheckpointError(f"The map of new items is damaged: {what} have {found:,} rows, not {wanted:,}.")


@dataclass(frozen=True)
class NewItemForecast:
    """The forecast of new items, those without a training event, which the softmax of the network knows nothing of.

    Together they have the probability `share`. Among them it is 1 − `uniform` parts of a softmax, and `uniform` parts
    of the same for each. The logits are those of the network times `scale`, plus the likeness of the item's content to
    that of the history times `likeness`, plus log p of `NearItemsModel` times `near`.

    Args:
        share: The probability that the next item is a new one.
        scale: How much the logits of the network are trusted.
        likeness: How much the likeness to the history is trusted.
        uniform: The weight of the uniform distribution.
        rate: The probability of one item that is added later, in its first days.
        near: How much the distance to the items of the history is trusted, where items have coordinates.
    """

    share: float
    scale: float = 1.0
    likeness: float = 8.0
    uniform: float = 0.1
    rate: float = 0.0
    near: float = 0.75

    def of_logits(
        self,
        log_p: Float[np.ndarray, "history sample new"],
        likeness: Float[np.ndarray, "history new"] | None,
        log_near: Float[np.ndarray, "history new"] | None = None,
    ) -> Float[np.ndarray, "history sample new"]:
        """The probability of each new item if the next item is one.

        `likeness` is None where there is no content, `log_near` where there are no coordinates.
        """
        mixed: Float[np.ndarray, "history sample new"] = self.scale * log_p
        for trust, of_items in ((self.likeness, likeness), (self.near, log_near)):
            if of_items is not None:
                mixed += trust * of_items[:, None]
        mixed -= mixed.max(axis=-1, keepdims=True)
        np.exp(mixed, out=mixed)
        mixed *= (1 - self.uniform) / mixed.sum(axis=-1, keepdims=True)
        mixed += self.uniform / mixed.shape[-1]
        return mixed


@dataclass(frozen=True, eq=False)
class NewItemCells:
    """The cells of new items in the forecasts of some histories, and what is written there.

    Args:
        column: The columns of the new items, one row where they are the same for all histories.
        p: Their probabilities under each sample.
        of_known: What the probabilities of all other items are multiplied by.
    """

    column: Int[np.ndarray, "#history new"]
    p: Float[np.ndarray, "history sample new"]
    of_known: Float[np.ndarray, " history"]

    @classmethod
    def of(
        cls,
        forecast: NewItemForecast,
        softmaxes: Softmaxes,
        column: Int[np.ndarray, "#history new"],
        like: LikeHistories,
        mixed: Float[np.ndarray, "history column"],
        weight: Float[np.ndarray, " history"],
    ) -> NewItemCells:
        """From the softmaxes of the network and their weight, and the mixture that knows nothing of new items.

        `like` is what `NewItemForecast.of_logits` takes beside logits.
        """
        found = softmaxes.of_columns(column)
        # The network's own softmax is over the other items.
        of_network = weight * found.mean(axis=1).sum(axis=1, dtype=np.float64)
        p = forecast.of_logits(np.log(np.maximum(found, SMALLEST, out=found), out=found), *like)
        p *= forecast.share
        of_new = np.take_along_axis(mixed, column, axis=1).sum(axis=1, dtype=np.float64) - of_network
        return cls(column, p.astype(np.float32, copy=False), (1 - forecast.share) / np.maximum(1 - of_new, SMALLEST))

    def apply(self, p: Float[np.ndarray, "history *sample column"], span: slice) -> None:
        """Write to p of the columns `span`, in place; the mean over samples where p has none."""
        p *= self.of_known.astype(np.float32).reshape(-1, *(1,) * (p.ndim - 1))
        inside = inside_of(self.column, span)
        column, of_cells = self.column[:, inside] - span.start, self.p[..., inside]
        if p.ndim == 3:
            np.put_along_axis(p, column[:, None], of_cells, axis=2)
        else:
            np.put_along_axis(p, column, of_cells.mean(axis=1), axis=1)

    def applied(
        self, p: Float[np.ndarray, "history sample k"], column: Int[np.ndarray, "history k"]
    ) -> Float[np.ndarray, "history sample k"]:
        """p of some columns with what is written to them; the columns of new items ascend."""
        row, num_new = np.arange(len(column))[:, None], self.column.shape[1]
        # One search for all rows, as the pairs of a row and a column ascend.
        width = int(max(column.max(), self.column.max())) + 1
        pair, pairs = row * width + column, (row * width + self.column).ravel()
        found = np.minimum(np.searchsorted(pairs, pair), len(pairs) - 1)
        of_new = np.take_along_axis(self.p, (found % num_new)[:, None], axis=2)
        of_known = p * self.of_known[:, None, None]
        written: Float[np.ndarray, "history sample k"] = np.where((pairs[found] == pair)[:, None], of_new, of_known)
        return written
