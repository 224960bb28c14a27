"""The folder of an exported model: written whole or not at all, read back without torch, every file checked."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from variseq.atomic import atomic_directory
from variseq.errors import CheckpointError, InputError
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary
from variseq.recommend.learned import Learned

FORMAT_VERSION = 3
ENCODER, INDEX = "encoder.onnx", "index.faiss"
TABLES, MANIFEST = "tables.safetensors", "manifest.json"
INSIDE_A_RUN = "serving"
"""The folder that an export is written to where no other is given: RUN/serving."""


@dataclass(frozen=True, eq=False)
class Tables:
    """The numbers of a model outside its encoder. The followers of item i are those at `offsets[i]:offsets[i + 1]`.

    `distance_biases` are what the encoder's attention adds for a token so many places before; the last for one unseen.
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
    """What a model is besides its numbers.

    `usual_behavior` is what an event without one is taken for; `health` is what is told of the posterior.
    """

    max_seq_len: int
    latent_dim: int
    usual_behavior: int
    exclude_seen: bool
    learned: Learned
    health: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As it is written into the manifest."""
        return {
            "max_seq_len": self.max_seq_len,
            "latent_dim": self.latent_dim,
            "usual_behavior": self.usual_behavior,
            "exclude_seen": self.exclude_seen,
            "forecast": self.learned.to_json(),
            "health": self.health,
        }


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model as it is served. `version` is a hash of all its files; the vocabulary names no user."""

    folder: Path
    version: str
    facts: Facts
    tables: Tables
    vocabulary: Vocabulary
    items: ItemTable | None

    @property
    def encoder(self) -> Path:
        return self.folder / ENCODER

    @property
    def index(self) -> Path | None:
        """The index of a large catalog."""
        return self.folder / INDEX if (self.folder / INDEX).is_file() else None


def write_bundle(parts: Bundle, files: dict[str, Path]) -> None:
    """Write to a folder beside the target and rename it. Raises InputError when the target exists or cannot be written.

    `files` are encoders and an index, by the name they get. The version is worked out here, and not that of `parts`.
    """
    folder = parts.folder
    if folder.exists():
        raise InputError(f"{folder} exists already. Choose another folder, or remove it: exports are not written over.")
    try:
        with atomic_directory(folder) as unfinished:
            save_file(
                {name: np.ascontiguousarray(table) for name, table in vars(parts.tables).items()}, unfinished / TABLES
            )
            for name, path in files.items():
                shutil.copyfile(path, unfinished / name)
            nobody = Vocabulary(parts.vocabulary.users[:0], parts.vocabulary.items, parts.vocabulary.behaviors)
            nobody.save(unfinished / "vocabulary")
            if parts.items is not None:
                parts.items.save(unfinished / "item_columns.parquet")
            digests = _digests(unfinished)
            manifest = {"format_version": FORMAT_VERSION, "has_items": parts.items is not None, **parts.facts.to_json()}
            manifest["sha256"] = digests
            text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
            (unfinished / MANIFEST).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"The export could not be written to {folder}: {reason}. Free some room, or choose another folder with "
            "--out. Nothing was left there."
        ) from error


def read_bundle(folder: Path) -> Bundle:
    """Read what `write_bundle` wrote.

    Raises CheckpointError for a folder that is missing, damaged, of a later format, or has a changed file.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} is no exported model: it has no {MANIFEST}. Make one with: variseq export RUN")
    try:
        text = path.read_bytes()
        manifest = json.loads(text)
        if (found := int(manifest["format_version"])) != FORMAT_VERSION:
            remedy = "Update variseq, or export again." if found > FORMAT_VERSION else "Remove it and export again."
            raise CheckpointError(
                f"{folder} was exported in format {found}, and this release reads format {FORMAT_VERSION}. {remedy}"
            )
        _refuse_changed(folder, manifest["sha256"])
        tables = Tables(**load_file(folder / TABLES))
        bundle = Bundle(
            folder,
            hashlib.sha256(text).hexdigest()[:12],
            _facts(manifest, folder),
            tables,
            Vocabulary.load(folder / "vocabulary"),
            ItemTable.load(folder / "item_columns.parquet") if manifest["has_items"] else None,
        )
        _refuse_unequal_parts(bundle)
        return bundle
    except CheckpointError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"The exported model in {folder} is damaged ({reason}). Export the run again: variseq export RUN"
        ) from error


def _facts(manifest: dict[str, Any], folder: Path) -> Facts:
    return Facts(
        max_seq_len=int(manifest["max_seq_len"]),
        latent_dim=int(manifest["latent_dim"]),
        usual_behavior=int(manifest["usual_behavior"]),
        exclude_seen=bool(manifest["exclude_seen"]),
        learned=Learned.of_manifest(manifest, folder),
        health=dict(manifest["health"]),
    )


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        with path.open("rb") as stream:
            digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _refuse_changed(folder: Path, written: dict[str, str]) -> None:
    """Raises ValueError unless the files are those that were written, no more and no fewer."""
    now = _digests(folder)
    different = sorted(name for name in written.keys() | now.keys() if written.get(name) != now.get(name))
    if different:
        raise ValueError(f"{different[0]} was changed, added or removed")


def _refuse_unequal_parts(bundle: Bundle) -> None:
    """Raises ValueError when the parts of a folder cannot come from the same run."""
    tables, num_items = bundle.tables, bundle.vocabulary.num_items
    of_items = (tables.item_vectors, tables.item_bias, tables.log_share, tables.log_trend, tables.offsets[1:])
    lengths = {len(table) for table in of_items}
    if bundle.items is not None:
        lengths.add(len(bundle.items))
    # Each is held against one number by itself: `a != b != c` would let through what differs from `a` alone.
    if lengths != {num_items} or {len(tables.follower), len(tables.count)} != {int(tables.offsets[-1])}:
        raise ValueError("its tables are of different lengths")
