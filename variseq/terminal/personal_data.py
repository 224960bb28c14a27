"""Finds everything in a folder that holds some people: runs, unfinished runs, exports, tables and exposures."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from variseq.artifacts.folder import (
    HISTORIES,
    IMPROVEMENT,
    MANIFEST,
    RUN_FILES,
    SERVED_FILES,
    VOCABULARY,
    is_private,
    read_manifest,
)
from variseq.artifacts.lineage import STARTED_FROM, begins_elsewhere, weights_of
from variseq.atomic import atomic_write
from variseq.distinct import distinct
from variseq.errors import CheckpointError, InputError
from variseq.events.table import Columns
from variseq.events.vocabulary import Id, Vocabulary
from variseq.exposures.erasing import count_lines
from variseq.exposures.folder import KEY

Kind = Literal[
    "run",
    "descendant",
    "start elsewhere",
    "improved run",
    "export",
    "unfinished run",
    "rest of a write",
    "table",
    "exposures",
    "unreadable",
    "nameless",
]
DERIVED = ("evaluation.json", "report.html", "report", *SERVED_FILES)
"""What was made of the histories of a run and can be made again."""
TABLES = (".parquet", ".csv")
ENCODING: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


@dataclass(frozen=True, eq=False)
class Found:
    """Something that holds the people, or that has learned from them.

    Args:
        kind: What it is.
        path: Where it is.
        num: How many of the people, for a table how many rows, for exposures how many lines.
        is_improved: Whether a run has offsets of `variseq improve`.
        users: For a run their positions in its vocabulary.
    """

    kind: Kind
    path: Path
    num: int = 0
    is_improved: bool = False
    users: Int[np.ndarray, " user"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def ids_of(text: str) -> list[Id]:
    """The ids that a text may stand for: "12" is text in some logs and a whole number in others.

    >>> ids_of("12"), ids_of("012")
    ([12, '12'], ['012'])
    """
    with suppress(ValueError):
        if str(int(text)) == text and -(2**63) <= int(text) < 2**63:
            return [int(text), text]
    return [text]


def positions(vocabulary: Vocabulary, users: Sequence[str]) -> Int[np.ndarray, " user"]:
    """The positions of the users that a vocabulary has."""
    whole = pa.types.is_integer(vocabulary.users.type)
    known = [one for text in users for one in ids_of(text) if isinstance(one, int) == whole]
    found = distinct(vocabulary.user_positions(known))
    return found[found >= 0]


def find(paths: Sequence[Path], users: Sequence[str], skip: Path) -> list[Found]:
    """What holds the users or has learned from them: tables, and all below folders but for what is below `skip`."""
    artifacts: list[Path] = []
    files = (_table(path, set(users)) for path in paths if path.is_file())
    found = [one for one in files if one is not None]
    for path in paths:
        found += _walked(path, users, skip, artifacts)
    return list({one.path.resolve(): one for one in [*_artifacts(artifacts, users), *found]}.values())


def _walked(folder: Path, users: Sequence[str], skip: Path, artifacts: list[Path]) -> list[Found]:
    """Tables, exposures and rests below a folder that hold the users; artifacts are added to the list."""
    found: list[Found] = []
    for root, names, files in os.walk(folder):
        path = Path(root)
        names[:] = sorted(name for name in names if (path / name).resolve() != skip.resolve())
        is_artifact = MANIFEST in files
        if KEY in files and (num := count_lines(path, [one for text in users for one in ids_of(text)])):
            found.append(Found("exposures", path, num))
        if path.name.endswith(".unfinished") and "settings.json" in files:
            artifacts.append(path)
            names.clear()
        elif path.name.startswith(".") and path.name.endswith((".partial", ".replaced", ".erasing")):
            found += [Found("rest of a write", path)] if _names_any(path, users) else []
            names.clear()
        elif is_artifact:
            artifacts.append(path)
            names[:] = [name for name in names if name not in (VOCABULARY, "report", "tensorboard")]
        own = (*RUN_FILES, *SERVED_FILES, "item_columns.parquet") if is_artifact else ()
        tables = (path / name for name in sorted(files) if name.endswith(TABLES) and name not in own)
        found += [one for table in tables if (one := _table(table, set(users)))]
    return found


def _artifacts(paths: Sequence[Path], users: Sequence[str]) -> list[Found]:
    """Runs that hold the users, and those that began with one of them; then what names nobody.

    Of that, exports and unfinished runs of the same log have learned from the users, and of the rest it is not known.
    """
    runs: list[Found] = []
    others: list[tuple[Path, dict[str, Any]]] = []
    without: list[tuple[Path, dict[str, Any]]] = []
    marks: set[str] = set()
    theirs: set[str] = set()
    known: set[str] = set()
    for path in paths:
        try:
            if _is_unfinished(path):
                others.append((path, json.loads((path / "settings.json").read_bytes())))
                continue
            manifest = read_manifest(path)
            if is_private(manifest):
                # It would be almost the same without them; ε says how nearly.
                continue
            known |= weights_of(manifest)
            if HISTORIES in manifest["sha256"]:
                if len(chosen := positions(Vocabulary.load(path / VOCABULARY), users)):
                    runs.append(Found("run", path, len(chosen), IMPROVEMENT in manifest, chosen))
                    marks |= _marks(manifest)
                    theirs |= weights_of(manifest)
                else:
                    without.append((path, manifest))
                continue
            others.append((path, manifest))
        except (CheckpointError, OSError, ValueError, KeyError, TypeError):
            runs += [Found("unreadable", path)] if _names_any(path, users) else []
    for path, manifest in without:
        if (one := _run_without(path, manifest, theirs, known)) is not None:
            runs.append(one)
            marks |= _marks(manifest) if one.kind == "descendant" else set()
    return runs + [Found(_kind(path, manifest, marks), path) for path, manifest in others]


def _run_without(path: Path, manifest: dict[str, Any], theirs: set[str], known: set[str]) -> Found | None:
    """A run that names none of the users and has or may have learned from them; None for another one.

    Args:
        path: Its folder.
        manifest: Its manifest.
        theirs: The weights of runs that hold the users.
        known: The weights of all runs that were found.
    """
    if theirs & set(manifest.get(STARTED_FROM, [])):
        return Found("descendant", path, is_improved=IMPROVEMENT in manifest)
    if begins_elsewhere(manifest, known):
        return Found("start elsewhere", path)
    return Found("improved run", path) if IMPROVEMENT in manifest else None


def _kind(path: Path, manifest: dict[str, Any], marks: set[str]) -> Kind:
    """What an artifact without histories is, given the marks of the runs that hold the users."""
    if not _marks(manifest) & marks:
        return "nameless"
    return "unfinished run" if _is_unfinished(path) else "export"


def _is_unfinished(path: Path) -> bool:
    return path.name.endswith(".unfinished") and not (path / MANIFEST).exists()


def _marks(manifest: dict[str, Any]) -> set[str]:
    """What tells that a run, its exports and an unfinished run are of one log: the hash of the split, and the fit."""
    found = (manifest.get("created"), manifest.get("data.split_hash"), manifest.get("protocol", {}).get("split_hash"))
    return {str(one) for one in found if one is not None}


def _names_any(folder: Path, users: Sequence[str]) -> bool:
    """Whether the vocabulary of a folder has one of the users; yes where it cannot be read."""
    try:
        table = pq.read_table(folder / VOCABULARY / "users.parquet", columns=[Columns.USER])
    except FileNotFoundError:
        return False
    except (OSError, pa.ArrowException):
        return True
    return bool(pc.any(_is_any(table.column(Columns.USER), set(users))).as_py())


def _is_any(column: pa.ChunkedArray | pa.Array, users: set[str]) -> Any:
    return pc.is_in(column.cast(pa.string()), value_set=pa.array(sorted(users), pa.string()))


def _table(path: Path, users: set[str]) -> Found | None:
    """A table with a column user_id that has rows of the users."""
    try:
        num_rows = _num_rows(path, users)
    except (OSError, ValueError, csv.Error, pa.ArrowException):
        return Found("unreadable", path)
    return Found("table", path, num_rows) if num_rows else None


def _num_rows(path: Path, users: set[str]) -> int:
    if path.suffix == ".parquet":
        if Columns.USER not in pq.read_schema(path).names:
            return 0
        return pc.sum(_is_any(pq.read_table(path, columns=[Columns.USER]).column(0), users)).as_py() or 0
    with path.open(**ENCODING) as stream:
        return sum(is_of_users for _, is_of_users in _records(stream, users))


def remove_rows(path: Path, users: Sequence[str]) -> None:
    """Write a table again without the rows of users, whole or not at all; other rows of CSV keep their bytes."""
    wanted = set(users)
    try:
        with atomic_write(path) as unfinished:
            if path.suffix == ".parquet":
                file = pq.ParquetFile(path)
                with pq.ParquetWriter(unfinished, file.schema_arrow) as writer:
                    for batch in file.iter_batches():
                        rows = pa.Table.from_batches([batch])
                        writer.write_table(rows.filter(pc.invert(_is_any(rows.column(Columns.USER), wanted))))
                return
            with path.open(**ENCODING) as stream, unfinished.open("w", **ENCODING) as out:
                out.writelines(text for text, is_of_users in _records(stream, wanted) if not is_of_users)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}. It is as it was.") from error


def _records(stream: TextIO, users: set[str]) -> Iterator[tuple[str, bool]]:
    """The text of each record of a CSV file, the heading too, and whether it is of one of the users."""
    read: list[str] = []

    def lines() -> Iterator[str]:
        for line in stream:
            read.append(line)
            yield line

    column: int | None = None
    for number, row in enumerate(csv.reader(lines())):
        if number == 0:
            if Columns.USER not in row:
                return
            column = row.index(Columns.USER)
        is_of_users = number > 0 and column is not None and len(row) > column and row[column] in users
        yield "".join(read), is_of_users
        read.clear()
