"""An exported folder as an engine that answers without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from variseq.artifacts.bundle import read_bundle
from variseq.inference.encoder import OnnxEncoder
from variseq.ranking.catalog import Catalog
from variseq.ranking.engine import Engine
from variseq.ranking.index import ItemIndex
from variseq.ranking.mixture import ItemTables, MixtureModel


def load_engine(folder: Path, exact: bool = False) -> Engine:
    """The engine of an exported folder.

    Args:
        folder: What `variseq export` wrote.
        exact: Look at the whole catalog also where the export has an index.

    Raises:
        CheckpointError: For a folder that is missing or damaged.
    """
    bundle = read_bundle(folder)
    tables, facts = bundle.tables, bundle.facts
    vectors = np.concatenate([tables.item_vectors, tables.item_bias[:, None]], axis=1)
    encoder = OnnxEncoder(bundle.encoder, tables.distance_biases, len(vectors), facts.latent_dim)
    known = ItemTables(vectors, tables.log_share, tables.log_trend, tables.offsets, tables.follower, tables.count)
    return Engine(
        MixtureModel(encoder, known, facts.calibrated.calibration),
        Catalog(bundle.vocabulary, bundle.items, known),
        facts.calibrated.thresholds,
        repeat_share=facts.calibrated.repeat_share,
        exclude_seen=facts.exclude_seen,
        usual_behavior=facts.usual_behavior,
        index=None if exact or bundle.index is None else ItemIndex(bundle.index, vectors),
        version=bundle.version,
        health=facts.health,
    )
