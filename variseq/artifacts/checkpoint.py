"""A run: a trained network and everything that evaluation, recommendation and a warm start need."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from jaxtyping import Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from variseq.artifacts.catalog_changes import read_changes, write_changes
from variseq.artifacts.folder import (
    BOUNDS,
    CONFIG,
    COUNTS,
    HISTORIES,
    METRICS,
    RUN_FILES,
    VOCABULARY,
    WEIGHTS,
    needs_refit,
    new_artifact,
    read_items,
    reading,
    require_equal,
)
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.model.network import Network, NetworkConfig
from variseq.ranking.attributes import UserAttributes
from variseq.ranking.calibration import CalibrationResult
from variseq.ranking.catalog_changes import CatalogChanges
from variseq.ranking.new_items import NewItemVectors
from variseq.ranking.next_time import NextTime
from variseq.sequences.histories import Histories


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run folder holds.

    Args:
        network: The network that answers.
        vocabulary: Ids of users and items, names of behaviors.
        items: Titles, categories and other columns of the items.
        histories: All events of the log; None in a folder that was written without histories.
        bounds: Two rows of flat indices, where validation and where test begin in each history; None like `histories`.
        counts: Counted transitions and the trend, which the network is mixed with; the fit of the next time; the
            vectors of new items; and the items that groups of people take.
        manifest: How the run was made and what was calibrated; see `variseq.pipeline`.
        config: The resolved configuration: size, seed, model, training.
        metrics: One record an epoch.
        changes: What was changed of the catalog since.
    """

    network: Network
    vocabulary: Vocabulary
    items: ItemTable | None
    histories: Histories | None
    bounds: Int[np.ndarray, "2 user"] | None
    counts: dict[str, Tensor]
    manifest: dict[str, Any]
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    changes: CatalogChanges = field(default_factory=CatalogChanges)

    @property
    def calibrated(self) -> CalibrationResult:
        """What was calibrated on validation."""
        return CalibrationResult.from_json(self.manifest["calibration"])

    @property
    def usual_behavior(self) -> int:
        """The index of the most frequent behavior that is no low value; events without a behavior are taken for it."""
        return int(self.manifest["usual_behavior"])

    @property
    def next_time(self) -> NextTime | None:
        """The fit of the time to the next event; None where the log has no times."""
        return NextTime.of_tensors({name: tensor.numpy() for name, tensor in self.counts.items()})

    @cached_property
    def new_item_vectors(self) -> NewItemVectors | None:
        """What gives new items their vectors; None for a model without categories and content."""
        return NewItemVectors.of_tensors({name: tensor.numpy() for name, tensor in self.counts.items()})

    @cached_property
    def attributes(self) -> UserAttributes | None:
        """The attributes of people, and what groups of people take; None for a model without a table of users."""
        return UserAttributes.of_tensors({name: tensor.numpy() for name, tensor in self.counts.items()})

    @property
    def is_refitted(self) -> bool:
        """Whether the network has also learned from the validation events."""
        return bool(self.config["training"]["refit_fraction"])

    @property
    def needs_refit(self) -> bool:
        """Whether the weights have learned from people who were erased since."""
        return needs_refit(self.manifest)

    def without_histories(self) -> Checkpoint:
        """The same, naming no user and holding nobody's events."""
        vocabulary = replace(self.vocabulary, users=self.vocabulary.users[:0])
        # First faults, notes and warnings quote rows of the log.
        silent: dict[str, Any] = {"first_faults": {}, "notes": [], "warnings": []}
        manifest = self.manifest | {"log": self.manifest["log"] | silent}
        return replace(self, vocabulary=vocabulary, manifest=manifest, histories=None, bounds=None)


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a run folder, whole or not at all. Raises InputError when the target exists or cannot be written."""
    manifest = checkpoint.manifest | {"network": checkpoint.network.config.model_dump()}
    with new_artifact(folder, manifest, checkpoint.vocabulary, checkpoint.items) as unfinished:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.network.state_dict().items()}
        save_file(state, unfinished / WEIGHTS)
        save_file({name: tensor.contiguous() for name, tensor in checkpoint.counts.items()}, unfinished / COUNTS)
        if checkpoint.histories is not None and checkpoint.bounds is not None:
            _write_histories(checkpoint.histories, checkpoint.bounds, unfinished)
        if checkpoint.changes != CatalogChanges():
            write_changes(unfinished, checkpoint.changes)
        (unfinished / METRICS).write_text("".join(json.dumps(record) + "\n" for record in checkpoint.metrics))
        (unfinished / CONFIG).write_text(yaml.safe_dump(checkpoint.config, sort_keys=False, allow_unicode=True))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a run folder; needs no data, no code of the run, no pickle.

    Raises CheckpointError for a folder that is missing, unfinished, damaged or of another format.
    """
    with reading(folder, RUN_FILES) as manifest:
        with torch.random.fork_rng(devices=[]):  # the weights that are drawn here are written over
            network = Network(NetworkConfig(**manifest["network"]))
        network.load_state_dict(load_file(folder / WEIGHTS))
        vocabulary = Vocabulary.load(folder / VOCABULARY)
        require_equal({"network": network.config.num_items, "vocabulary": vocabulary.num_items}, "items")
        has_histories = HISTORIES in manifest["sha256"]
        histories, bounds = _read_histories(folder, vocabulary, network.config) if has_histories else (None, None)
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        checkpoint = Checkpoint(
            network=network.eval(),
            vocabulary=vocabulary,
            items=read_items(folder, manifest, vocabulary),
            histories=histories,
            bounds=bounds,
            counts=load_file(folder / COUNTS),
            manifest=manifest,
            config={key: config[key] for key in ("size", "seed", "model", "training")},
            metrics=[json.loads(line) for line in (folder / METRICS).read_text().splitlines()],
            changes=read_changes(folder),
        )
        # What is read later is looked up here, so that a missing part is noticed where the folder is known.
        _ = (
            checkpoint.usual_behavior,
            checkpoint.calibrated,
            checkpoint.new_item_vectors,
            checkpoint.attributes,
            dict(manifest["log"]["behaviors"]),
        )
        _ = [manifest["protocol"][key] for key in manifest["split_params"]]
    return checkpoint


def _write_histories(histories: Histories, bounds: Int[np.ndarray, "2 user"], folder: Path) -> None:
    columns = ("item", "behavior", "timestamp", "value")
    pq.write_table(pa.table({name: getattr(histories, name) for name in columns}), folder / HISTORIES)
    users = {"end": histories.offsets[1:], "valid_start": bounds[0], "test_start": bounds[1]}
    pq.write_table(pa.table(users), folder / BOUNDS)


def _read_histories(
    folder: Path, vocabulary: Vocabulary, config: NetworkConfig
) -> tuple[Histories, Int[np.ndarray, "2 user"]]:
    events, users = pq.read_table(folder / HISTORIES), pq.read_table(folder / BOUNDS)
    offsets = np.concatenate([[0], users.column("end").to_numpy()]).astype(np.int64)
    columns = (events.column(name).to_numpy() for name in ("item", "behavior", "timestamp", "value"))
    bounds = np.stack([users.column("valid_start").to_numpy(), users.column("test_start").to_numpy()])
    histories = Histories(offsets, *columns, visit_gap=config.visit_gap)
    require_equal({"vocabulary": vocabulary.num_users, "histories": len(histories)}, "users")
    require_equal({"history bounds": histories.num_events, "histories": len(histories.item)}, "events")
    return histories, bounds
