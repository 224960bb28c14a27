"""MovieLens-1M (films, ratings as events) into a run: by order, leave-one-out; with request time; by time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from command import command
from data_files import find_files
from record import Experiment, Record, Request, run, split
from sequence_file import ORDER_ONLY, events_in_order

from variseq.errors import InputError
from variseq.log import read

LONGEST_HISTORY = 200
LEAVE_ONE_OUT = {
    "size": "small",
    "split.by": "leave-one-out",
    "read.time_unit": "seconds",
    "model.max_seq_len": LONGEST_HISTORY,
}
REQUEST_TIME = (
    "Each event carries the time of the event after it, so that the model knows when the answer is wanted (the second "
    "track). 46 % of the times are interpolated; benchmarks/request_time.py shows apart the users whose every time is "
    "exact."
)


def movielens_1m(data: Path, request: Request) -> Record:
    """The 5-core sequences of the literature: 6,040 users, 3,416 items, leave-one-out, the last 200 events.

    DATA holds `sequences_5core_items.txt` (lines "user item item ...", oldest first) and `movies.csv`
    (item,title,genres). The file has no times, so the model sees none, and recent-popular is popular.
    """
    settings = request.settings(LEAVE_ONE_OUT)
    files = find_files(data, "sequences_5core_items.txt", "movies.csv")
    log = read(events_in_order(files[0]), items=files[1], options=settings.read)
    experiment = Experiment("movielens_1m", "MovieLens-1M, 5-core", files, settings, notes=[ORDER_ONLY])
    return run(experiment, log, split(log, settings), request)


def with_request_time(data: Path, request: Request) -> Record:
    """The same sequences and the same split, and the model is told when the answer is wanted.

    DATA holds `interactions.parquet` (user, item, pos: the place in the user's sequence, null for items with fewer than
    5 ratings; timestamp_est: seconds, exact for 54 % and interpolated between the user's exact ones otherwise) and
    `movies.csv`. Each event is given the time of the event after it. What the network sees as the gap at an event is
    then the time from it to the next request; of the last training event that is the request of validation, of the
    validation event that of test. A user's last event, which is only ever a target, keeps its own.
    """
    settings = request.settings(LEAVE_ONE_OUT)
    files = find_files(data, "interactions.parquet", "movies.csv")
    log = read(_events_with_request_times(files[0]), items=files[1], options=settings.read)
    name, notes = "MovieLens-1M, 5-core, with request time", [REQUEST_TIME]
    experiment = Experiment("movielens_1m_with_request_time", name, files, settings, notes=notes, request_time=True)
    return run(experiment, log, split(log, settings), request)


def _events_with_request_times(path: Path) -> pa.Table:
    """user_id, item_id, and as timestamp the time of the user's next event, in the order of the sequences."""
    try:
        table = pa.parquet.read_table(path, columns=["user", "item", "pos", "timestamp_est"])
        columns = [column.to_numpy() for column in table.filter(table["pos"].is_valid()).columns]
        user, item, place, time = (column.astype(np.int64) for column in columns)
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise InputError(f"{path.name} is not a table with user, item, pos and timestamp_est ({error}).") from error
    order = np.lexsort((place, user))
    user, item, time = user[order], item[order], time[order]
    same_user = np.append(user[1:] == user[:-1], False)
    request_time = np.where(same_user, np.append(time[1:], 0), time)
    return pa.table({"user_id": user, "item_id": item, "timestamp": request_time})


def with_time(data: Path, request: Request) -> Record:
    """The ratings of users 1 to 2,999 with their true times and values, split at two moments.

    DATA holds `ratings_users_1_2999.dat.csv.gz` (user,item,rating,timestamp) and `movies.csv`. Most users rate within
    one sitting, so few have events on both sides of a cut: expect about 600 test users and wide intervals.
    """
    settings = request.settings({"size": "small", "split.by": "time", "model.max_seq_len": LONGEST_HISTORY})
    files = find_files(data, "ratings_users_1_2999.dat.csv.gz", "movies.csv")
    log = read(files[0], items=files[1], options=settings.read)
    experiment = Experiment("movielens_1m_with_time", "MovieLens-1M, users 1 to 2,999", files, settings)
    return run(experiment, log, split(log, settings), request)


if __name__ == "__main__":
    sys.exit(command(movielens_1m, with_request_time, with_time))
