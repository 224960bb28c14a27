"""A trained network and all it needs to answer, as a folder of open formats; written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from variseq.atomic import atomic_directory
from variseq.errors import CheckpointError, InputError
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.model.network import Network, NetworkConfig
from variseq.sequences.histories import Histories

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run folder holds.

    `bounds` are two rows of flat positions, where validation and where test begin in each history; it and `histories`
    are None in a folder written without histories. `memory` is the state of what was counted in the log, which the
    network is mixed with. `manifest` says how the run was made, `config` is its resolved configuration, `metrics` its
    epoch records.
    """

    network: Network
    vocabulary: Vocabulary
    items: ItemTable | None
    histories: Histories | None
    bounds: Int[np.ndarray, "2 user"] | None
    memory: dict[str, Tensor]
    manifest: dict[str, Any]
    config: dict[str, Any]
    metrics: list[dict[str, Any]]

    @property
    def usual_behavior(self) -> int:
        """The commonest behavior of the log but low values: what an event is taken for that comes without one."""
        low = self.manifest["log"].get("low_behaviors", ())
        counts: dict[str, int] = {
            name: count for name, count in self.manifest["log"]["behaviors"].items() if name not in low
        }
        return self.vocabulary.behaviors.index(max(counts, key=lambda behavior: counts[behavior]))

    def without_histories(self) -> Checkpoint:
        """The same, naming no user and holding nobody's events."""
        vocabulary = replace(self.vocabulary, users=self.vocabulary.users[:0])
        # First faults, notes and warnings quote rows of the log.
        silent: dict[str, Any] = {"first_faults": {}, "notes": [], "warnings": []}
        manifest = self.manifest | {"log": self.manifest["log"] | silent}
        return replace(self, vocabulary=vocabulary, manifest=manifest, histories=None, bounds=None)


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes to a folder beside the target and renames it. Raises InputError when the target exists."""
    refuse_existing(folder)
    try:
        with atomic_directory(folder) as unfinished:
            _write(checkpoint, unfinished)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"The run could not be written to {folder}: {reason}. Free some room, or choose another folder. Nothing "
            "was left there."
        ) from error


def refuse_existing(folder: Path) -> None:
    """Raises InputError when there is already something at a place where a run is to be written."""
    if folder.exists():
        raise InputError(f"{folder} exists already. Choose another folder, or remove it: runs are never written over.")


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.network.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in checkpoint.memory.items()}, folder / "memory.safetensors")
    checkpoint.vocabulary.save(folder / "vocabulary")
    if checkpoint.items is not None:
        checkpoint.items.save(folder / "item_columns.parquet")
    if checkpoint.histories is not None and checkpoint.bounds is not None:
        _write_histories(checkpoint.histories, checkpoint.bounds, folder)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in checkpoint.metrics))
    (folder / "config.yaml").write_text(yaml.safe_dump(checkpoint.config, sort_keys=False, allow_unicode=True))
    manifest = {
        "format_version": FORMAT_VERSION,
        "network": checkpoint.network.config.model_dump(),
        "has_items": checkpoint.items is not None,
        "has_histories": checkpoint.histories is not None,
        **checkpoint.manifest,
        "sha256": _digests(folder),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads what `save_checkpoint` wrote; needs no data, no code of the run, no pickle.

    Raises CheckpointError for a folder that is missing, unfinished, damaged or of a later format.
    """
    manifest = _manifest(folder)
    try:
        _refuse_changed_files(folder, manifest["sha256"])
        with torch.random.fork_rng(devices=[]):  # the weights that are drawn here are written over
            network = Network(NetworkConfig(**manifest["network"]))
        network.load_state_dict(load_file(folder / "weights.safetensors"))
        histories, bounds = _read_histories(folder) if manifest["has_histories"] else (None, None)
        checkpoint = Checkpoint(
            network=network.eval(),
            vocabulary=Vocabulary.load(folder / "vocabulary"),
            items=ItemTable.load(folder / "item_columns.parquet") if manifest["has_items"] else None,
            histories=histories,
            bounds=bounds,
            memory=load_file(folder / "memory.safetensors"),
            manifest=manifest,
            config=_config(folder),
            metrics=[json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()],
        )
        _refuse_unequal_parts(checkpoint)
        return checkpoint
    except CheckpointError:
        raise
    except (OSError, SafetensorError, RuntimeError, TypeError, KeyError, ValueError, yaml.YAMLError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"The run in {folder} is damaged ({reason}). Restore the folder from a copy, or fit again."
        ) from error


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.exists():
        there = "has no manifest.json, so it is no finished run" if folder.is_dir() else "does not exist"
        raise CheckpointError(f"{folder} {there}. Give the folder that `variseq fit --out` or `model.save` wrote.")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(manifest["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Restore the folder from a copy, or fit again.") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has checkpoint format {version}; this release reads up to {FORMAT_VERSION}. Update variseq."
        )
    return manifest


def _digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of the folder but the manifest, by its name relative to the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    digests = {}
    for path in files:
        with path.open("rb") as stream:
            digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _refuse_changed_files(folder: Path, written: dict[str, str]) -> None:
    """Raises ValueError when a file is not as it was written; files that were added later do not matter."""
    now = _digests(folder)
    changed = [name for name, digest in written.items() if now.get(name) != digest]
    if changed:
        raise ValueError(f"{changed[0]} is {'changed' if changed[0] in now else 'missing'}")


def _config(folder: Path) -> dict[str, Any]:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    # Looked up here, so that a missing part is noticed where the folder is known.
    return {key: config[key] for key in ("size", "seed", "model", "training")}


def _refuse_unequal_parts(checkpoint: Checkpoint) -> None:
    """Raises ValueError when the parts of a folder cannot come from the same run."""
    num_items, histories = checkpoint.network.config.num_items, checkpoint.histories
    if checkpoint.vocabulary.num_items != num_items:
        raise ValueError(f"the network has {num_items} items, the vocabulary {checkpoint.vocabulary.num_items}")
    if checkpoint.items is not None and len(checkpoint.items) != num_items:
        raise ValueError(f"the network has {num_items} items, the item columns {len(checkpoint.items)}")
    if histories is None:
        return
    if len(histories) != checkpoint.vocabulary.num_users:
        raise ValueError(f"there are {len(histories)} histories of {checkpoint.vocabulary.num_users} users")
    if histories.num_events != len(histories.item):
        raise ValueError(f"the histories have {len(histories.item)} events where {histories.num_events} were written")


def _write_histories(histories: Histories, bounds: Int[np.ndarray, "2 user"], folder: Path) -> None:
    events = {
        "item": histories.item,
        "behavior": histories.behavior,
        "timestamp": histories.timestamp,
        "value": histories.value,
    }
    pq.write_table(pa.table(events), folder / "histories.parquet")
    users = {"end": histories.offsets[1:], "valid_start": bounds[0], "test_start": bounds[1]}
    pq.write_table(pa.table(users), folder / "history_bounds.parquet")


def _read_histories(folder: Path) -> tuple[Histories, Int[np.ndarray, "2 user"]]:
    events = pq.read_table(folder / "histories.parquet")
    users = pq.read_table(folder / "history_bounds.parquet")
    offsets = np.concatenate([[0], users.column("end").to_numpy()]).astype(np.int64)
    columns = (events.column(name).to_numpy() for name in ("item", "behavior", "timestamp", "value"))
    bounds = np.stack([users.column("valid_start").to_numpy(), users.column("test_start").to_numpy()])
    return Histories(offsets, *columns), bounds
