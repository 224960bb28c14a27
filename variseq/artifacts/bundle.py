"""A model as it is served: read from an artifact folder without torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from safetensors.numpy import load_file

from variseq.artifacts.folder import (
    BOUNDS,
    CONFIG,
    COUNTS,
    ENCODER,
    HISTORIES,
    INDEX,
    MANIFEST,
    METRICS,
    TABLES,
    VOCABULARY,
    WEIGHTS,
    Manifest,
    read_items,
    reading,
    require_equal,
)
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.ranking.calibration import CalibrationResult

NOT_SERVED = (WEIGHTS, COUNTS, CONFIG, METRICS, HISTORIES, BOUNDS)
SERVED_MANIFEST = (
    *("network", "calibration", "usual_behavior", "exclude_seen", "latent", "protocol", "created", "versions"),
)
"""What the manifest of an export takes over from that of the run: nothing that quotes rows of the log."""
SHOWN_OF_NETWORK = ("num_items", "hidden_size", "latent_dim", "num_layers", "num_heads", "max_seq_len", "attention")


@dataclass(frozen=True, eq=False)
class Tables:
    """The numbers of a model outside its encoder. The followers of item i are those at `offsets[i]:offsets[i + 1]`.

    `distance_biases` are what the encoder's attention adds for a token at each distance; the last is for one unseen.
    """

    item_vectors: Float[np.ndarray, "item hidden"]
    item_bias: Float[np.ndarray, " item"]
    distance_biases: Float[np.ndarray, "block head distance_plus_one"]
    log_share: Float[np.ndarray, " item"]
    log_trend: Float[np.ndarray, " item"]
    offsets: Int[np.ndarray, " item_plus_one"]
    follower: Int[np.ndarray, " cell"]
    count: Float[np.ndarray, " cell"]


@dataclass(frozen=True, eq=False)
class Facts:
    """What a model is besides its numbers; `health` describes the network, its validation and its posterior."""

    max_seq_len: int
    latent_dim: int
    usual_behavior: int
    exclude_seen: bool
    calibrated: CalibrationResult
    health: dict[str, Any]

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Facts:
        """Raises KeyError, TypeError or ValueError for a damaged manifest."""
        network, calibrated = manifest["network"], CalibrationResult.from_json(manifest["calibration"])
        health = {
            "network": {name: network[name] for name in SHOWN_OF_NETWORK},
            "created": manifest["created"],
            "protocol": manifest["protocol"],
            "validation": calibrated.validation,
            **manifest["latent"],
        }
        return cls(
            max_seq_len=int(network["max_seq_len"]),
            latent_dim=int(network["latent_dim"]),
            usual_behavior=int(manifest["usual_behavior"]),
            exclude_seen=bool(manifest["exclude_seen"]),
            calibrated=calibrated,
            health=health,
        )


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model as it is served. `version` is a hash of all its files; the vocabulary names no user."""

    version: str
    facts: Facts
    tables: Tables
    vocabulary: Vocabulary
    items: ItemTable | None
    encoder: Path
    index: Path | None


def read_bundle(folder: Path) -> Bundle:
    """Read an exported run, or the export of one.

    Raises CheckpointError for a folder that is missing, not exported, damaged or of another format.
    """
    with reading(folder, required=ENCODER, leave_out=NOT_SERVED) as manifest:
        whole = Vocabulary.load(folder / VOCABULARY)
        vocabulary = replace(whole, users=pa.array([], whole.users.type))
        tables = Tables(**load_file(folder / TABLES))
        of_items = {
            "vectors": tables.item_vectors,
            "biases": tables.item_bias,
            "shares": tables.log_share,
            "trend": tables.log_trend,
            "offsets": tables.offsets[1:],
        }
        lengths = {name: len(table) for name, table in of_items.items()}
        require_equal({"vocabulary": vocabulary.num_items, **lengths}, "items")
        cells = {"offsets": int(tables.offsets[-1]), "followers": len(tables.follower), "counts": len(tables.count)}
        require_equal(cells, "followers")
        return Bundle(
            version=hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:12],
            facts=Facts.from_manifest(manifest),
            tables=tables,
            vocabulary=vocabulary,
            items=read_items(folder, manifest, vocabulary),
            encoder=folder / ENCODER,
            index=folder / INDEX if INDEX in manifest["sha256"] else None,
        )
