"""Amazon Beauty (reviews as purchases, 5-core) into a run: by order, leave-one-out."""

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

from variseq.errors import InputError
from variseq.log import read


def amazon_beauty(data: Path, request: Request) -> Record:
    """22,363 users, 12,101 items, leave-one-out, the last 50 events: the set on which most papers report.

    DATA holds `Beauty.txt` (lines "user item item ...", oldest first), `item_titles.csv` (item_id,asin,title) and
    `Beauty_item2attributes.json` (item to the numbers of its categories and brand, which stand as category).
    """
    settings = request.settings(
        {"size": "small", "split.by": "leave-one-out", "read.time_unit": "seconds", "model.max_length": 50}
    )
    files = find_files(data, "Beauty.txt", "item_titles.csv", "Beauty_item2attributes.json")
    log = read(events_in_order(files[0]), items=_items(files[1], files[2]), options=settings.read)
    experiment = Experiment("amazon_beauty", "Amazon Beauty 2014, 5-core", files, settings, notes=[ORDER_ONLY])
    return run(experiment, log, split(log, settings), request)


def _items(titles: Path, attributes: Path) -> pa.Table:
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
    sys.exit(command(amazon_beauty))
