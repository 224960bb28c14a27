"""A run whose catalog is replaced by another one, of items that it has never seen."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from variseq.artifacts.checkpoint import Checkpoint
from variseq.artifacts.folder import IMPROVEMENT
from variseq.content.columns import first_of
from variseq.errors import InputError
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Id, Vocabulary
from variseq.model.network import ITEM_TABLES, Network
from variseq.ranking.calibration import CalibrationResult
from variseq.ranking.catalog_changes import CatalogChanges
from variseq.ranking.content_table import ContentTable
from variseq.ranking.new_items import NewItemForecast, NewItemVectors
from variseq.recommend.network_model import CONTENT, count_events

OF_ITEMS = (*ITEM_TABLES, "value_head.bias", "value_head.count")
"""Tensors with a row for each item."""
FORECAST = NewItemForecast(1.0, scale=0.25, likeness=8.0, uniform=0.1, near=0.0)
"""How the items of another catalog are forecast: the content of the history counts more than the network."""


def on_other_catalog(checkpoint: Checkpoint, catalog: pa.Array, items: ItemTable) -> Checkpoint:
    """The run with other items, forecast by what is known of them; what was counted of its own items is left out.

    All items are new. Their vectors come from the maps of categories and content, and histories are encoded by these
    vectors. There are no histories, no conformal thresholds, no times and no attributes of people.

    Args:
        checkpoint: A run with content or categories.
        catalog: The ids of the other items, sorted.
        items: What is known of them, one row an item.

    Returns:
        The run of the other catalog.

    Raises:
        InputError: The run knows nothing of its items, there are fewer than two others, vectors do not fit, or nothing
            that is known of the others is read by the run.

    Warns:
        UserWarning: Of some items the run reads nothing.
    """
    found, ids = checkpoint.new_item_vectors, catalog.to_pylist()
    if found is None:
        raise InputError(
            "This run knows items by their events alone, so it says nothing of others. Fit it with items that have "
            "titles, texts, vectors or categories (--items)."
        )
    if len(ids) < 2:
        raise InputError(f"The other catalog has {len(ids)} item(s). A recommender needs at least 2.")
    vectors, content = found.of(items, ids)
    _check_known(vectors, ids, found)
    counts = count_events(len(ids)) | {name: torch.from_numpy(one.copy()) for name, one in found.tensors().items()}
    counts["is_new"] = torch.ones(len(ids), dtype=torch.bool)
    if content.shape[1]:
        counts[CONTENT] = torch.from_numpy(ContentTable.of(content).codes)
    vocabulary = checkpoint.vocabulary
    nameless = checkpoint.without_histories()
    return replace(
        nameless,
        network=_with_items(checkpoint.network, vectors),
        vocabulary=Vocabulary(vocabulary.users[:0], catalog, vocabulary.behaviors),
        items=items,
        counts=counts,
        manifest=_manifest(nameless),
        changes=CatalogChanges(),
    )


def _check_known(vectors: Float[np.ndarray, "item hidden"], ids: list[Id], found: NewItemVectors) -> None:
    """Raises InputError where the run reads nothing of any item; warns of some."""
    unknown = [repr(ids[row]) for row in np.flatnonzero(~vectors.any(axis=1)).tolist()]
    parts = [] if found.encoder is None else [source.shown for source, _ in found.encoder.parts]
    read = ", ".join([*parts, *(["categories of its own names"] if found.category is not None else [])])
    if len(unknown) == len(ids):
        raise InputError(f"The run reads nothing of these {len(ids):,} items. It reads: {read}.")
    if unknown:
        warnings.warn(
            f"{len(unknown):,} of {len(ids):,} items have nothing that the run reads ({read}): {first_of(unknown)}",
            UserWarning,
            stacklevel=4,
        )


def _with_items(network: Network, vectors: Float[np.ndarray, "item hidden"]) -> Network:
    """A network with the same weights and the vectors of other items; they have no bias, and no values."""
    config = network.config.model_copy(update={"num_items": len(vectors)})
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn here are written over
        other = Network(config)
    weights, own = network.state_dict(), network.embedding.item.detach()
    rows = {"embedding.item": torch.cat([torch.from_numpy(vectors).to(own), own[-1:]])}
    kept = {name: tensor for name, tensor in weights.items() if name not in OF_ITEMS}
    other.load_state_dict(other.state_dict() | kept | rows)
    return other.to(own.device).eval()


def _manifest(checkpoint: Checkpoint) -> dict[str, Any]:
    """The manifest with a calibration in which every item is a new one."""
    calibrated: CalibrationResult = checkpoint.calibrated
    calibration = replace(calibrated.calibration, new=FORECAST, near=None)
    changed = replace(calibrated, calibration=calibration, thresholds=None, thresholds_at_request=None)
    kept = {key: value for key, value in checkpoint.manifest.items() if key != IMPROVEMENT}
    return kept | {"calibration": changed.to_json()}
