"""Published data sets as logs: which files each needs, how they are read, and what a reader of results has to know."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from measurement.field_logs import (
    INTEGER,
    Events,
    assistments,
    eicu,
    places,
    places_and_durations,
    places_on_map,
    synthea,
    transactions,
)
from measurement.files import find_files, lines_of, read_csv
from measurement.records import sha256_of
from measurement.simulated import AccountOracle, DriveOracle, OracleOf, accounts, drives
from variseq import ReadOptions, read
from variseq.errors import InputError
from variseq.log import Log

ORDER_ONLY = (
    "The file has an order and no times: each event's time is its position in seconds. The split and the model go by "
    "the order alone; recent-popular is popular."
)
REQUEST_TIME = (
    "Each event carries the time of the event after it, so the model knows when the answer is wanted. 46 % of the "
    "times are interpolated."
)
MIND_ORDER = (
    "The history of a user has an order and no times: its events stand one second apart before the first impression "
    "of the log. Time gaps within it mean nothing."
)
OWN_CALENDAR = "Times are counted from each person's first day, so the events of two people have no common order."
TIES_SEED = 0
TAOBAO_FIRST_SECOND = 1_511_539_200
"""25 November 2017, midnight in China: the log covers nine days from here on."""


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: its title, its files (names or patterns), how they become events, and the settings of its split.

    With `has_request_time` each event carries the time of the next one; with `evaluates_request_time` the run is
    evaluated a second time, with the time of each request. The people of `test_file` are the test part. A simulated
    log has no files, and an `oracle` of its probabilities. With `in_one_record` all models are rows of one record,
    with the metrics of this name alone. With `only_values` items are not ranked: values are forecast given the item.
    """

    title: str
    files: tuple[str, ...]
    events: Callable[[list[Path]], Events] | None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    has_request_time: bool = False
    k: int = 10
    targets: str = "last"
    evaluates_request_time: bool = False
    test_file: str | None = None
    oracle: OracleOf | None = None
    in_one_record: tuple[str, ...] = ()
    only_values: bool = False


@dataclass(frozen=True)
class LoadedDataset:
    """A log, with what a record has to state about its data; `test` is that of the test file."""

    log: Log
    description: dict[str, Any]
    test: Log | None = None


def load_dataset(name: str, folder: Path, options: ReadOptions | None = None) -> LoadedDataset:
    """Read a data set of `DATASETS` from the folder with its files.

    Raises InputError for an unknown name, and for files that are missing or of another form.
    """
    spec = dataset_spec(name)
    paths = find_files(folder, *spec.files) if spec.files else []
    test_paths = find_files(folder, spec.test_file) if spec.test_file else []
    options = options or ReadOptions(**_read_settings(spec))
    notes = list(spec.notes)
    if spec.events is None:
        log = read(paths, options=options)
    else:
        events, items, found = spec.events(paths)
        log = read(events, items=items, options=options)
        notes += found
    test = read(spec.events(test_paths)[0], options=options) if spec.events and test_paths else None
    description = {
        "name": name,
        "title": spec.title,
        "sha256": {path.name: sha256_of(path) for path in (*paths, *test_paths)},
        "num_events": log.histories.num_events,
        "num_users": log.vocabulary.num_users,
        "num_items": log.vocabulary.num_items,
        "notes": notes,
    }
    return LoadedDataset(log, description, test)


def dataset_spec(name: str) -> DatasetSpec:
    """The data set of this name. Raises InputError for an unknown one."""
    if name not in DATASETS:
        raise InputError(f"There is no data set {name!r}. There are: {', '.join(DATASETS)}.")
    return DATASETS[name]


def _read_settings(spec: DatasetSpec) -> dict[str, Any]:
    return {key.removeprefix("read."): value for key, value in spec.settings.items() if key.startswith("read.")}


def sequences(path: Path, with_gaps: bool = False) -> pa.Table:
    """Lines "user item item ...", oldest first: user_id, item_id and timestamp = position from 1 (seconds).

    With gaps, lines are "user item item ...<tab>gap gap ..." and the timestamp is the sum of the gaps so far.
    Raises InputError for a line of another form, and for a user with two lines.
    """
    form = "user item item ..." + ("<tab>gap gap ..." if with_gaps else "")
    users: dict[int, tuple[list[int], Any]] = {}
    for number, line in lines_of(path):
        try:
            left, tab, right = line.partition("\t") if with_gaps else (line, "\t", "")
            user, *items = (int(value) for value in left.split())
            times = np.cumsum([int(gap) for gap in right.split()]) if with_gaps else np.arange(1, len(items) + 1)
            is_bad = not tab or len(times) != len(items) or bool((np.diff(times) < 0).any()) or user in users
        except ValueError:
            is_bad = True
        if is_bad:
            raise InputError(f"{path}, line {number}: {line[:60]!r} is not '{form}' with one line a user, in integers.")
        users[user] = items, times
    lengths = [len(items) for items, _ in users.values()]
    columns = {
        "user_id": np.repeat(np.array(list(users), dtype=np.int64), lengths),
        "item_id": np.array([item for items, _ in users.values() for item in items], dtype=np.int64),
        "timestamp": np.concatenate([times for _, times in users.values()] or [np.arange(0)]).astype(np.int64),
    }
    return pa.table(columns)


def shuffle_ties(events: pa.Table) -> tuple[pa.Table, str]:
    """Rows by user and time, equal times in random order: in a deployed system that order would not be known.

    >>> table, note = shuffle_ties(pa.table({"user_id": [1, 1, 1], "item_id": [7, 8, 9], "timestamp": [5, 3, 3]}))
    >>> sorted(table["item_id"].to_pylist()[:2]), table["item_id"].to_pylist()[2]
    ([8, 9], 7)
    """
    user, time = events["user_id"].to_numpy(), events["timestamp"].to_numpy()
    order = np.lexsort((np.random.default_rng(TIES_SEED).random(len(user)), time, user))
    tied = np.flatnonzero((np.diff(user[order]) == 0) & (np.diff(time[order]) == 0))
    num_tied = len(np.union1d(tied, tied + 1))
    return events.take(order), (
        f"{num_tied:,} of {len(user):,} events share their time with another event of the same user. Their order was "
        f"drawn at random (seed {TIES_SEED}) before the split."
    )


def _positions(events: pa.Table) -> pa.Table:
    user = events["user_id"].to_numpy()
    begins = np.concatenate([[True], np.diff(user) != 0])[: len(user)]
    first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
    position = pa.array(np.arange(len(user)) - first + 1)
    return events.set_column(events.column_names.index("timestamp"), "timestamp", position)


def _movielens_100k(paths: list[Path]) -> Events:
    columns = {"user_id": INTEGER, "item_id": INTEGER, "value": INTEGER, "timestamp": INTEGER}
    return read_csv(paths[0], columns, header=False, delimiter="\t")[0], None, []


def _movielens_1m(paths: list[Path]) -> Events:
    return sequences(paths[0]), paths[1], []


def _movielens_1m_request_time(paths: list[Path]) -> Events:
    """As timestamp of an event the time of the user's next event, which is the time of the request after it."""
    path = paths[0]
    try:
        table = pa.parquet.read_table(path, columns=["user", "item", "pos", "timestamp_est"])
        columns = [column.to_numpy() for column in table.filter(table["pos"].is_valid()).columns]
        user, item, position, time = (column.astype(np.int64) for column in columns)
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise InputError(f"{path.name} is not a table with user, item, pos and timestamp_est ({error}).") from error
    order = np.lexsort((position, user))
    user, item, time = user[order], item[order], time[order]
    same_user = np.append(user[1:] == user[:-1], False)
    request_time = np.where(same_user, np.append(time[1:], 0), time)
    return pa.table({"user_id": user, "item_id": item, "timestamp": request_time}), paths[1], []


def _beauty(paths: list[Path]) -> Events:
    return sequences(paths[0]), _beauty_items(paths), []


def _beauty_shuffled(paths: list[Path]) -> Events:
    events, note = shuffle_ties(sequences(paths[0], with_gaps=True))
    return _positions(events), _beauty_items(paths), [note]


def _beauty_by_time(paths: list[Path]) -> Events:
    table, _ = read_csv(paths[0], {"user": INTEGER, "item": INTEGER, "timestamp": INTEGER}, header=True)
    events, note = shuffle_ties(table.rename_columns(["user_id", "item_id", "timestamp"]))
    return events, _beauty_items(paths), [note]


def _beauty_items(paths: list[Path]) -> pa.Table:
    """item_id, title and category (a list of attribute numbers as text; empty for an item without)."""
    titles, attributes = paths[1:]
    try:
        table = pa.csv.read_csv(titles, parse_options=pa.csv.ParseOptions(newlines_in_values=True))
        of_item = json.loads(attributes.read_text(encoding="utf-8"))
        categories = [[str(number) for number in of_item.get(str(item), [])] for item in table["item_id"].to_pylist()]
        named = table.select(["item_id", "title"])
    except (pa.ArrowException, KeyError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{titles.name} and {attributes.name} are not the item files of this data set ({error}). Needed: a table "
            "item_id,asin,title, and one JSON object from item to a list of numbers."
        ) from error
    return named.append_column("category", pa.array(categories, pa.list_(pa.string())))


def _taobao(paths: list[Path]) -> Events:
    """Every behavior is an event; the category of an item is that of its first event."""
    text = {"category": INTEGER, "event": pa.string(), "timestamp": INTEGER}
    table, num_broken = read_csv(paths[0], {"user_id": INTEGER, "item_id": INTEGER, **text}, False, may_skip=True)
    kept = table.filter(pc.greater_equal(table["timestamp"], TAOBAO_FIRST_SECOND))
    notes = [
        f"{table.num_rows - kept.num_rows:,} of {table.num_rows:,} events have a time before 25 November 2017 in China "
        "and were left out.",
        f"Lines with another number of fields, left out: {num_broken:,}.",
    ]
    rows = pa.table({"item_id": kept["item_id"], "category": kept["category"].cast(pa.string())})
    first = rows.group_by("item_id", use_threads=False).aggregate([("category", "first")])
    items = first.select(["item_id", "category_first"]).rename_columns(["item_id", "category"])
    return kept.drop_columns("category"), items, notes


def _mind(paths: list[Path]) -> Events:
    """History and clicks of every user; the history is that of the first impression."""
    found = sorted(impressions(paths[0]), key=lambda impression: impression[1])
    if not found:
        raise InputError(f"{paths[0]} is empty. Impressions, one a line, are needed.")
    rows: list[tuple[str, str, int]] = []
    known: set[str] = set()
    for user, second, history, shown in found:
        if user not in known:
            known.add(user)
            begin = found[0][1] - len(history)
            rows += [(user, news, begin + position) for position, news in enumerate(history)]
        rows += [(user, news.removesuffix("-1"), second) for news in shown if news.endswith("-1")]
    columns = zip(("user_id", "item_id", "timestamp"), zip(*rows, strict=True), strict=True)
    return pa.table({name: pa.array(values) for name, values in columns}), news(paths[1]), []


def impressions(path: Path) -> Iterator[tuple[str, int, list[str], list[str]]]:
    """User, time in seconds, history, and what was shown of each impression of MIND."""
    for number, line in lines_of(path):
        try:
            _, user, time, history, shown = line.split("\t")
            moment = datetime.strptime(time, "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number} is not impression, user, time (11/12/2019 2:14:46 PM), history, impressions "
                f"with tabs between them ({error})."
            ) from error
        yield user, int(moment.timestamp()), history.split(), shown.split()


def news(path: Path) -> pa.Table:
    """The news of MIND with title and categories."""
    rows = []
    for number, line in lines_of(path):
        if len(fields := line.split("\t")) < 4:
            raise InputError(f"{path}, line {number}: {len(fields)} fields. Needed: id, category, subcategory, title.")
        news, category, subcategory, title = fields[:4]
        rows.append({"item_id": news, "title": title, "category": [category, subcategory]})
    return pa.Table.from_pylist(rows)


ORDERED = {"size": "small", "split.by": "leave-one-out", "read.time_unit": "seconds"}
BY_TIME = {"size": "small", "split.by": "time"}
BY_STAY = {"size": "small", "split.by": "users", "split.test": 0.35, "split.valid": 0.15, "read.visit_gap": "0s"}
BY_PERSON = {"size": "tiny", "split.by": "user-time", "training.max_epochs": 10}
SHORT = {"size": "tiny", "training.max_epochs": 30, "training.refit_fraction": 0}
"""For simulated logs, of which there could be any number of events."""
FILMS = "movies.csv"
BEAUTY_ITEMS = ("item_titles.csv", "Beauty_item2attributes.json")
DATASETS = {
    "ml-100k": DatasetSpec("MovieLens-100K", ("u.data",), _movielens_100k, ORDERED | {"model.max_seq_len": 50}),
    "ml-1m": DatasetSpec(
        "MovieLens-1M, 5-core",
        ("sequences_5core_items.txt", FILMS),
        _movielens_1m,
        ORDERED | {"model.max_seq_len": 200},
        (ORDER_ONLY,),
    ),
    "ml-1m-request-time": DatasetSpec(
        "MovieLens-1M, 5-core, with request time",
        ("interactions.parquet", FILMS),
        _movielens_1m_request_time,
        ORDERED | {"model.max_seq_len": 200},
        (REQUEST_TIME,),
        has_request_time=True,
    ),
    "ml-1m-by-time": DatasetSpec(
        "MovieLens-1M, users 1 to 2,999",
        ("ratings_users_1_2999.dat.csv.gz", FILMS),
        lambda paths: (paths[0], paths[1], []),
        BY_TIME | {"model.max_seq_len": 200},
    ),
    "amazon-beauty": DatasetSpec(
        "Amazon Beauty 2014, 5-core",
        ("Beauty.txt", *BEAUTY_ITEMS),
        _beauty,
        ORDERED | {"model.max_seq_len": 50},
        (ORDER_ONLY,),
    ),
    "amazon-beauty-shuffled": DatasetSpec(
        "Amazon Beauty, days shuffled",
        ("Beauty_with_time_gaps.txt", *BEAUTY_ITEMS),
        _beauty_shuffled,
        ORDERED | {"model.max_seq_len": 50},
        (ORDER_ONLY,),
    ),
    "amazon-beauty-by-time": DatasetSpec(
        "Amazon Beauty, dated users",
        ("Beauty_absolute_time_subset.csv.gz", *BEAUTY_ITEMS),
        _beauty_by_time,
        BY_TIME | {"model.max_seq_len": 50},
    ),
    "taobao": DatasetSpec("Taobao UserBehavior", ("UserBehavior.csv",), _taobao, BY_TIME | {"read.min_item_events": 5}),
    "mind": DatasetSpec(
        "MIND, 5,000 impressions",
        ("behaviors.tsv", "news.tsv"),
        _mind,
        ORDERED | {"training.max_epochs": 12},
        (MIND_ORDER,),
        evaluates_request_time=True,
    ),
    "eicu": DatasetSpec(
        "eICU demo, diagnoses and treatments",
        ("diagnosis.csv.gz", "treatment.csv.gz"),
        eicu,
        BY_STAY,
        (OWN_CALENDAR, "A visit is what is written down in one minute of a stay; stays of one patient stand alone."),
        k=20,
        targets="all",
    ),
    "synthea": DatasetSpec(
        "Synthea, synthetic patients",
        tuple(f"{name}.csv.gz" for name in ("encounters", "conditions", "procedures", "medications")),
        synthea,
        BY_STAY | {"size": "tiny"},
        ("A visit is an encounter. Synthetic patients: what follows what is written in the simulator.",),
        k=20,
        targets="all",
        in_one_record=("visit_recall@20", "visit_ndcg@20", "visit_recall_repeats@20", "visit_recall_new@20", "nll"),
    ),
    "assist2009": DatasetSpec(
        "ASSISTments 2009-2010, skills",
        ("train.csv",),
        assistments,
        ORDERED
        | {"size": "tiny", "split.by": "users", "split.test": "none", "split.valid": 0.2, "training.max_epochs": 6},
        (ORDER_ONLY, "Targets are all answers of the students of test.csv, from the first on."),
        targets="all",
        test_file="test.csv",
        in_one_record=("value_auc", "value_rmse", "num_values"),
        only_values=True,
    ),
    "accounts": DatasetSpec(
        "Simulated bank accounts",
        (),
        lambda _: (accounts(), None, []),
        SHORT | {"split.by": "user-time"},
        ("No real account is in it. The value is the natural logarithm of the amount.",),
        targets="all",
        oracle=AccountOracle,
        in_one_record=("ndcg@10", "recall@10", "nll", "value_rmse", "gap_nll"),
    ),
    "drives": DatasetSpec(
        "Simulated drives on a grid",
        (),
        lambda _: (drives(), None, []),
        SHORT | {"split.by": "users"},
        ("No real drive is in it. The street follows from the last two manoeuvres, not from the last one.",),
        k=1,
        targets="all",
        oracle=DriveOracle,
        in_one_record=("recall@1", "nll"),
    ),
    "foursquare-nyc": DatasetSpec(
        "Foursquare check-ins, New York",
        tuple(f"foursquare_{part}.csv.gz" for part in ("train", "valid", "test")),
        places,
        ORDERED,
        (OWN_CALENDAR,),
        evaluates_request_time=True,
    ),
    "foursquare-nyc-map": DatasetSpec(
        "Foursquare check-ins, New York, with coordinates",
        tuple(f"foursquare_{part}.csv.gz" for part in ("train", "valid", "test")),
        places_on_map,
        ORDERED,
        (
            OWN_CALENDAR,
            "Coordinates are scaled to a box, which is taken as 40.55 to 40.99 N, 73.68 to 74.27 W.",
        ),
        evaluates_request_time=True,
    ),
    "geolife": DatasetSpec(
        "Geolife stays",
        tuple(f"geolife_{part}.csv.gz" for part in ("train", "valid", "test")),
        places,
        ORDERED,
        (OWN_CALENDAR,),
        evaluates_request_time=True,
    ),
    "geolife-dwell": DatasetSpec(
        "Geolife stays with their duration",
        tuple(f"geolife_{part}.csv.gz" for part in ("train", "valid", "test")),
        places_and_durations,
        BY_PERSON | {"split.test": 0.25, "split.valid": 0.25},
        (OWN_CALENDAR, "The value is the natural logarithm of the minutes of a stay."),
        targets="all",
        in_one_record=("recall@10", "ndcg@10", "nll", "value_rmse", "value_interval_coverage_90", "num_values"),
    ),
    "anz": DatasetSpec(
        "ANZ, synthesized transactions",
        ("transactions.csv.gz",),
        transactions,
        BY_PERSON,
        (
            "Synthesized from statistics of spending, and no real account.",
            "The item is the merchant, or the kind of a transaction without one; the category is the suburb.",
            "The value is the natural logarithm of the amount.",
        ),
        targets="all",
        in_one_record=("ndcg@10", "recall@10", "nll", "value_rmse", "num_values", "gap_nll"),
    ),
    "yoochoose": DatasetSpec(
        "YooChoose clicks",
        ("*_train_full.txt", "*_test.txt"),
        None,
        BY_TIME | {"split.test": "1d", "split.valid": "1d"},
        ("One query a session: its last click. Items of the history are ranked too.",),
    ),
}
