"""An exported folder as an engine that answers without torch."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file

from variseq.artifacts.folder import (
    ENCODER,
    INDEX,
    MANIFEST,
    SERVED_FILES,
    TABLES,
    VOCABULARY,
    needs_refit,
    read_items,
    reading,
    require_equal,
)
from variseq.events.table import MICROSECONDS_PER_SECOND
from variseq.events.vocabulary import Vocabulary
from variseq.inference.encoder import OnnxEncoder
from variseq.ranking.attributes import UserAttributes
from variseq.ranking.calibration import CalibrationResult
from variseq.ranking.catalog import Catalog
from variseq.ranking.content_table import ContentTable
from variseq.ranking.encoding import Encoder, NoEncoder
from variseq.ranking.engine import Engine
from variseq.ranking.index import ItemIndex
from variseq.ranking.item_codes import ItemCodes, ItemVectors, without_bias
from variseq.ranking.mixture import SCORE_OFFSET, ItemTables, MixtureModel
from variseq.ranking.near_items import COORDINATES
from variseq.ranking.new_items import NewItemVectors
from variseq.ranking.next_time import NextTime

SHOWN_OF_NETWORK = ("num_items", "hidden_size", "latent_dim", "num_layers", "num_heads", "max_seq_len", "attention")


def load_engine(folder: Path, exact: bool = False) -> Engine:
    """The engine of an exported folder; its version is a hash of all its files, and its vocabulary names no user.

    Args:
        folder: What `variseq export` wrote.
        exact: Look at the whole catalog also where the export has an index.

    Raises:
        CheckpointError: For a folder that is missing, not exported, damaged or of another format.
    """
    with reading(folder, SERVED_FILES) as manifest:
        whole = Vocabulary.load(folder / VOCABULARY)
        vocabulary = replace(whole, users=pa.array([], whole.users.type))
        arrays = load_file(folder / TABLES)
        _refuse_other_lengths(arrays, vocabulary.num_items)
        vectors = ItemCodes.of_tensors(arrays) if "codes" in arrays else arrays["item_vectors"]
        counted = ("log_share", "log_trend", "offsets", "follower", "count", "is_new")
        content = ContentTable(arrays["item_content"]) if "item_content" in arrays else None
        log_share, log_trend, offsets, follower, count, is_new = (arrays[name] for name in counted)
        of_items = (vectors, log_share, log_trend, offsets, follower, count, is_new, content)
        tables = ItemTables(*of_items, arrays.get(SCORE_OFFSET), arrays.get(COORDINATES))
        network, calibrated = manifest["network"], CalibrationResult.from_json(manifest["calibration"])
        encoder: Encoder = NoEncoder(vectors.shape[1] - 1)
        if network is not None:
            encoder = _onnx_encoder(folder / ENCODER, vectors, arrays, int(network["latent_dim"]))
        visit_gap = None if network is None else network["visit_gap"]
        hurdle, attributes = calibrated.hurdle(bool(manifest["exclude_seen"])), UserAttributes.of_tensors(arrays)
        has_index = INDEX in manifest["sha256"] and not exact
        return Engine(
            MixtureModel(encoder, tables, calibrated.calibration, hurdle, attributes),
            Catalog(vocabulary, read_items(folder, manifest, vocabulary), tables),
            calibrated.thresholds,
            repeat_share=calibrated.repeat_share,
            exclude_seen=bool(manifest["exclude_seen"]),
            usual_behavior=int(manifest["usual_behavior"]),
            thresholds_at_request=calibrated.thresholds_at_request,
            next_time=NextTime.of_tensors(arrays),
            new_item_vectors=NewItemVectors.of_tensors(arrays),
            visit_gap=visit_gap,
            index=ItemIndex(folder / INDEX, vectors) if has_index else None,
            version=hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:12],
            health={
                "network": None if network is None else {name: network[name] for name in SHOWN_OF_NETWORK},
                "visit_gap_seconds": None if visit_gap is None else visit_gap / MICROSECONDS_PER_SECOND,
                "privacy": manifest.get("privacy"),
                "created": manifest["created"],
                "protocol": manifest["protocol"],
                "validation": calibrated.validation,
                "needs_refit": needs_refit(manifest),
                **manifest["latent"],
            },
        )


def _onnx_encoder(path: Path, vectors: ItemVectors, arrays: dict[str, np.ndarray], latent_dim: int) -> OnnxEncoder:
    require_equal({"start vector": len(arrays["start_vector"]) + 1, "item vectors": vectors.shape[1]}, "columns")
    return OnnxEncoder(path, without_bias(vectors), arrays["start_vector"], arrays["distance_biases"], latent_dim)


def _refuse_other_lengths(arrays: dict[str, np.ndarray], num_items: int) -> None:
    offsets = arrays["offsets"]
    of_items = {name: len(arrays[name]) for name in ("log_share", "log_trend", "is_new")}
    of_items |= {name: len(arrays[name]) for name in ("item_content", SCORE_OFFSET, COORDINATES) if name in arrays}
    of_items["item vectors"] = len(arrays["codes" if "codes" in arrays else "item_vectors"])
    require_equal({"vocabulary": num_items, "offsets": len(offsets) - 1, **of_items}, "items")
    cells = {name: len(arrays[name]) for name in ("follower", "count")}
    require_equal({"offsets": int(offsets[-1]), **cells}, "followers")
