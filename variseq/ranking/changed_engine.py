"""The engine of a model whose catalog was changed: items added, updated and removed without training."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int8

from variseq.errors import InputError
from variseq.events.coordinates import LIMITS
from variseq.events.items import ItemTable
from variseq.events.table import Columns
from variseq.events.vocabulary import Id, Vocabulary
from variseq.ranking.calibration import Calibration
from variseq.ranking.catalog import Catalog
from variseq.ranking.catalog_changes import (
    CatalogChanges,
    ChangeCounts,
    ItemDetails,
    as_table,
    coordinates_of,
    not_read,
    with_items,
    without_items,
)
from variseq.ranking.content_table import ContentTable
from variseq.ranking.engine import Engine
from variseq.ranking.item_codes import with_rows
from variseq.ranking.mixture import MixtureModel
from variseq.ranking.new_items import NewItemForecast

MOST_NEW = 0.3
"""The probability that the next item is one of those that were added, at most."""
LEAST_RATE = 1e-7
Encoded = tuple[Float[np.ndarray, "item hidden"], Float[np.ndarray, "item content"]]


class ChangeableEngine:
    """The engine of a model as it was trained, and its engines under changes of the catalog. For one thread at a time.

    What was computed of items is kept, so that a further change costs what it adds.
    """

    def __init__(self, trained: Engine) -> None:
        self.trained = trained
        self._vectors: dict[Id, tuple[bytes, Float[np.ndarray, " hidden"], Int8[np.ndarray, " content"]]] = {}

    def with_items(self, before: CatalogChanges, given: Sequence[ItemDetails]) -> tuple[CatalogChanges, ChangeCounts]:
        """Items added or updated. Raises InputError for ids of another type, and for content that does not fit."""
        known = self._known([one.item_id for one in given])
        after, counts = with_items(before, given, known)
        ids = {one.item_id for one in given} - known.keys()
        added = [one for one in after.items if one.item_id in ids]
        self._remember(added, strict=True)
        content = None if self.trained.new_item_vectors is None else self.trained.new_item_vectors.encoder
        names = not_read(added, content)
        if self.trained.model.near is not None:
            names = tuple(name for name in names if name not in LIMITS)
        if self.trained.catalog.image_column is None and any(one.image is not None for one in given):
            names = (*names, "image")
        return after, replace(counts, not_read=names)

    def without_items(self, before: CatalogChanges, item_ids: Sequence[Id]) -> tuple[CatalogChanges, ChangeCounts]:
        """Items removed. Raises InputError for unknown ones."""
        return without_items(before, item_ids, self._known(item_ids))

    def engine(self, changes: CatalogChanges) -> Engine:
        """The engine under all changes; that of the model itself where there are none.

        Items that the model knows from its training are served as its own. Content that does not fit this model is
        left out. Raises InputError for ids of another type.
        """
        trained = self.trained
        if not changes.items and not changes.removed:
            return trained
        positions = trained.vocabulary.item_positions([one.item_id for one in changes.items])
        added = [one for one, position in zip(changes.items, positions.tolist(), strict=True) if position < 0]
        self._remember(added, strict=False)
        self._vectors = {one.item_id: self._vectors[one.item_id] for one in added}
        engine = copy.copy(trained)
        if added:
            _, vectors, codes = zip(*self._vectors.values(), strict=True)
            self._add(engine, added, np.stack(vectors), np.stack(codes))
        vocabulary = _vocabulary(trained.vocabulary, [one.item_id for one in added])
        removed = np.zeros(vocabulary.num_items, dtype=bool)
        gone = vocabulary.item_positions(changes.removed)
        removed[gone[gone >= 0]] = True
        items = _items(trained, vocabulary, changes.items)
        engine.catalog = Catalog(vocabulary, items, engine.model.tables, removed)
        engine.vocabulary, engine.items = vocabulary, items
        if engine.index is not None:
            engine.index = engine.index.changed(engine.model.tables.vectors, np.flatnonzero(removed))
        engine.version = f"{trained.version}-{hashlib.sha256(changes.to_json()).hexdigest()[:8]}"
        counts = {"added_items": len(added), "removed_items": int(removed.sum())}
        engine.health = {**trained.health, "version": engine.version, **counts}
        return engine

    def _add(
        self,
        engine: Engine,
        added: Sequence[ItemDetails],
        vectors: Float[np.ndarray, "added hidden"],
        codes: Int8[np.ndarray, "added content"],
    ) -> None:
        """Give an engine a model with more items, without events, behind its own."""
        trained, num_added = self.trained.model, len(vectors)
        tables, end = trained.tables, np.repeat(trained.tables.offsets[-1:], num_added)
        content = None if tables.content is None else ContentTable(np.concatenate([tables.content.codes, codes]))
        coordinates = tables.coordinates
        if coordinates is not None:
            coordinates = np.concatenate([coordinates, coordinates_of(added)])
        engine.model = MixtureModel(
            trained.encoder.with_items(vectors),
            replace(
                tables,
                vectors=with_rows(tables.vectors, np.pad(vectors, ((0, 0), (0, 1)))),
                log_share=_with_rare(tables.log_share, num_added),
                log_trend=_with_rare(tables.log_trend, num_added),
                offsets=np.concatenate([tables.offsets, end]),
                is_new=np.concatenate([tables.is_new, np.ones(num_added, dtype=bool)]),
                score_offset=None if tables.score_offset is None else np.pad(tables.score_offset, (0, num_added)),
                content=content,
                coordinates=coordinates,
            ),
            _with_added(trained.calibration, self._forecast, num_added),
            trained.repeat_share,
            trained.attributes,
        )
        if engine.next_time is not None:
            engine.next_time = engine.next_time.with_items(num_added)

    def _known(self, item_ids: Sequence[Id]) -> dict[Id, ItemDetails]:
        """What is shown of those items that the model knows from its training."""
        trained = self.trained
        positions = trained.vocabulary.item_positions(item_ids)
        chosen, found = np.flatnonzero(positions >= 0), positions[positions >= 0]
        ids = [item_ids[row] for row in chosen.tolist()]
        if trained.items is None:
            return {item_id: ItemDetails(item_id=item_id, categories=()) for item_id in ids}
        titles, categories = trained.items.titles(found), trained.items.categories(found)
        images = map(trained.catalog.image_path, found.tolist())
        return {
            item_id: ItemDetails(item_id=item_id, title=title, categories=names, image=image)
            for item_id, title, names, image in zip(ids, titles, categories, images, strict=True)
        }

    def _remember(self, added: Sequence[ItemDetails], strict: bool) -> None:
        """Compute the vectors of items whose details are not those of the last time."""
        digests = [hashlib.sha256(one.model_dump_json().encode()).digest() for one in added]
        fresh = [
            (one, digest)
            for one, digest in zip(added, digests, strict=True)
            if one.item_id not in self._vectors or self._vectors[one.item_id][0] != digest
        ]
        if fresh:
            vectors, content = self._encoded([one for one, _ in fresh], strict)
            codes = ContentTable.of(content).codes if content.shape[1] else content.astype(np.int8)
            for row, (one, digest) in enumerate(fresh):
                self._vectors[one.item_id] = digest, vectors[row], codes[row]

    def _encoded(self, items: Sequence[ItemDetails], strict: bool) -> Encoded:
        """The vectors of items by what is known of them, and their content; zero where the model makes nothing of it.

        A model has no bias for items without events.
        """
        found, ids = self.trained.new_item_vectors, [one.item_id for one in items]
        if found is None:
            width = self.trained.model.tables.vectors.shape[1] - 1
            return np.zeros((len(items), width), np.float32), np.zeros((len(items), 0), np.float32)
        try:
            return found.of(as_table(items, found.encoder), ids)
        except InputError:
            if strict:
                raise
        if len(items) > 1:
            parts = [self._encoded([one], strict=False) for one in items]
            return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])
        plain = ItemDetails(item_id=ids[0], title=items[0].title, categories=items[0].categories)
        return found.of(as_table([plain], found.encoder))

    @property
    def _forecast(self) -> NewItemForecast:
        own = self.trained.model.calibration.new
        return own or NewItemForecast(0.0, rate=1 / self.trained.model.num_items)


def _with_added(calibration: Calibration, forecast: NewItemForecast, num_added: int) -> Calibration:
    """The calibration where the items that were added take their share of all others."""
    of_added = min(MOST_NEW, max(forecast.rate, LEAST_RATE) * num_added)
    return replace(calibration, new=replace(forecast, share=1 - (1 - forecast.share) * (1 - of_added)))


def _with_rare(log_share: Float[np.ndarray, " item"], num_added: int) -> Float[np.ndarray, " item_and_added"]:
    """Shares with those of items that have the least one; they sum to 1."""
    longer = np.concatenate([log_share, np.full(num_added, log_share.min(), dtype=log_share.dtype)])
    return longer - np.log(np.exp(longer.astype(np.float64)).sum()).astype(log_share.dtype)


def _vocabulary(trained: Vocabulary, added: Sequence[Id]) -> Vocabulary:
    items = pa.concat_arrays([trained.items, pa.array(added, trained.items.type)])
    return replace(trained, items=items, num_added_items=len(added))


def _items(trained: Engine, vocabulary: Vocabulary, changed: Sequence[ItemDetails]) -> ItemTable | None:
    """Titles, categories and paths of pictures with all changes; None where there never were any."""
    if trained.items is None and not any(one.title or one.categories for one in changed):
        return None
    columns = [(Columns.TITLE, "title", pa.string()), (Columns.CATEGORY, "categories", pa.list_(pa.string()))]
    if trained.catalog.image_column is not None:
        columns.append((trained.catalog.image_column, "image", pa.string()))
    num_added = vocabulary.num_items - trained.vocabulary.num_items
    table = None if trained.items is None else trained.items.table
    num_rows = vocabulary.num_items if table is None else num_added
    empty = pa.table({name: pa.nulls(num_rows, kind) for name, _, kind in columns})
    table = empty if table is None else pa.concat_tables([table, empty], promote_options="default")
    positions = vocabulary.item_positions([one.item_id for one in changed]).tolist()
    for name, field, kind in columns:
        cells = table.column(name).to_pylist()
        for position, one in zip(positions, changed, strict=True):
            if (given := getattr(one, field)) is not None:
                cells[position] = list(given) if field == "categories" else given
        table = table.set_column(table.column_names.index(name), name, pa.array(cells, kind))
    return ItemTable(table)
