"""Items that a fitted model was not trained on: added, updated and removed in Python."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from variseq.artifacts.checkpoint import Checkpoint
from variseq.errors import InputError
from variseq.events.items import read_catalog, read_new_items
from variseq.events.options import ReadOptions
from variseq.events.vocabulary import Id
from variseq.ranking.catalog_changes import CatalogChanges, ChangeCounts, details_of
from variseq.ranking.changed_engine import ChangeableEngine
from variseq.ranking.engine import Engine
from variseq.ranking.options import id_list
from variseq.recommend.network_model import engine_of
from variseq.recommend.other_catalog import on_other_catalog

Changed: TypeAlias = tuple[CatalogChanges, ChangeCounts]
Model = TypeVar("Model", bound="ChangingCatalog")


class ChangingCatalog:
    """A model in memory whose catalog can be changed."""

    checkpoint: Checkpoint | None
    _answering: tuple[Checkpoint, ChangeableEngine, Engine] | None = None

    def add_items(self, items: object) -> ChangeCounts:
        """Add items that the model was not trained on, or update titles and categories; they count from now on.

        An item that is added is recommended by what is known of it: its categories, texts, vectors and numbers. Texts
        are encoded as those of the training were. `save` keeps what was changed.

        Args:
            items: What `variseq.read(items=...)` takes: a path, a data frame, an Arrow table.

        Returns:
            How many items were added, updated and not changed, and the columns that the model does not read.

        Raises:
            InputError: Ids are there twice or of another type, vectors have another length, or numbers are NaN. Then
                nothing is changed.
        """
        kind = self._fitted().vocabulary.items.type
        given = details_of(*read_new_items(items, kind))
        return self._change(lambda engines, before: engines.with_items(before, given))

    def remove_items(self, item_ids: Sequence[Id]) -> ChangeCounts:
        """Remove items: no answer has them any more. They may stay in histories, and can be added again.

        Args:
            item_ids: Ids of the catalog.

        Returns:
            How many were removed.

        Raises:
            InputError: An id is there twice or is of no item. Then nothing is changed.
        """
        ids = id_list(item_ids, "item_ids")
        return self._change(lambda engines, before: engines.without_items(before, ids))

    def with_catalog(self: Model, items: object) -> Model:
        """The model with another catalog, whose items it never saw, in place of its own; this model stays as it is.

        Items are forecast by what is known of them, and histories have their ids. Everything that was counted of the
        own items is left out: transitions, popularity, times, conformal sets. The probabilities sum to one. They were
        calibrated on the own catalog, and nothing says that they hold on the other one.

        Args:
            items: What `variseq.read(items=...)` takes: a path, a data frame, an Arrow table. Columns have the names
                that they have in the own table of items.

        Returns:
            A model without users and events, to recommend with, save, serve and export.

        Raises:
            InputError: The model reads nothing of its own items or of these, ids are there twice, or vectors have
                another length.

        Warns:
            UserWarning: The model reads nothing of some of these items.
        """
        other = copy.copy(self)
        other.checkpoint = on_other_catalog(self._fitted(), *read_catalog(items, None, ReadOptions()))
        other._answering = None
        return other

    def _change(self, how: Callable[[ChangeableEngine, CatalogChanges], Changed]) -> ChangeCounts:
        checkpoint, (engines, _) = self._fitted(), self._engines()
        after, counts = how(engines, checkpoint.changes)
        self.checkpoint = replace(checkpoint, changes=after)
        self._answering = (self.checkpoint, engines, engines.engine(after))
        return counts

    def _engines(self) -> tuple[ChangeableEngine, Engine]:
        """The answering core of the fitted model, and the one under all changes of the catalog; made once."""
        checkpoint = self._fitted()
        if self._answering is None or self._answering[0] is not checkpoint:
            engines = ChangeableEngine(engine_of(checkpoint))
            self._answering = (checkpoint, engines, engines.engine(checkpoint.changes))
        return self._answering[1:]

    def _engine(self) -> Engine:
        return self._engines()[1]

    def _fitted(self) -> Checkpoint:
        if self.checkpoint is None:
            raise InputError("The model is not fitted. Call fit(train, valid) first, or load a run with variseq.load.")
        return self.checkpoint
