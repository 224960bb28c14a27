"""`variseq encode`: a file of items with the vectors of their texts, pictures and sounds."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pyarrow.parquet as pq
from rich.progress import Progress

from variseq.atomic import atomic_write
from variseq.content.encode import ItemRows, encode_files, encode_texts, given_vectors
from variseq.content.encoders import ENCODERS, encoder_named
from variseq.content.vector_cache import open_cache
from variseq.errors import InputError
from variseq.events.items import read_item_rows
from variseq.events.options import ReadOptions
from variseq.events.table import Columns
from variseq.output.console import console
from variseq.output.printable import printable

DEFAULTS = {"image": "color", "audio": "mel"}


def encode_run(
    source: str,
    out: Path,
    text: str,
    image: str | None,
    audio: str | None,
    files: Path | None,
    vectors: list[str],
    vector_ids: Path | None,
    columns: dict[str, str | int] | list[str] | None,
) -> None:
    """Write the table with its vectors, whole or not at all; vectors that were computed before are taken from a cache.

    Raises:
        InputError: The table, an option or a file cannot be used, or there is nothing to encode.
        MissingDependencyError: An encoder is not installed.
    """
    chosen = {"text": text, "image": image, "audio": audio}
    _check(out, chosen, vectors, vector_ids)
    table, found, notes = read_item_rows(source, ReadOptions(item_columns=columns or {}))
    items = ItemRows(table, found[Columns.ITEM], found.get(Columns.TITLE))
    if text == "tfidf" and any(items.texts()):
        notes.append("text is left as it is: fit makes its vectors by TF-IDF (--text sentence encodes it here)")
    encoders = {kind: _encoder(items, kind, name) for kind, name in chosen.items()}
    if not any(encoders.values()) and not vectors:
        raise InputError(
            "Nothing has to be encoded: there is no column of images or audio, and fit makes the vectors of texts "
            "itself. Give the file to fit --items, or choose --text sentence."
        )
    shown = console(stderr=True)
    bar = Progress(console=shown, transient=True)
    tasks = {kind: bar.add_task(f"Encoding {kind}", total=None, visible=False) for kind in chosen}

    def progress(kind: str, done: int, total: int) -> None:
        bar.update(tasks[kind], completed=done, total=total, visible=True)

    with bar if shown.is_terminal else nullcontext(), open_cache(out.with_name(out.name + ".cache")) as cache:
        for kind, name in encoders.items():
            if name is not None and kind == "text":
                items = encode_texts(items, encoder_named(kind, name), cache, progress)
            elif name is not None:
                folder = files or Path(source).parent
                items, found_notes = encode_files(items, kind, encoder_named(kind, name), folder, cache, progress)
                notes += found_notes
    for one in vectors:
        name, _, file = one.partition("=")
        assert vector_ids is not None
        items, found_notes = given_vectors(items, name, Path(file), vector_ids)
        notes += found_notes
    with atomic_write(out) as unfinished:
        pq.write_table(items.table, unfinished)
    added = [name for name in items.table.column_names if name not in table.column_names]
    for note in notes:
        console().print(f"note: {note}", soft_wrap=True)
    console().print(f"{len(items.table):,} items with {', '.join(added)}: {printable(out)}", soft_wrap=True)


def _encoder(items: ItemRows, kind: str, name: str | None) -> str | None:
    """The encoder of a kind: the chosen one, or the default where there is a column for it."""
    if name is None:
        return DEFAULTS[kind] if items.path_column(kind) else None
    return None if name in ("none", "tfidf") else name


def _check(out: Path, chosen: dict[str, str | None], vectors: list[str], vector_ids: Path | None) -> None:
    for kind, name in chosen.items():
        allowed = ["none", *(["tfidf"] if kind == "text" else []), *ENCODERS[kind]]
        if name is not None and name not in allowed:
            raise InputError(f"--{kind} {name!r} is not known. Allowed: {', '.join(allowed)}.")
    if out.suffix != ".parquet":
        raise InputError(f"--out {out} has to end in .parquet.")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} is not there. Make it first.")
    if any(not name or not file for name, _, file in (one.partition("=") for one in vectors)):
        raise InputError(f"--vectors {vectors[0]!r} is not of the form NAME=FILE.npy.")
    if bool(vectors) != (vector_ids is not None):
        raise InputError("--vectors and --vector-ids go together: rows of numbers, and the item id of each row.")
