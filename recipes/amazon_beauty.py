"""Amazon Beauty (reviews as purchases, 5-core) into a run: by order, leave-one-out; with days shuffled; by time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
from command import command
from data_files import find_files
from record import Experiment, Record, Request, run, split
from sequence_file import ORDER_ONLY, events_in_order
from unknown_order import as_order, events_with_gaps, ties_shuffled

from variseq.errors import InputError
from variseq.events.options import ReadOptions
from variseq.log import Log, read

LONGEST_HISTORY = 50
LEAVE_ONE_OUT = {
    "size": "small",
    "split.by": "leave-one-out",
    "read.time_unit": "seconds",
    "model.max_seq_len": LONGEST_HISTORY,
}
ITEM_FILES = ("item_titles.csv", "Beauty_item2attributes.json")
FILES = ("Beauty.txt", *ITEM_FILES)


def amazon_beauty(data: Path, request: Request) -> Record:
    """22,363 users, 12,101 items, leave-one-out, the last 50 events: the set on which most papers report.

    DATA holds `Beauty.txt` (lines "user item item ...", oldest first), `item_titles.csv` (item_id,asin,title) and
    `Beauty_item2attributes.json` (item to the numbers of its categories and brand, which stand as category).
    """
    settings = request.settings(LEAVE_ONE_OUT)
    files = find_files(data, *FILES)
    log = log_in_order(files, settings.read)
    experiment = Experiment("amazon_beauty", "Amazon Beauty 2014, 5-core", files, settings, notes=[ORDER_ONLY])
    return run(experiment, log, split(log, settings), request)


def log_in_order(files: list[Path], options: ReadOptions) -> Log:
    """The log in the order of the file, out of `FILES`."""
    return read(events_in_order(files[0]), items=items_of(files[1], files[2]), options=options)


def shuffled(data: Path, request: Request) -> Record:
    """The same, with the events of one user and one day in a random order, before the split: in 43 % of the test events
    the day is that of the event before, and which of them is the last is known to the file alone.

    DATA holds `Beauty_with_time_gaps.txt` (lines "user item item ...<tab>gap gap ...": seconds since the event before)
    and the item files. Days serve to find the ties only: the model and the split go by the order, as above.
    """
    settings = request.settings(LEAVE_ONE_OUT)
    files = find_files(data, "Beauty_with_time_gaps.txt", *ITEM_FILES)
    events, note = ties_shuffled(events_with_gaps(files[0]))
    log = read(as_order(events), items=items_of(files[1], files[2]), options=settings.read)
    notes = [ORDER_ONLY, note]
    experiment = Experiment("amazon_beauty_shuffled", "Amazon Beauty, days shuffled", files, settings, notes=notes)
    return run(experiment, log, split(log, settings), request)


def by_time(data: Path, request: Request) -> Record:
    """The 12,275 users whose days are known, split at two moments, the events of one user and one day in random order.

    DATA holds `Beauty_absolute_time_subset.csv.gz` (user,item,timestamp) and the item files. The last purchase of each
    user after the cut is asked for.
    """
    settings = request.settings({"size": "small", "split.by": "time", "model.max_seq_len": LONGEST_HISTORY})
    files = find_files(data, "Beauty_absolute_time_subset.csv.gz", *ITEM_FILES)
    events, note = ties_shuffled(_dated(files[0]))
    log = read(events, items=items_of(files[1], files[2]), options=settings.read)
    experiment = Experiment("amazon_beauty_by_time", "Amazon Beauty, dated users", files, settings, notes=[note])
    return run(experiment, log, split(log, settings), request)


def _dated(path: Path) -> pa.Table:
    """user_id, item_id and timestamp (seconds) out of user,item,timestamp."""
    types = {"user": pa.int64(), "item": pa.int64(), "timestamp": pa.int64()}
    try:
        options = pa.csv.ConvertOptions(column_types=types, include_columns=list(types))
        return pa.csv.read_csv(path, convert_options=options).rename_columns(["user_id", "item_id", "timestamp"])
    except (pa.ArrowException, ValueError, OSError) as error:
        raise InputError(f"{path.name} is not a table user,item,timestamp of whole numbers ({error}).") from error


def items_of(titles: Path, attributes: Path) -> pa.Table:
    """item_id, title and category (a list of attribute numbers as text; empty for an item without)."""
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


if __name__ == "__main__":
    sys.exit(command(amazon_beauty, shuffled, by_time))
