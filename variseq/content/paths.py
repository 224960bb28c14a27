"""Paths of pictures and sounds in a table of items, which lead to files below one folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from variseq.content.columns import is_text
from variseq.errors import InputError
from variseq.events.columns import plain_name
from variseq.events.identifiers import NULL_WORDS

PATH_NAMES = {"image": ("image", "picture", "photo", "poster", "thumbnail"), "audio": ("audio", "sound", "wav")}
"""Columns of paths, also with `_path` or `_file`."""


def path_columns(table: pa.Table, kind: str) -> list[str]:
    """The columns of paths of pictures or sounds, in the order of `PATH_NAMES`.

    >>> path_columns(pa.table({"poster_path": ["a.png"], "image": ["b.png"], "photo": [1]}), "image")
    ['image', 'poster_path']
    """
    wanted = [name + end for name in PATH_NAMES[kind] for end in ("", "path", "file")]
    named = [name for name in table.column_names if plain_name(name) in wanted and is_text(table.column(name).type)]
    return sorted(named, key=lambda name: wanted.index(plain_name(name)))


def path_of(cell: str | None) -> str | None:
    """The path in a cell; None for an empty one and for words such as `null`."""
    text = (cell or "").strip()
    return None if text.lower() in NULL_WORDS else text or None


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
