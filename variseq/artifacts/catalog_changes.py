"""The file of catalog changes: read and written whole, by one process at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from variseq.artifacts.folder import CHANGES
from variseq.atomic import write_durably
from variseq.errors import CheckpointError
from variseq.ranking.catalog_changes import MAX_FILE_BYTES, CatalogChanges


def read_changes(folder: Path) -> CatalogChanges:
    """What was changed; nothing where there is no file. Raises CheckpointError for a damaged one."""
    path = folder / CHANGES
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return CatalogChanges()
    except OSError as error:
        raise CheckpointError(f"{CHANGES} cannot be read: {error.strerror}.") from error
    if len(text) > MAX_FILE_BYTES:
        raise CheckpointError(
            f"{CHANGES} is larger than {MAX_FILE_BYTES >> 20} MB. Restore it from a copy, or remove it."
        )
    return CatalogChanges.of_json(text, CHANGES)


def write_changes(folder: Path, changes: CatalogChanges) -> None:
    """Write them to the disk, whole. Raises InputError where they are too large, and CheckpointError."""
    text = changes.to_json()
    try:
        write_durably(folder / CHANGES, text, 0o644)
    except OSError as error:
        raise CheckpointError(f"{CHANGES} cannot be written ({error.strerror}); nothing changed.") from error


@contextmanager
def locked(folder: Path, shared: bool = False) -> Iterator[None]:
    """One process or thread at a time is inside, for each folder; or several that are all `shared`.

    Raises CheckpointError for a missing folder.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
