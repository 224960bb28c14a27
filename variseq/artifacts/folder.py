"""The artifact folder: files of open formats, a manifest with their SHA-256, written whole or not at all. No torch.

A run and its export have one format. Both hold the manifest, the vocabulary and, where there are any, the item columns:

- a run also has `weights.safetensors`, `counts.safetensors`, `config.yaml`, `metrics.jsonl` and, unless it was saved
  without them, the histories;
- what is served also has `tables.safetensors`, `encoder.onnx` and, for a large catalog, `index.faiss`. These are added
  to the run, or written to a folder of their own that names no user. A private model has these alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from safetensors import SafetensorError

from variseq.atomic import atomic_directory, atomic_write, refuse_existing
from variseq.errors import CheckpointError, InputError
from variseq.events.items import ItemTable
from variseq.events.vocabulary import Vocabulary

FORMAT_VERSION = 9
MANIFEST = "manifest.json"
VOCABULARY, ITEM_COLUMNS = "vocabulary", "item_columns.parquet"
WEIGHTS, COUNTS, CONFIG, METRICS = "weights.safetensors", "counts.safetensors", "config.yaml", "metrics.jsonl"
HISTORIES, BOUNDS = "histories.parquet", "history_bounds.parquet"
ENCODER, TABLES, INDEX = "encoder.onnx", "tables.safetensors", "index.faiss"
IMPROVEMENT = "improvement"
"""In the manifest: how offsets of the scores were chosen from exposures."""
CHANGES = "catalog_changes.json"
"""Beside the files of an artifact; no digest of the manifest is of it, for it changes."""
RUN_FILES = (WEIGHTS, COUNTS, CONFIG, METRICS, HISTORIES, BOUNDS)
SERVED_FILES = (TABLES, ENCODER, INDEX)
"""The files that only a run, or only what is served, has. The first one is never missing."""
Manifest = dict[str, Any]


@contextmanager
def new_artifact(folder: Path, manifest: Manifest, vocabulary: Vocabulary, items: ItemTable | None) -> Iterator[Path]:
    """A temporary folder to write files to. It becomes `folder` at the end, with the manifest and the digests.

    Raises InputError when the target exists or cannot be written; then nothing is left there.
    """
    refuse_existing(folder)
    try:
        with atomic_directory(folder) as unfinished:
            vocabulary.save(unfinished / VOCABULARY)
            if items is not None:
                items.save(unfinished / ITEM_COLUMNS)
            yield unfinished
            names = [path.relative_to(unfinished).as_posix() for path in unfinished.rglob("*") if path.is_file()]
            listed = sorted(name for name in names if name != CHANGES)
            _write_manifest(unfinished, manifest, _digests(unfinished, listed))
    except (OSError, SafetensorError) as error:
        raise _not_written(folder, error) from error


def add_files(folder: Path, files: Mapping[str, Path]) -> None:
    """Copy files into an artifact by the names they get; its manifest is replaced last, so that it is whole throughout.

    Raises InputError when the folder cannot be written.
    """
    manifest = read_manifest(folder)
    try:
        for name, path in files.items():
            with atomic_write(folder / name) as unfinished:
                shutil.copyfile(path, unfinished)
        _write_manifest(folder, manifest, manifest["sha256"] | _digests(folder, list(files)))
    except OSError as error:
        raise _not_written(folder, error) from error


def read_manifest(folder: Path) -> Manifest:
    """The manifest. Raises CheckpointError for a folder without one, a damaged one, and one of another format."""
    path = folder / MANIFEST
    if not path.is_file():
        there = "has no manifest.json, so it is no finished run or export" if folder.is_dir() else "does not exist"
        raise CheckpointError(f"{folder} {there}. Give a folder that `variseq fit --out` or `variseq export` wrote.")
    try:
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
        found = int(manifest["format_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{MANIFEST}: {error}") from error
    if found != FORMAT_VERSION:
        remedy = "Update variseq." if found > FORMAT_VERSION else "Fit again, or use the release that wrote it."
        raise CheckpointError(f"{folder} has format {found}, and this release reads format {FORMAT_VERSION}. {remedy}")
    return manifest


def has_file(folder: Path, name: str) -> bool:
    """Whether a file belongs to an artifact. Raises CheckpointError for a folder that is none."""
    return name in read_manifest(folder).get("sha256", {})


def needs_refit(manifest: Manifest) -> bool:
    """Whether the weights of an artifact have learned from people who were erased since."""
    return bool(manifest.get("erasures", {}).get("needs_refit", False))


def is_private(manifest: Manifest) -> bool:
    """Whether an artifact was made of private releases alone."""
    return manifest.get("privacy") is not None


def is_of_sums(manifest: Manifest) -> bool:
    """Whether an artifact was made of sums over people, private or not; it names no user and is no run of `fit`."""
    return "privacy" in manifest


@contextmanager
def reading(folder: Path, files: tuple[str, ...]) -> Iterator[Manifest]:
    """The manifest of an artifact that holds `RUN_FILES` or `SERVED_FILES`, all as they were written.

    Whatever is raised while its files are read becomes a CheckpointError. Files that the manifest does not list, and
    those of the other kind, are neither read nor checked.
    """
    manifest = read_manifest(folder)
    try:
        written: dict[str, str] = dict(manifest["sha256"])
        if files[0] not in written:
            remedy = "Give the run that was exported." if files is RUN_FILES else f"Run: variseq export {folder}"
            if is_of_sums(manifest):
                remedy = "A run of sums names no user and is not trained further: serve it, or use recommend --history."
            raise CheckpointError(f"{folder} has no {files[0]}. {remedy}")
        names = [name for name in written if name in files or name not in RUN_FILES + SERVED_FILES]
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise ValueError(f"{missing[0]} is missing")
        changed = [name for name, digest in _digests(folder, names).items() if digest != written[name]]
        if changed:
            raise ValueError(f"{changed[0]} is changed")
        yield manifest
    except CheckpointError:
        raise
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
        *(SafetensorError, pa.ArrowException, yaml.YAMLError),
    ) as error:
        lines = str(error).strip().splitlines()
        raise _damaged(folder, lines[0] if lines else type(error).__name__) from error


def read_items(folder: Path, manifest: Manifest, vocabulary: Vocabulary) -> ItemTable | None:
    """The item columns, if the artifact has any. Raises ValueError when they are of another vocabulary."""
    if ITEM_COLUMNS not in manifest["sha256"]:
        return None
    items = ItemTable.load(folder / ITEM_COLUMNS)
    require_equal({"vocabulary": vocabulary.num_items, "item columns": len(items)}, "items")
    return items


def require_equal(lengths: Mapping[str, int], what: str) -> None:
    """Raises ValueError unless all lengths are one number: parts of different runs do not fit together."""
    if len(set(lengths.values())) > 1:
        parts = ", ".join(f"{length:,} in the {name}" for name, length in lengths.items())
        raise ValueError(f"its parts have different numbers of {what}: {parts}")


def _write_manifest(folder: Path, manifest: Manifest, digests: dict[str, str]) -> None:
    whole = {"format_version": FORMAT_VERSION, **manifest, "sha256": digests}
    with atomic_write(folder / MANIFEST) as unfinished:
        unfinished.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _digests(folder: Path, names: list[str]) -> dict[str, str]:
    digests = {}
    for name in names:
        with (folder / name).open("rb") as stream:
            digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _not_written(folder: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"{folder} could not be written: {reason}. Free some space, or choose another folder with --out. Nothing was "
        "left there."
    )


def _damaged(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{folder} is damaged ({reason}). Restore the folder from a copy, or fit or export again.")
