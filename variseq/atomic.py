"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from variseq.errors import InputError


def refuse_existing(folder: Path) -> None:
    """Raises InputError when there is something at a path where a folder is to be written."""
    if folder.exists():
        raise InputError(f"{folder} exists already. Choose another folder, or remove it: nothing is written over.")


def unfinished(folder: Path) -> Path:
    """The folder with the state of a run that is not finished."""
    return folder.with_name(f"{folder.name}.unfinished")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it takes the place of `path` at the end, and is gone when that is not reached.

    For one writer of `path` at a time.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "page.txt") as unfinished:
    ...     _ = unfinished.write_text("all of it")
    >>> [(one.name, one.read_text()) for one in folder.iterdir()]
    [('page.txt', 'all of it')]
    """
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a whole file to the disk, or leave the one before; several processes may do so at once."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """The same for a folder that is not there yet."""
    unfinished = path.with_name(f".{path.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        os.rename(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


AT_FDCWD, RENAME_EXCHANGE = -100, 2
REPLACED = ".replaced"


def replace_directory(path: Path, new: Path) -> None:
    """Put a finished folder in the place of another one of the same parent, and remove that.

    On Linux the two change their names in one step (renameat2), so at each moment one of them is whole at `path`.
    Elsewhere, and in file systems that cannot do it, the old one has the name `.NAME.replaced` for a moment; see
    `restore_replaced`.
    """
    if not _exchange(path, new):
        aside = path.with_name(f".{path.name}{REPLACED}")
        os.rename(path, aside)
        os.rename(new, path)
        new = aside
    shutil.rmtree(new)


def restore_replaced(root: Path) -> None:
    """Give folders below `root` their names back that an interrupted `replace_directory` has left without."""
    for aside in root.rglob(f".*{REPLACED}"):
        path = aside.with_name(aside.name.removeprefix(".").removesuffix(REPLACED))
        if not path.exists():
            os.rename(aside, path)


def _exchange(first: Path, second: Path) -> bool:
    """Whether two names were exchanged."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(first), os.fsencode(second)
    return rename is not None and rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0
