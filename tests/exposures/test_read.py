"""Every line of a folder of segments is accounted for, and what cannot be trusted is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.exposures.lists import SECOND, START, event, exposure, rows_of, write
from variseq.errors import InputError
from variseq.exposures.folder import segments
from variseq.exposures.read import read_exposures
from variseq.exposures.records import ShownRecord
from variseq.exposures.rewards import RewardOptions
from variseq.exposures.support import support


def append(folder: Path, *lines: str) -> None:
    with (folder / "exposures-20251130-120000-other.jsonl").open("a") as stream:
        stream.writelines(lines)


def test_lists_come_back_as_they_were_written(tmp_path: Path) -> None:
    write(
        tmp_path,
        exposure("late", ["b", "a"], time=START + SECOND, at_rank=[0.5, 1 / 3], strategy="softmax", seed=3),
        exposure("early", [7, "7"], None, pin={2: "7"}),
    )
    exposures, report = read_exposures(tmp_path)
    assert rows_of(exposures) == [
        ("early", 7, 1, 0.0),
        ("early", "7", 2, 0.0),
        ("late", "b", 1, 0.0),
        ("late", "a", 2, 0.0),
    ]
    assert exposures.time.tolist() == [START, START + SECOND]
    assert exposures.user[0] is None
    np.testing.assert_allclose(exposures.propensity_at_rank, [np.nan, np.nan, 0.5, 1 / 3], rtol=1e-6)
    assert exposures.is_pinned.tolist() == [False, True, False, False]
    assert exposures.context is not None
    assert exposures.context[1]["policy"]["seed"] == 3
    assert exposures.context[1]["log_p"] == [-1.0, -2.0]
    assert (report.lines["exposure"], report.exposures["kept"]) == (2, 2)


def test_order_of_segments_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, exposure("b", ["i1"]), exposure("a", ["i2"], time=START))
    before = rows_of(read_exposures(tmp_path)[0])
    (path,) = segments(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[1])
    append(tmp_path, lines[0])
    assert rows_of(read_exposures(tmp_path)[0]) == before


def test_repeated_lists_count_once_and_contradicting_ones_not_at_all(tmp_path: Path) -> None:
    for items in (["i1"], ["i1"], ["i2"], ["i1"]):  # Each is a process of its own.
        write(tmp_path, exposure("twice", ["i1", "i2"]), exposure("odd", items), event("v1", "i1", START))
    exposures, report = read_exposures(tmp_path)
    assert exposures.exposure_id == ["twice"]
    assert (report.exposures["kept"], report.exposures["repeated"], report.exposures["in conflict"]) == (1, 3, 4)
    assert report.events["repeated"] == 3


@pytest.mark.parametrize(
    "line",
    [
        "no json\n",
        "[1]\n",
        '{"kind":"other"}\n',
        '{"kind":"shown","exposure_id":"e1","ranks":[0]}\n',
        '{"kind":"event","event_id":"v","time":"yesterday","user":"u","item_id":"i1","behavior":null,"value":null}\n',
        "[" * 100_000 + "\n",
        "\udcff\n".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_line_that_cannot_be_read_is_counted_and_shown(tmp_path: Path, line: str) -> None:
    write(tmp_path, exposure("e1", ["i1"]))
    append(tmp_path, line)
    exposures, report = read_exposures(tmp_path)
    assert exposures.num_exposures == 1
    assert report.lines == {"exposure": 1, "unreadable": 1}
    assert report.first_fault is not None
    assert report.first_fault.startswith("exposures-20251130-120000-other.jsonl, line 1: ")


@pytest.mark.parametrize(
    "name", ["item_id", "time", "p_at_rank", "filters", "first_rank", "user", "policy", "model", "history"]
)
@pytest.mark.parametrize("wrong", [{"a": []}, [[1]], "x" * 40, 1e400, -1, True])
def test_field_of_a_wrong_kind_makes_a_line_unreadable_or_changes_nothing_else(
    tmp_path: Path, name: str, wrong: object
) -> None:
    write(tmp_path, exposure("e1", ["i1"], at_rank=[0.5]))
    (path,) = segments(tmp_path)
    record = json.loads(path.read_text())
    append(tmp_path, json.dumps(record | {"exposure_id": "e2", name: wrong}) + "\n")
    exposures, report = read_exposures(tmp_path, allow_impossible=True)
    support(exposures)
    assert report.lines.total() == 2
    assert exposures.num_exposures == 2 - report.lines["unreadable"]


def test_segment_of_an_earlier_release_is_refused_with_its_name(tmp_path: Path) -> None:
    write(tmp_path, exposure("e1", ["i1"]))
    append(tmp_path, '{"kind":"exposure","exposure_id":"e0","propensity_at_rank":null}\n')
    with pytest.raises(InputError, match=r"120000-other.jsonl is of an earlier release"):
        read_exposures(tmp_path)


def test_line_that_a_process_has_not_finished_is_no_fault(tmp_path: Path) -> None:
    write(tmp_path, exposure("e1", ["i1"]))
    append(tmp_path, '{"kind":"expo')
    assert read_exposures(tmp_path)[1].lines == {"exposure": 1, "unfinished": 1}


@pytest.mark.parametrize(("propensity", "shown"), [(0.0, "=0 in"), (1.5, "=1.5 in")])
def test_impossible_propensity_is_refused_with_its_list(tmp_path: Path, propensity: float, shown: str) -> None:
    write(tmp_path, exposure("good", ["i1"], at_rank=[1.0]), exposure("wrong", ["i1", "i2"], at_rank=[0.5, propensity]))
    with pytest.raises(InputError, match=f"{shown} exposure 'wrong' at rank 2"):
        read_exposures(tmp_path)


def test_only_what_was_shown_is_kept_where_that_is_wanted(tmp_path: Path) -> None:
    ids = ["a", "b", "c", "d"]
    write(tmp_path, *(exposure(one, ["i1", "i2", "i3"]) for one in ids))
    write(tmp_path, ShownRecord("a", START, [1]), ShownRecord("a", START, [2]), ShownRecord("b", START, []))
    write(tmp_path, ShownRecord("c", START, [3]), ShownRecord("gone", START, [1]))
    exposures, report = read_exposures(tmp_path, options=RewardOptions(only_shown=True))
    assert [row[:3] for row in rows_of(exposures)] == [
        ("a", "i1", 1), ("a", "i2", 2), ("c", "i1", 1), ("c", "i2", 2), ("c", "i3", 3)
    ]  # fmt: skip
    assert report.shown == {"of a list": 4, "of no list": 1}
    assert report.exposures["lists not confirmed"] == 1
    assert report.exposures["lists of which nothing was shown"] == 1
    assert report.exposures["rows below the last shown rank"] == 4


def test_only_what_was_shown_needs_confirmations(tmp_path: Path) -> None:
    write(tmp_path, exposure("a", ["i1"]))
    with pytest.raises(InputError, match="/v1/shown"):
        read_exposures(tmp_path, options=RewardOptions(only_shown=True))


def test_folder_without_segments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no exposures"):
        read_exposures(tmp_path)


def test_list_without_items_is_a_list(tmp_path: Path) -> None:
    write(tmp_path, exposure("empty", []), exposure("e1", ["i1"], time=START + 1))
    exposures, _ = read_exposures(tmp_path)
    assert (exposures.offsets.tolist(), exposures.exposure_id) == ([0, 0, 1], ["empty", "e1"])


def test_behavior_with_a_reward_that_no_event_has_is_noted(tmp_path: Path) -> None:
    write(tmp_path, exposure("e1", ["i1"]), event("v1", "i1", START, behavior="view"))
    notes = [read_exposures(tmp_path, None, RewardOptions({name: 1.0}))[1].notes for name in ("buy", "view")]
    assert notes == [["No event has the behavior 'buy'. There are: view."], []]


def test_events_of_a_clock_that_runs_behind_are_noted(tmp_path: Path) -> None:
    write(
        tmp_path,
        exposure("e1", ["i1", "i2"]),
        event("v1", "i1", START - SECOND, exposure_id="e1"),
        event("v2", "i2", START - SECOND),
        event("v3", "i1", START + SECOND, exposure_id="e1"),
    )
    exposures, report = read_exposures(tmp_path)
    assert exposures.reward.tolist() == [1.0, 0.0]
    (note,) = report.notes
    assert note.startswith("1 of 3 events are earlier than the list that they name")


def test_unreadable_lines_are_noted(tmp_path: Path) -> None:
    write(tmp_path, exposure("e1", ["i1"]))
    append(tmp_path, "no json\n")
    (note,) = read_exposures(tmp_path)[1].notes
    assert note.startswith("1 lines cannot be read and are left out. exposures-20251130-120000-other.jsonl, line 1")
