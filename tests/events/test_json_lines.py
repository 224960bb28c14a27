"""JSON lines: keys of every line, nested keys by dots, lists within a line that hold the events."""

import json
from pathlib import Path
from typing import Any

import pytest

from variseq.errors import InputError
from variseq.events import json_lines
from variseq.events.options import ReadOptions
from variseq.events.read import read


def write(folder: Path, entries: list[Any], name: str = "log.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries) + "\n")
    return path


def event(row: int, **more: object) -> dict[str, object]:
    return {"user_id": f"u{row % 3}", "item_id": f"i{row}", "timestamp": 1600000000 + row, **more}


def test_keys_that_come_late_are_columns(tmp_path: Path) -> None:
    path = write(tmp_path, [*map(event, range(3000)), event(3000, event="purchase", rating=5)])
    events = read(path)
    assert events.report.behaviors == {"event": 3000, "purchase": 1}
    assert events.report.columns["value"] == "rating"


def test_dotted_names_reach_nested_keys(tmp_path: Path) -> None:
    path = write(
        tmp_path, [{"who": {"id": row % 3}, "what": {"item": {"sku": f"i{row}"}}, "at": 1600000000} for row in range(9)]
    )
    columns: dict[str, str | int] = {"user_id": "who.id", "item_id": "what.item.sku", "timestamp": "at"}
    events = read(path, options=ReadOptions(columns=columns))
    assert events.vocabulary.users.to_pylist() == [0, 1, 2]
    assert events.report.num_events == 9


def test_key_with_a_dot_of_its_own_is_a_plain_key(tmp_path: Path) -> None:
    path = write(tmp_path, [{"user.id": "u", "item_id": row, "ts": 1600000000 + row} for row in range(3)])
    assert read(path, options=ReadOptions(columns={"user_id": "user.id"})).report.num_events == 3


SESSIONS = [
    {"session": place, "events": [{"aid": row, "ts": 1600000000000 + row, "type": "clicks"} for row in range(place)]}
    for place in range(4)
]
SESSION_COLUMNS: dict[str, str | int] = {
    "user_id": "session", "item_id": "events.aid", "timestamp": "events.ts", "event": "events.type",
}  # fmt: skip


@pytest.mark.parametrize("explode", [None, "events"])
def test_elements_of_a_list_are_rows_and_empty_lists_are_told(explode: str | None, tmp_path: Path) -> None:
    path = write(tmp_path, [*SESSIONS, "{broken", {"session": 9}])
    events = read(path, options=ReadOptions(columns=SESSION_COLUMNS, explode=explode))
    assert events.report.num_events == 6
    assert events.report.rejected == {"no element in the list": 2, "not a JSON object": 1}
    assert events.report.num_rows == 9
    assert "row 1" in events.report.first_faults["no element in the list"]
    assert "row 8" in events.report.first_faults["not a JSON object"]


def test_lists_of_late_lines_are_found(tmp_path: Path) -> None:
    empty = [{"session": place, "events": []} for place in range(30)]
    late = [{"session": 40, "events": [None, {"aid": 1, "ts": 1600000000000, "type": "clicks"}]}]
    events = read(write(tmp_path, [*empty, *late]), options=ReadOptions(columns=SESSION_COLUMNS))
    assert events.report.num_events == 1
    assert events.report.num_rows == 32


def test_list_that_cannot_be_events_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = write(tmp_path, SESSIONS)
    with pytest.raises(InputError, match="no list"):
        read(path, options=ReadOptions(columns=SESSION_COLUMNS, explode="session"))
    with pytest.raises(InputError, match=r"events\.aid"):
        read(path)
    plain = write(tmp_path, [{"user_id": 1, "item_id": [1, 2], "ts": 1600000000}], "lists.jsonl")
    with pytest.raises(InputError, match="unnest"):
        read(plain)


def test_values_that_mongodb_wraps_are_unwrapped(tmp_path: Path) -> None:
    entries = [
        {
            "_id": {"$oid": f"{row:024x}"},
            "user_id": {"$numberLong": str(2**53 + 1)},
            "item_id": row,
            "timestamp": {"$date": f"2020-09-13T12:26:{row:02}Z"},
        }
        for row in range(5)
    ]
    events = read(write(tmp_path, entries))
    assert events.vocabulary.users.to_pylist() == [2**53 + 1]
    assert events.report.num_events == 5
    assert events.report.span[0] == "2020-09-13 12:26:00"


@pytest.mark.parametrize("text", ['[{"user": 1}]', '[\n  {"user": 1}\n]', '{\n  "user": 1\n}\n'])
def test_json_that_is_not_one_object_a_line_is_refused(text: str, tmp_path: Path) -> None:
    for name in ("log.json", "log.jsonl"):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="a line"):
            read(tmp_path / name)


def test_later_files_bring_columns_and_their_rows_are_placed(tmp_path: Path) -> None:
    write(tmp_path, [*map(event, range(5)), "oops"], "part-2.jsonl")
    write(tmp_path, [event(row + 9, event="buy") for row in range(4)] + [{"item_id": "x"}], "part-10.jsonl")
    events = read(tmp_path)
    assert events.report.behaviors == {"buy": 4, "event": 5}
    assert "row 6" in events.report.first_faults["not a JSON object"]
    assert "row 5 of" in events.report.first_faults["missing user"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [({"ts": [1]}, "missing time"), ({"user": ["x"]}, "missing user"), ({"item": {"id": 5}}, "missing item")],
)
def test_one_line_with_a_list_or_an_object_is_rejected(line: dict[str, object], reason: str, tmp_path: Path) -> None:
    rows = [{"user": row, "item": row, "ts": 1600000000 + row} for row in range(100)]
    report = read(write(tmp_path, [*rows, rows[0] | line])).report
    assert (report.num_events, report.rejected) == (100, {reason: 1})
    assert any("row 101" in note for note in report.notes)


@pytest.mark.parametrize("cell", [[1], {"id": 1}])
def test_column_of_lists_or_objects_is_refused(cell: object, tmp_path: Path) -> None:
    rows = [{"user": cell if row else 7, "item": row, "ts": 1600000000 + row} for row in range(5)]
    with pytest.raises(InputError, match=r"explode|\(--columns user_id=user\."):
        read(write(tmp_path, rows))


def test_nested_lines_that_only_the_database_reads_are_kept(tmp_path: Path) -> None:
    deep = '{"user_id": 1, "item_id": 2, "timestamp": 1600000000, "more": ' + '{"a": ' * 2000 + "1" + "}" * 2001
    comma = '{"user_id": 1, "item_id": 3, "timestamp": 1600000001, "more": {"a": 1,},}'
    events = read(write(tmp_path, [deep, comma, event(1) | {"user_id": 1, "item_id": 4}]))
    assert events.report.num_rows == events.report.num_events + sum(events.report.rejected.values()) == 3


def test_row_at_which_the_counts_of_lines_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_LINES", json_lines._LINES + ", buffer_size=100000, max_line_size=1000")
    path = tmp_path / "events.jsonl"
    rows = [
        {"user_id": n, "item_id": n, "timestamp": 1_600_000_000, "note": "x" * 300_000 * (n == 2)} for n in range(5)
    ]
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    with pytest.raises(InputError, match="5 lines were counted and 4 were read; they part at row 3"):
        read(path)
