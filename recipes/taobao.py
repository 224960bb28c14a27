"""Taobao UserBehavior (views, carts, favourites, purchases) into a run: several behaviors, split by time."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from command import command
from data_files import find_files
from record import Experiment, Record, Request, run, split

from variseq.errors import InputError
from variseq.log import read

FIRST_SECOND = 1_511_539_200
"""25 November 2017, midnight in China: the log is of nine days from here on."""
COLUMNS = {
    "user_id": pa.int64(),
    "item_id": pa.int64(),
    "category": pa.int64(),
    "event": pa.string(),
    "timestamp": pa.int64(),
}


def taobao(data: Path, request: Request) -> Record:
    """Every behavior is an event; what comes next, of whatever behavior, is predicted; global cuts in time.

    DATA holds `UserBehavior.csv` without a header: user,item,category,behavior,timestamp. Left out and counted: lines
    with another number of fields (the last one may be cut off) and events before the log's first day.

    Only items with at least 5 events stay (`--set read.min_item_events=1` for all). In the first 815 users there are
    1.5 events per item: nothing can be learned of an item with one event, and a target without a training event is a
    miss for every model. The count is over the whole log, test events too, so figures are for this smaller catalog.
    A purchase mostly follows a view of the same item, so items of the history are ranked too.
    """
    settings = request.settings({"size": "small", "split.by": "time", "read.min_item_events": 5})
    files = find_files(data, "UserBehavior.csv")
    events, notes = _events(files[0])
    log = read(events.drop_columns("category"), items=_items(events), options=settings.read)
    experiment = Experiment("taobao", "Taobao UserBehavior", files, settings, notes=notes)
    return run(experiment, log, split(log, settings), request)


def _events(path: Path) -> tuple[pa.Table, list[str]]:
    """The events of the nine days, and notes on what was left out."""
    broken: list[pa.csv.InvalidRow] = []

    def leave_out(row: pa.csv.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    try:
        table = pa.csv.read_csv(
            path,
            # One thread, since the order of rows decides between equal times. The file is ASCII: read as latin-1, bytes
            # of anything else are a wrong row and not a failure inside the reader.
            read_options=pa.csv.ReadOptions(column_names=list(COLUMNS), use_threads=False, encoding="latin-1"),
            parse_options=pa.csv.ParseOptions(invalid_row_handler=leave_out),
            convert_options=pa.csv.ConvertOptions(column_types=COLUMNS),
        )
    except pa.ArrowException as error:
        raise InputError(
            f"{path} is not of the form user,item,category,behavior,timestamp without a header ({error})."
        ) from error
    kept = table.filter(pc.greater_equal(table["timestamp"], FIRST_SECOND))
    num_early = table.num_rows - kept.num_rows
    return kept, [
        f"{num_early:,} of {table.num_rows:,} events have a time before 25 November 2017 in China and were left out",
        f"lines with another number of fields than {len(COLUMNS)}, left out: {len(broken):,}",
    ]


def _items(events: pa.Table) -> pa.Table:
    """item_id and category, one row an item: the category of its first event."""
    rows = pa.table({"item_id": events["item_id"], "category": events["category"].cast(pa.string())})
    first = rows.group_by("item_id", use_threads=False).aggregate([("category", "first")])
    return first.select(["item_id", "category_first"]).rename_columns(["item_id", "category"])


if __name__ == "__main__":
    sys.exit(command(taobao))
