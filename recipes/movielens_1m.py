"""MovieLens-1M (films, ratings as events) into a run: by order, leave-one-out; or with true times, split by time."""

from __future__ import annotations

import sys
from pathlib import Path

from command import command
from data_files import find_files
from record import Experiment, Record, Request, run, split
from sequence_file import ORDER_ONLY, events_in_order

from variseq.log import read

LONGEST_HISTORY = 200


def movielens_1m(data: Path, request: Request) -> Record:
    """The 5-core sequences of the literature: 6,040 users, 3,416 items, leave-one-out, the last 200 events.

    DATA holds `sequences_5core_items.txt` (lines "user item item ...", oldest first) and `movies.csv`
    (item,title,genres). The file has no times, so the model sees none, and the row recent-popular has no meaning.
    """
    settings = request.settings(
        {
            "size": "small",
            "split.by": "leave-one-out",
            "read.time_unit": "seconds",
            "model.max_length": LONGEST_HISTORY,
        }
    )
    files = find_files(data, "sequences_5core_items.txt", "movies.csv")
    log = read(events_in_order(files[0]), items=files[1], options=settings.read)
    experiment = Experiment("movielens_1m", "MovieLens-1M, 5-core", files, settings, notes=[ORDER_ONLY])
    return run(experiment, log, split(log, settings), request)


def with_time(data: Path, request: Request) -> Record:
    """The ratings of users 1 to 2,999 with their true times and values, split at two moments.

    DATA holds `ratings_users_1_2999.dat.csv.gz` (user,item,rating,timestamp) and `movies.csv`. Most users rate within
    one sitting, so few have events on both sides of a cut: expect about 600 test users and wide intervals.
    """
    settings = request.settings({"size": "small", "split.by": "time", "model.max_length": LONGEST_HISTORY})
    files = find_files(data, "ratings_users_1_2999.dat.csv.gz", "movies.csv")
    log = read(files[0], items=files[1], options=settings.read)
    experiment = Experiment("movielens_1m_with_time", "MovieLens-1M, users 1 to 2,999", files, settings)
    return run(experiment, log, split(log, settings), request)


if __name__ == "__main__":
    sys.exit(command(movielens_1m, with_time))
