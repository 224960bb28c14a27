"""The items of a model by id, title and category: what may be recommended, search, similar items and a map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from variseq.content.columns import numbers
from variseq.content.item_content import ItemContent
from variseq.content.paths import path_columns, path_of
from variseq.content.sources import TEXT
from variseq.errors import InputError
from variseq.events.items import ItemTable
from variseq.events.table import Columns
from variseq.events.vocabulary import Id, Vocabulary
from variseq.ranking.content_table import ContentTable
from variseq.ranking.item_codes import without_bias
from variseq.ranking.mixture import ItemTables
from variseq.ranking.options import RecommendOptions
from variseq.ranking.selection import SHORTEST
from variseq.ranking.softmax import BLOCK_ITEMS

SIMILAR_BY = ("events", "content", "both")
QUERY_WEIGHT = 25.0
"""What is added to log p of an item for a cosine of 1 between its content and the text of a query."""
MAX_MAPPED = 2000
"""At most so many items are on the map, the most popular ones."""
MAX_CLUSTERS = 8
"""Clusters of the content of items on the map; a reader distinguishes as many colors."""


class Catalog:
    """The items of a model.

    Args:
        vocabulary: Their ids.
        items: Their titles and categories, if there are any.
        tables: Their vectors and popularity.
        removed: Which of them are never shown; None: none.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        items: ItemTable | None,
        tables: ItemTables,
        removed: Bool[np.ndarray, " item"] | None = None,
    ) -> None:
        self.vocabulary, self.items, self.tables = vocabulary, items, tables
        self.removed = np.zeros(vocabulary.num_items, dtype=bool) if removed is None else removed
        self._log_values: dict[str, Float[np.ndarray, " item"]] = {}

    @cached_property
    def ids(self) -> list[Id]:
        """The id of each item."""
        ids: list[Id] = self.vocabulary.items.to_pylist()
        return ids

    @cached_property
    def titles(self) -> list[str | None]:
        """The title of each item, None where it has none."""
        num_items = self.vocabulary.num_items
        return [None] * num_items if self.items is None else self.items.titles(range(num_items))

    def name(self, item: int) -> str:
        """The title of an item, or its id where it has none."""
        return self.titles[item] or str(self.ids[item])

    @cached_property
    def image_column(self) -> str | None:
        """The column of paths of pictures; of several, the first in the order of `PATH_NAMES`."""
        return None if self.items is None else next(iter(path_columns(self.items.table, "image")), None)

    def image_path(self, item: int) -> str | None:
        """The path of the picture of an item; None where it has none."""
        if self.items is None or self.image_column is None:
            return None
        return path_of(self.items.table.column(self.image_column)[int(item)].as_py())

    @cached_property
    def members(self) -> dict[str, Int[np.ndarray, " item"]]:
        """The items of each category. Raises InputError for a model without an items file."""
        if self.items is None:
            raise InputError("There are no categories: the run was made without an items file. Fit with items=….")
        members: dict[str, list[int]] = {}
        for item, categories in enumerate(self.items.categories(range(self.vocabulary.num_items))):
            for name in set(categories):
                members.setdefault(name, []).append(item)
        return {name: np.array(inside) for name, inside in members.items()}

    def known_items(self, item_ids: Sequence[Id], argument: str) -> Int[np.ndarray, " item"]:
        """Positions of items, also of removed ones. Raises InputError for one that is not in the catalog."""
        positions = self.vocabulary.item_positions(item_ids)
        unknown = [item for item, position in zip(item_ids, positions, strict=True) if position < 0]
        if unknown:
            raise InputError(
                f"{argument} names items that are not in the catalog: {', '.join(map(repr, unknown[:10]))}."
            )
        return positions

    def candidates(self, options: RecommendOptions, shown: Iterable[Id] = ()) -> Bool[np.ndarray, " item"] | None:
        """Which items may be recommended to everybody; None: all. `shown` are items of earlier pages."""
        allowed = ~self.removed
        if options.candidates is not None:
            named = np.zeros(len(allowed), dtype=bool)
            named[self.known_items(options.candidates, "candidates")] = True
            allowed &= named
        if options.categories is not None:
            allowed &= self._in_categories(options.categories)
        if left_out := [*options.exclude, *shown]:
            excluded = self.vocabulary.item_positions(left_out)
            allowed[excluded[excluded >= 0]] = False
        return None if allowed.all() else allowed

    def log_boost(self, options: RecommendOptions) -> Float[np.ndarray, " item"] | None:
        """What is added to log p before ranking; None where nothing is boosted."""
        if not options.boost_items and not options.boost_categories and not options.boost_columns:
            return None
        log_boost = np.zeros(self.vocabulary.num_items, dtype=np.float32)
        for name, factor in options.boost_categories.items():
            if name not in self.members:
                raise InputError(f"boost_categories names {name!r}, which no item has. {self._there_are()}")
            log_boost[self.members[name]] += math.log(factor)
        for name, exponent in options.boost_columns.items():
            log_boost += exponent * self._log_value(name)
        item = self.known_items(list(options.boost_items), "boost_items")
        np.add.at(log_boost, item, np.log(np.array(list(options.boost_items.values()), dtype=np.float64)).astype("f4"))
        return log_boost

    def _log_value(self, name: str) -> Float[np.ndarray, " item"]:
        """Logarithms of a column of numbers over their median, 0 where there is no positive number."""
        if name in self._log_values:
            return self._log_values[name]
        table = pa.table({}) if self.items is None else self.items.table
        columns = dict(zip(table.column_names, table.columns, strict=True))
        value = numbers(columns[name]) if name in columns else None
        if value is None:
            there = [one for one, column in columns.items() if numbers(column) is not None]
            there_are = f"There are: {', '.join(there)}." if there else "The items have no columns of numbers."
            raise InputError(f"boost_columns names {name!r}, which is no column of numbers of the items. {there_are}")
        is_there = (value > 0) & np.isfinite(value)
        logarithm = np.log(np.where(is_there, value, 1.0))
        middle = float(np.median(logarithm[is_there])) if is_there.any() else 0.0
        self._log_values[name] = np.where(is_there, logarithm - middle, 0.0).astype(np.float32)
        return self._log_values[name]

    def query_boost(self, query: str, encoder: ItemContent | None) -> Float[np.ndarray, " item"]:
        """What is added to log p of each item for its likeness to a text.

        Raises InputError for a model without text, and for a text that says nothing to it.
        """
        content = require_content(self.tables.content, "query")
        if encoder is None or TEXT not in encoder.spans:
            raise InputError("query needs items with text. Fit with items=… that have titles or descriptions.")
        wanted = ContentTable.of(encoder.encode(pa.table({Columns.TITLE: [query]}))).directions(slice(None))
        if not wanted.any():
            raise InputError(f"query={query!r} has no word that the texts of the items have. Use other words.")
        likeness = [content.likeness(wanted, block)[0] for block in self._blocks]
        return QUERY_WEIGHT * np.concatenate(likeness)

    def pins(self, options: RecommendOptions) -> tuple[tuple[int, int], ...]:
        """Indices in the list, ascending, and the items that are put there."""
        ranks = sorted(options.pin)
        item = self.known_items([options.pin[rank] for rank in ranks], "pin")
        return tuple((rank - 1, int(one)) for rank, one in zip(ranks, item, strict=True))

    def search(self, text: str, limit: int) -> list[dict[str, Any]]:
        """Items whose title or id contains a text: the id itself, then what begins with it, then by popularity."""
        wanted, exact = text.casefold().strip(), (text, text.strip())
        found = [item for item in self._by_popularity.tolist() if wanted in self._folded[item]]
        found.sort(key=lambda item: (str(self.ids[item]) not in exact, not self._folded[item].startswith(wanted)))
        return [{"item_id": self.ids[item], "title": self.titles[item]} for item in found[:limit]]

    def similar(self, item_id: Id, k: int, by: str = "events") -> list[dict[str, Any]]:
        """The k other items whose vectors point most nearly the same way: item_id, rank, score (cosine), title.

        `by` is "events" for the vectors of the model, "content" for those of what is known of the items, and "both" for
        the mean of the two cosines.

        Raises InputError for an unknown item, for a k that is larger than the number of other items, and for content
        that the model does not have.
        """
        check_k(k, self.vocabulary.num_items - 1, "the number of other items")
        if by not in SIMILAR_BY:
            raise InputError(f"by={by!r} is not possible. Allowed: {', '.join(map(repr, SIMILAR_BY))}.")
        (position,) = self.known_items([item_id], "item_id")
        if self.removed[position]:
            raise InputError(f"item_id {item_id!r} was removed from the catalog.")
        found = []
        if by != "content":
            vectors = without_bias(self.tables.vectors)
            of_item = vectors[np.array([position])][0] / self._norms[position]
            found.append(np.concatenate([vectors[block] @ of_item for block in self._blocks]) / self._norms)
        if by != "events":
            content = require_content(self.tables.content, f"by={by!r}")
            of_item = content.directions(np.array([position]))
            found.append(np.concatenate([content.likeness(of_item, block)[0] for block in self._blocks]))
        cosine: Float[np.ndarray, " item"] = np.mean(found, axis=0)
        cosine[position] = -np.inf
        cosine[self.removed] = -np.inf
        best = np.argsort(-cosine, kind="stable")[: min(k, int(np.isfinite(cosine).sum()))].tolist()
        return [
            {"item_id": self.ids[item], "rank": rank, "score": float(cosine[item]), "title": self.titles[item]}
            for rank, item in enumerate(best, 1)
        ]

    def item_map(self) -> dict[str, Any]:
        """The most popular items on the plane that shows most of how their vectors differ (principal components).

        Each has the number of its cluster by content. `clusters` names each cluster by its most central item.
        """
        shown = self._by_popularity[:MAX_MAPPED]
        if not len(shown):
            return {"items": [], "share_shown": 0.0, "clusters": []}
        directions = without_bias(self.tables.vectors)[shown] / self._norms[shown, None]
        centered = directions - directions.mean(axis=0)
        _, strength, axes = np.linalg.svd(centered, full_matrices=False)
        plane = centered @ axes[:2].T
        # The sign of a component means nothing; fixed, so that the map of a model is always the same.
        plane *= np.where(np.take_along_axis(axes[:2], np.abs(axes[:2]).argmax(axis=1)[:, None], 1)[:, 0] < 0, -1, 1)
        categories = [()] * len(shown) if self.items is None else self.items.categories(shown)
        cluster, central = np.full(len(shown), -1), np.zeros(0, np.int64)
        if self.tables.content is not None:
            cluster, central = self.tables.content.clusters(shown, MAX_CLUSTERS)
        return {
            "items": [
                {
                    "item_id": self.ids[item],
                    "title": self.titles[item],
                    "x": round(x, 4),
                    "y": round(y, 4),
                    "category": of_item[0] if of_item else None,
                    "cluster": number if number >= 0 else None,
                }
                for item, (x, y), of_item, number in zip(
                    shown.tolist(), plane.tolist(), categories, cluster.tolist(), strict=True
                )
            ],
            "clusters": [self.name(item) for item in central.tolist()],
            "share_shown": round(float((strength[:2] ** 2).sum() / max((strength**2).sum(), SHORTEST)), 4),
        }

    def _in_categories(self, categories: Sequence[str]) -> Bool[np.ndarray, " item"]:
        inside = np.zeros(self.vocabulary.num_items, dtype=bool)
        for name in categories:
            inside[self.members.get(name, [])] = True
        if not inside.any():
            named = ", ".join(map(repr, sorted(categories)))
            raise InputError(f"No item has the category {named}. {self._there_are()}")
        return inside

    def _there_are(self) -> str:
        there = sorted(self.members)
        return f"There are: {', '.join(there[:30])}{', …' if len(there) > 30 else ''}."

    @cached_property
    def _folded(self) -> list[str]:
        return [
            str(one).casefold() if title is None else f"{title} {one}".casefold()
            for one, title in zip(self.ids, self.titles, strict=True)
        ]

    @cached_property
    def _by_popularity(self) -> Int[np.ndarray, " item"]:
        order = np.argsort(-self.tables.log_share, kind="stable")
        shown: Int[np.ndarray, " item"] = order[~self.removed[order]]
        return shown

    @property
    def _blocks(self) -> list[slice]:
        """Items that are decoded together, so that a table of codes is never decoded as a whole."""
        return [slice(first, first + BLOCK_ITEMS) for first in range(0, self.vocabulary.num_items, BLOCK_ITEMS)]

    @cached_property
    def _norms(self) -> Float[np.ndarray, " item"]:
        vectors = without_bias(self.tables.vectors)
        norms = np.concatenate([np.linalg.norm(vectors[block], axis=1) for block in self._blocks])
        return np.maximum(norms, SHORTEST)


def require_content(content: ContentTable | None, wanted: str) -> ContentTable:
    """Raises InputError where the model has no content."""
    if content is None:
        raise InputError(
            f"{wanted} needs what is known of the items, and this model was fitted without it. Fit with items=… that "
            "have titles, descriptions or vectors."
        )
    return content


def check_k(k: int, largest: int, what: str) -> None:
    """Raises InputError for a number of items that is larger than `largest`."""
    if not isinstance(k, int | np.integer) or not 1 <= k <= largest:
        raise InputError(f"k={k!r} is not possible. Allowed: whole numbers from 1 to {largest}, {what}.")
