"""Download public data sets into a local cache; without network, simulate one and label it so."""

from __future__ import annotations

import hashlib
import io
import os
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from variseq.errors import InputError
from variseq.events.simulate import SimulationOptions, simulate, write_table
from variseq.events.table import Columns

ARCHIVE_ADDRESS = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ARCHIVE_MAX_BYTES = 20_000_000
ARCHIVE_TIMEOUT_SECONDS = 10
CONTENT_SHA256 = "504a4ec5295607a0b8618403e1ded7da80326bd2a3b9a651d173ff3491e097ae"
"""SHA-256 of the rows in the publisher's order; see `content_sha256`."""
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True)
class DatasetFiles:
    """Where a data set lies, and what it is."""

    events: Path
    items: Path
    source: str
    """Where it came from, in words; for simulated data also why the real data could not be downloaded."""
    is_real: bool
    """False for simulated data, which must be labeled wherever it is shown."""


@dataclass(frozen=True)
class Content:
    """The rows of a data set: events (user_id, item_id, timestamp, value) and items (item_id, title, category)."""

    events: pa.Table
    items: pa.Table


def movielens_100k(cache: Path | None = None, fetch: Callable[[], Content] | None = None) -> DatasetFiles:
    """MovieLens-100K: 100,000 ratings of 1,682 films by 943 users, 1997 to 1998.

    The files come from the cache, or from the publisher's archive. Their rows are checked. Where the archive cannot
    be had, the files hold simulated events: then `is_real` is False, and `source` gives the reason.

    The license allows research and forbids redistribution, so the package downloads the data and never ships it
    (F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015).

    Args:
        cache: Folder for the files. None: `$VARISEQ_CACHE`, or `~/.cache/variseq`.
        fetch: Gets the rows where the cache has none. None: download the publisher's archive.

    Returns:
        The paths of the files, and where their rows come from.

    Raises:
        InputError: The cache folder cannot be written.
    """
    folder = (cache or default_cache()) / "movielens-100k"
    events, items = folder / "events.parquet", folder / "items.parquet"
    if _is_intact(events, items):
        return DatasetFiles(events, items, "MovieLens-100K, from the local cache", is_real=True)
    try:
        content = (fetch or from_publisher)()
        _check_content(content)
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        return _simulated(folder, f"{ARCHIVE_ADDRESS}: {error}")
    _write(folder, {items: content.items, events: content.events})
    return DatasetFiles(events, items, "MovieLens-100K, from the publisher's archive", is_real=True)


def default_cache() -> Path:
    """The folder for downloaded data: `$VARISEQ_CACHE`, or `~/.cache/variseq`."""
    chosen = os.environ.get("VARISEQ_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "variseq"


def content_sha256(content: Content) -> str:
    """The SHA-256 of all rows, in order, as tab-separated UTF-8 lines; a rating is written without a point."""
    digest = hashlib.sha256()
    for table in (content.events, content.items):
        for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
            line = "\t".join(f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in row)
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def from_publisher() -> Content:
    """Download the publisher's archive and read it."""
    with urllib.request.urlopen(ARCHIVE_ADDRESS, timeout=ARCHIVE_TIMEOUT_SECONDS) as answer:
        archive = io.BytesIO(answer.read(ARCHIVE_MAX_BYTES))
    with zipfile.ZipFile(archive) as opened:
        return read_publisher_files(opened.read("ml-100k/u.data"), opened.read("ml-100k/u.item"))


def read_publisher_files(ratings: bytes, films: bytes) -> Content:
    """Rows of `u.data` (user, item, rating, seconds; tabs) and `u.item` (Latin-1, bars, 19 genre flags).

    >>> films = "1|Am\\xe9lie (2001) |01-Jan-2001|||0|0|0|0|0|1|0|0|1|0|0|0|0|0|0|0|0|0|0".encode("latin-1")
    >>> content = read_publisher_files(b"7\\t1\\t5\\t881250949\\n", films)
    >>> content.items.to_pylist()
    [{'item_id': 1, 'title': 'Amélie (2001)', 'category': 'Comedy|Drama'}]
    """
    rows = []
    for line in films.decode("latin-1").splitlines():
        item_id, title, _, _, _, *flags = line.split("|")
        category = "|".join(genre for genre, flag in zip(GENRES, flags, strict=True) if flag == "1")
        rows.append({Columns.ITEM: int(item_id), Columns.TITLE: title.strip(), Columns.CATEGORY: category})
    events = pyarrow.csv.read_csv(
        io.BytesIO(ratings),
        pyarrow.csv.ReadOptions(column_names=[Columns.USER, Columns.ITEM, Columns.VALUE, Columns.TIME]),
        pyarrow.csv.ParseOptions(delimiter="\t"),
        pyarrow.csv.ConvertOptions(column_types={Columns.VALUE: pa.float64()}),
    )
    columns = [Columns.USER, Columns.ITEM, Columns.TIME, Columns.VALUE]
    return Content(events.select(columns), pa.Table.from_pylist(rows))


def _check_content(content: Content) -> None:
    found = content_sha256(content)
    if found != CONTENT_SHA256:
        raise ValueError(f"the rows have SHA-256 {found}, expected {CONTENT_SHA256}")


def _is_intact(events: Path, items: Path) -> bool:
    """Whether the cache holds exactly the expected rows; a damaged cache is fetched again."""
    if not (events.is_file() and items.is_file()):
        return False
    try:
        _check_content(Content(pyarrow.parquet.read_table(events), pyarrow.parquet.read_table(items)))
    except (OSError, ValueError):
        return False
    return True


def _write(folder: Path, tables: Mapping[Path, pa.Table]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, table in tables.items():
            write_table(table, path)
    except OSError as problem:
        raise InputError(
            f"The folder {str(folder)!r} cannot be written ({problem.strerror}). "
            "Free or unlock it, or set VARISEQ_CACHE to another folder."
        ) from problem


def _simulated(folder: Path, why: str) -> DatasetFiles:
    """Simulated events under other file names, so that nobody takes them for the real data."""
    simulation = simulate(SimulationOptions(num_users=943, num_items=500, mean_events=40))
    events, items = folder / "simulated-events.parquet", folder / "simulated-items.parquet"
    _write(folder, {items: simulation.items(), events: simulation.events()})
    return DatasetFiles(events, items, f"simulated, for MovieLens-100K could not be downloaded ({why})", is_real=False)
