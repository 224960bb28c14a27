"""Files that a table of items names: only below one folder, never larger than is allowed."""

from __future__ import annotations

from pathlib import Path

from variseq.errors import InputError

MAX_BYTES = 100_000_000


def path_below(folder: Path, text: str) -> Path | None:
    """The file of a cell, links followed; None where there is none.

    Raises InputError for an address, for a path that leads out of the folder, and for what is no plain file.
    """
    if "://" in text:
        raise InputError("is an address; only files on this machine are read")
    root = folder.resolve()
    try:
        path = (root / text).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"leads out of the folder {folder}")
        if path.exists() and not path.is_file():
            raise InputError("is no file")
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError) as error:  # names that are too long, zero bytes, links in a circle
        if isinstance(error, InputError):
            raise
        raise InputError(f"is no path ({error})") from error


def read_file(path: str | Path) -> bytes:
    """All bytes of a file. Raises InputError when it cannot be read or has more than `MAX_BYTES`."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"has more than {MAX_BYTES // 1_000_000:,} MB")
    return content
