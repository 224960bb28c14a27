"""What the folder of a private run may hold: a list of files, tables and entries, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from safetensors import safe_open

from variseq.artifacts.folder import (
    CHANGES,
    ITEM_COLUMNS,
    MANIFEST,
    SERVED_FILES,
    TABLES,
    VOCABULARY,
    reading,
)

FILES = {
    *(MANIFEST, TABLES, ITEM_COLUMNS, CHANGES),
    *(f"{VOCABULARY}/{name}" for name in ("users.parquet", "items.parquet", "vocabulary.json")),
}
ARRAYS = {"item_vectors", "log_share", "log_trend", "offsets", "follower", "count", "is_new"}
ENTRIES = {
    *("format_version", "privacy", "network", "calibration", "usual_behavior", "exclude_seen", "latent", "protocol"),
    *("created", "versions", "sha256"),
}


def faults_of(folder: Path) -> list[str]:
    """What a folder holds besides what a private run may hold, a sentence each.

    Raises CheckpointError for a folder that is missing, damaged or changed since it was written.
    """
    with reading(folder, SERVED_FILES) as manifest:
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
        faults = [f"The file {name} is not part of a private run. Remove it." for name in sorted(names - FILES)]
        with safe_open(folder / TABLES, framework="np") as tables:
            faults += [f"{TABLES} has an array {name!r}." for name in sorted(set(tables.keys()) - ARRAYS)]
        faults += [f"{MANIFEST} has an entry {name!r}." for name in sorted(manifest.keys() - ENTRIES)]
        faults += [f"{MANIFEST} has protocol.{name}." for name in sorted(manifest["protocol"].keys() - {"method"})]
        num_users = pq.read_metadata(folder / VOCABULARY / "users.parquet").num_rows
        if num_users:
            faults.append(f"{VOCABULARY}/users.parquet names {num_users:,} users.")
    return faults
