"""The folder of a run into the folder of the exported model in it, exported by another process where there is none."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from variseq.errors import CheckpointError
from variseq.inference.bundle import ENCODER, INSIDE_A_RUN, MANIFEST

WEIGHTS = "weights.safetensors"


def exported_model(folder: Path) -> Path:
    """Where the exported model is: the folder itself, or its `serving`.

    A run without one is exported in a child process: the server itself never loads what training needs.
    Raises CheckpointError for a folder that is neither, and where the export fails.
    """
    if (folder / ENCODER).is_file():
        return folder
    target = folder / INSIDE_A_RUN
    if (target / MANIFEST).is_file():
        return target
    if not (folder / WEIGHTS).is_file():
        there = "is neither a finished run nor an exported model" if folder.is_dir() else "does not exist"
        raise CheckpointError(f"{folder} {there}. Give the folder that `variseq fit --out` or `variseq export` wrote.")
    with _alone(folder):
        if not (target / MANIFEST).is_file():
            _export(folder)
    return target


def _export(folder: Path) -> None:
    command = [sys.executable, "-c", "from variseq.cli import main; main()", "export", str(folder.resolve())]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason was given"]
        raise CheckpointError(f"{folder} could not be exported: {lines[-1].removeprefix('error: ')}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of several processes that want the same export, one makes it and the others wait."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
