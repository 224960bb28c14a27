"""A prepared dataset: a cleaned log as a folder of Parquet files, whole users in each, with a manifest.

    DATASET/prepared.json          format, report, options, number of events in each bucket, SHA-256 of each file
    DATASET/vocabulary/            ids of users and items, and the behaviors
    DATASET/buckets/00000.parquet  user, item, timestamp, behavior and value of the first users, and so on

Users stand in the order of their positions, and events of a user in the order of time and of the rows of the input.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variseq.atomic import atomic_directory
from variseq.errors import InputError
from variseq.events.clean import ordered, shuffle_ties, to_arrays
from variseq.events.cleaned import Cleaned
from variseq.events.items import read_items
from variseq.events.options import ReadOptions
from variseq.events.report import Events, ReadReport
from variseq.events.session import open_session
from variseq.events.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FORMAT_VERSION = 1
MANIFEST, VOCABULARY, BUCKETS = "prepared.json", "vocabulary", "buckets"
EVENTS_PER_BUCKET = 1 << 20
_SCHEMA = pa.schema(
    {"user": pa.int32(), "item": pa.int32(), "timestamp": pa.int64(), "behavior": pa.uint8(), "value": pa.float32()}
)


def prepared_folder(source: object) -> Path | None:
    """The folder of a prepared dataset, where a source is the path of one. Raises InputError for one among others."""
    given = source if isinstance(source, list | tuple) else [source]
    found = [Path(one) for one in given if isinstance(one, str | Path) and (Path(one) / MANIFEST).is_file()]
    if found and len(given) > 1:
        raise InputError(f"{found[0]} is a prepared dataset, which is read alone. Prepare one of all logs.")
    return found[0] if found else None


@contextmanager
def new_dataset(folder: Path) -> Iterator[Path]:
    """A folder to write to, which becomes the dataset at the end. Raises InputError where it cannot."""
    try:
        with atomic_directory(folder) as unfinished:
            yield unfinished
    except OSError as error:
        raise InputError(
            f"The dataset {folder} could not be written: {error}. Is there room, and may it be?"
        ) from error


def write_events(folder: Path, cleaned: Cleaned, events_per_bucket: int) -> ReadReport:
    """Write vocabulary, buckets and manifest of a cleaned log; its report."""
    cleaned.vocabulary.save(folder / VOCABULARY)
    (folder / BUCKETS).mkdir()
    sizes: list[int] = []
    counts = np.zeros(cleaned.vocabulary.num_behaviors, dtype=np.int64)
    first, last = 2**63 - 1, -1
    for number, bucket in enumerate(_buckets(ordered(cleaned.session.engine), events_per_bucket)):
        pq.write_table(bucket, folder / BUCKETS / _name(number))
        sizes.append(len(bucket))
        counts += np.bincount(bucket["behavior"].to_numpy(), minlength=len(counts))
        span = pc.min_max(bucket["timestamp"]).as_py()
        first, last = min(first, span["min"]), max(last, span["max"])
    report = cleaned.report(first, last, counts.tolist())
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "format_version": FORMAT_VERSION,
        "bucket_sizes": sizes,
        "report": report.to_json(),
        "sha256": {path.relative_to(folder).as_posix(): _digest(path) for path in files},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def read_prepared(folder: Path, items: object | None, options: ReadOptions) -> Events:
    """Read a dataset bucket by bucket, so that only the arrays and one bucket are in memory.

    Raises InputError for another format, a file that is missing or was changed, and for options that differ from those
    that the dataset was prepared with.
    """
    manifest = _manifest(folder)
    try:
        found = manifest["report"]
        report = ReadReport(**(found | {"span": tuple(found["span"])}))
        prepared_with = ReadOptions(**report.options)
        num_of_buckets = {_name(number): int(size) for number, size in enumerate(manifest["bucket_sizes"])}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder / MANIFEST} is damaged ({error!r}). Prepare the log again.") from error
    options = _with_options_of(folder, prepared_with, options)
    for name in manifest["sha256"]:
        if name.startswith(f"{VOCABULARY}/"):
            _checked_bytes(folder, manifest, name)
    vocabulary = Vocabulary.load(folder / VOCABULARY)
    if sum(num_of_buckets.values()) != report.num_events:
        raise InputError(f"The buckets of {folder} do not hold {report.num_events:,} events. Prepare the log again.")
    table = to_arrays(_batches(folder, manifest, num_of_buckets), report.num_events)
    if options.ties == "shuffle":
        shuffle_ties(table)
    item_table = None
    if items is not None:
        with open_session(options.memory_limit, options.temporary_folder) as session:
            item_table = read_items(session, items, vocabulary, options)
            report.notes.extend(session.notes)
            report.warnings.extend(session.warnings)
    kept = options.model_dump(mode="json", exclude={"memory_limit", "temporary_folder", "rejects"})
    return Events(table, vocabulary, item_table, replace(report, options=kept))


def prepared_on_spark(spark: SparkSession, folder: Path) -> DataFrame:
    """The events of a dataset as a frame of Spark, with ids, times and behaviors; `input_row` has their order.

    Raises InputError for another format and for a file that is missing; contents are not checked.
    """
    from pyspark.sql import functions as F

    manifest = _manifest(folder)
    for name in manifest["sha256"]:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing. Prepare the log again.")

    def ids(name: str) -> DataFrame:
        table = spark.read.parquet(f"file://{(folder / VOCABULARY / name).absolute()}.parquet")
        return table.select("*", F.col("_metadata.row_index").cast("int").alias(name[:-1]))

    row = F.struct("_metadata.file_path", "_metadata.row_index").alias("input_row")
    events = spark.read.parquet(f"file://{(folder / BUCKETS).absolute()}").select("*", row)
    behaviors = F.array(*map(F.lit, Vocabulary.load(folder / VOCABULARY).behaviors))
    return (
        events.join(ids("users"), "user")
        .join(ids("items"), "item")
        .select(
            "user_id",
            "item_id",
            F.timestamp_micros("timestamp").alias("timestamp"),
            F.get(behaviors, F.col("behavior").cast("int")).alias("event"),
            F.nanvl("value", F.lit(None)).alias("value"),
            "input_row",
        )
    )


def _buckets(batches: Iterable[pa.RecordBatch], num_events: int) -> Iterator[pa.Table]:
    """Ordered events, cut where a user begins: where a bucket has `num_events`, the next user starts another.

    The cuts do not depend on how the events are divided into batches.
    """
    waiting: list[pa.Table] = []
    num_waiting = 0
    for batch in batches:
        arrived = pa.Table.from_batches([batch]).select(range(len(_SCHEMA)))
        arrived = arrived.rename_columns(_SCHEMA.names).cast(_SCHEMA)
        arrived = arrived.set_column(4, _SCHEMA.field("value"), pc.fill_null(arrived["value"], np.nan))
        while True:
            users = arrived["user"].to_numpy()
            previous = waiting[-1]["user"][-1].as_py() if waiting else None
            changes = np.flatnonzero(np.diff(users, prepend=users[:1] if previous is None else previous))
            cut = changes[changes + num_waiting >= num_events]
            if not len(cut):
                break
            yield pa.concat_tables([*waiting, arrived[: cut[0]]]).combine_chunks()
            waiting, num_waiting, arrived = [], 0, arrived[cut[0] :]
        waiting.append(arrived)
        num_waiting += len(arrived)
    if num_waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _batches(folder: Path, manifest: dict[str, Any], num_of_buckets: dict[str, int]) -> Iterator[pa.RecordBatch]:
    for name, num in num_of_buckets.items():
        table = pq.read_table(io.BytesIO(_checked_bytes(folder, manifest, f"{BUCKETS}/{name}")))
        if table.schema != _SCHEMA or len(table) != num:
            raise InputError(
                f"{folder / BUCKETS / name} holds other rows than the manifest says. Prepare the log again."
            )
        yield from table.to_batches()


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = int(manifest["format_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / MANIFEST} is damaged ({error!r}). Prepare the log again.") from error
    if found != FORMAT_VERSION:
        remedy = "Update variseq" if found > FORMAT_VERSION else "Prepare the log again"
        raise InputError(f"{folder} has format {found}, and this release reads format {FORMAT_VERSION}. {remedy}.")
    return manifest


def _with_options_of(folder: Path, prepared_with: ReadOptions, given: ReadOptions) -> ReadOptions:
    """The options of the dataset, and of those given what is for items and this machine.

    Raises InputError for a given option that the dataset was prepared without.
    """
    free = {"item_columns", "memory_limit", "temporary_folder"}
    differing = [name for name in given.model_fields_set - free if getattr(given, name) != getattr(prepared_with, name)]
    if differing:
        name = sorted(differing)[0]
        raise InputError(
            f"{folder} was prepared with {name}={getattr(prepared_with, name)!r}, and now {getattr(given, name)!r} was "
            f"given. Leave {name} out, or prepare the log again with it."
        )
    return prepared_with.model_copy(update={name: getattr(given, name) for name in free})


def _checked_bytes(folder: Path, manifest: dict[str, Any], name: str) -> bytes:
    """The content of a file. Raises InputError where it is missing or is not what was written."""
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise InputError(f"{folder / name} is missing or cannot be read ({error}). Prepare the log again.") from error
    if hashlib.sha256(content).hexdigest() != manifest["sha256"].get(name):
        raise InputError(f"{folder / name} was changed after it was written. Prepare the log again.")
    return content


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(number: int) -> str:
    return f"{number:05}.parquet"
