"""Generated logs with everything that goes wrong in real ones, and what compares two readings of one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from variseq.events.report import Events

USERS = [
    "u1",
    " u1",
    "u2",
    "u10",
    "ü",
    "Ａ",
    "😀",
    "é",
    "e\u0301",
    "null",
    "",
    "NA",
    "-",
    "it's",
    '"q"',
    "u\u00a0",
    "7",
]
USERS.append("x" * 1100)
ITEMS = ["1", "2", "10", "02", "3.0", "-", "i\t", "日本", "none"]
TIMES = [
    *("2020-03-29 02:30:00", "2020-10-25 02:30:00", "2020-02-01T10:00:00Z", "2020-02-01T10:00:00.123456+05:30"),
    *("2020-02-01", "20200201", "Feb 3 2020", "3/2/2020 10:00", "25/2/2020 10:00", "25.2.2020", "nonsense", ""),
    *("1969-01-01", "2150-01-01", "2020-02-30", "2020-02-01 10:00 EST", "2020-02-01 10:00 Europe/Paris"),
]
VALUES = ["4.5", "4", "-0.0", "0", "nan", "", "4,5", "x", "1e400", "\u22123", "1.234", "true"]
EVENTS = ["view", "buy", " view", "1", "1.0", "TRUE", "true", "", "null"]


def messy_texts(seed: int, num_rows: int) -> pa.Table:
    """All cells are text. Many rows are copies, and many events have the same time."""
    draw = np.random.default_rng(seed)
    common = [*(f"u{n}" for n in range(40)), *USERS]
    columns = {
        "user": draw.choice(common, num_rows),
        "item": draw.choice([*map(str, range(20)), *ITEMS], num_rows),
        "time": draw.choice([*(f"2020-02-01 10:{minute:02}:00" for minute in range(30)), *TIMES], num_rows),
        "value": draw.choice(VALUES, num_rows, p=[0.5, *[0.5 / (len(VALUES) - 1)] * (len(VALUES) - 1)]),
        "event": draw.choice(EVENTS, num_rows),
    }
    table = pa.table({name: pa.array(values.tolist(), pa.string()) for name, values in columns.items()})
    return pa.concat_tables([table, table.slice(0, num_rows // 4)])


def messy_numbers(seed: int, num_rows: int) -> pa.Table:
    """Cells are numbers and nulls: NaN, both zeros, infinities, and times that are missing or out of any calendar."""
    draw = np.random.default_rng(seed)
    time = draw.integers(1_600_000_000, 1_600_000_060, num_rows).astype(np.float64)
    time[draw.random(num_rows) < 0.03] = np.nan
    time[draw.random(num_rows) < 0.02] = -5.0
    missing = draw.random(num_rows) < 0.03
    table = pa.table(
        {
            "user": pa.array(draw.integers(-5, 40, num_rows), mask=missing),
            "item": draw.zipf(1.6, num_rows).astype(np.int32) % 60,
            "timestamp": time,
            "rating": draw.choice([0.0, -0.0, 1.5, 4.0, np.nan, np.inf, 1e39], num_rows),
            "event": draw.choice(["view", "buy", "view", "cart"], num_rows),
        }
    )
    return pa.concat_tables([table, table.slice(num_rows // 2)])


def write_csv(table: pa.Table, path: Path) -> Path:
    """CSV with a line that has one field too few."""
    pa.csv.write_csv(table, path)
    with path.open("a", encoding="utf-8") as file:
        file.write("u1,1,2020-02-01\n")
    return path


def write_lines(table: pa.Table, path: Path) -> Path:
    """JSON lines, one of which is broken."""
    lines = [json.dumps(row, ensure_ascii=False) for row in table.to_pylist()]
    path.write_text("\n".join([*lines[:50], "{broken", *lines[50:]]) + "\n", encoding="utf-8")
    return path


def write_parts(table: pa.Table, folder: Path) -> Path:
    """Two Parquet files, of which one has one more column."""
    folder.mkdir()
    half = len(table) // 2
    pq.write_table(table.slice(0, half), folder / "part-2.parquet")
    pq.write_table(table.slice(half).append_column("other", [["x"] * (len(table) - half)]), folder / "part-10.parquet")
    return folder


def assert_equal_events(found: Events, expected: Events) -> None:
    """Bit by bit: also the sign of zero, and every word of the report."""
    assert found.report == expected.report
    assert found.vocabulary.users.equals(expected.vocabulary.users)
    assert found.vocabulary.items.equals(expected.vocabulary.items)
    assert found.vocabulary.behaviors == expected.vocabulary.behaviors
    for name in ("user", "item", "timestamp", "behavior", "value"):
        one, other = getattr(found.table, name), getattr(expected.table, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    signs = [np.signbit(events.table.value[~np.isnan(events.table.value)]) for events in (found, expected)]
    np.testing.assert_array_equal(*signs)
