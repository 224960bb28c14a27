"""Records are written whole, once, and within bounds; what is not written is counted."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import largest_file
from tests.exposures.lists import START, event, exposure, write
from variseq.errors import InputError
from variseq.exposures.folder import KEY, hashed_user, read_key, segment_lines, segments
from variseq.exposures.records import ShownRecord
from variseq.exposures.segments import ExposureLog

TEN = [f"i{number:04}" for number in range(10)]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in segments(folder) for line in segment_lines(path)]


def test_record_of_a_drawn_list_has_all_that_its_probabilities_depend_on(tmp_path: Path) -> None:
    drawn = exposure(
        "e1", ["i1", "i2"], at_rank=[0.25, 1 / 3],
        strategy="softmax", temperature=0.5, pool=20, uniform_share=0.1, seed=7,
        candidates=["i1", "i2", "i3"], boost_items={"i1": 2.0}, attributes={"country": "DE"}, query="red boots",
    )  # fmt: skip
    write(tmp_path, drawn)
    (record,) = lines(tmp_path)
    assert record["policy"] == ["softmax", 0.5, 20, 0.1, 7]
    assert record["p_at_rank"] == pytest.approx([0.25, 1 / 3], rel=1e-6)
    assert record["filters"]["attributes"] == ["country"]
    assert {"candidates", "boost_items", "query"} <= set(record["filters"])
    text = json.dumps(record)
    assert "red boots" not in text
    assert "ann" not in text
    assert record["user"] == hashed_user(read_key(tmp_path), "ann")


def test_same_options_in_another_order_have_the_same_hash(tmp_path: Path) -> None:
    chosen = ["i3", "i1"], ["i1", "i3"], [1, 3], ["1", "3"]
    write(tmp_path, *(exposure(f"e{n}", ["i1"], candidates=one) for n, one in enumerate(chosen)))
    first, second, numbers, texts = (record["filters"]["candidates"] for record in lines(tmp_path))
    assert first == second
    assert len({first, numbers, texts}) == 3


def test_answer_of_ten_short_ids_takes_few_bytes(tmp_path: Path) -> None:
    greedy = exposure("a1b2c3d4e5f6-1f", TEN, exclude_seen=True)
    drawn = exposure(
        "a1b2c3d4e5f6-20", TEN, at_rank=[1 / (100 - n) for n in range(10)], strategy="softmax", seed=4_000_000_000
    )
    write(tmp_path, greedy, drawn)
    (path,) = segments(tmp_path)
    short, long = map(len, path.read_bytes().splitlines())
    assert short <= 450
    assert long <= 600


def test_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    write(tmp_path / "new", exposure("e1", ["i1"]))
    paths = [tmp_path / "new" / KEY, *segments(tmp_path / "new")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o600]
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_several_processes_have_segments_of_their_own_and_one_key(tmp_path: Path) -> None:
    logs = [ExposureLog(tmp_path) for _ in range(3)]
    for number, log in enumerate(logs):
        log.add(exposure(f"e{number}", ["i1"]))
    for log in logs:
        log.close()
    assert len({log.key for log in logs}) == 1
    assert len(segments(tmp_path)) == 3
    assert {one["exposure_id"] for one in lines(tmp_path)} == {"e0", "e1", "e2"}


def test_list_of_another_content_under_the_same_id_is_kept_for_the_reader(tmp_path: Path) -> None:
    outcomes = write(tmp_path, *(exposure("e1", items) for items in (["i1"], ["i1"], ["i2"])))
    assert outcomes == {("exposure", "written"): 2, ("exposure", "repeated"): 1}


def test_segment_that_is_full_is_compressed_and_followed_by_another(tmp_path: Path) -> None:
    write(tmp_path, *(exposure(f"e{number}", TEN) for number in range(10)), segment_bytes=1000)
    paths = segments(tmp_path)
    assert len(paths) > 3
    assert sum(path.suffix == ".gz" for path in paths) == len(paths) - 1
    assert all(sum(map(len, segment_lines(path))) <= 1500 for path in paths)
    assert {one["exposure_id"] for one in lines(tmp_path)} == {f"e{number}" for number in range(10)}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}


def test_damaged_segment_is_named(tmp_path: Path) -> None:
    write(tmp_path, *(exposure(f"e{number}", TEN) for number in range(3)), segment_bytes=500)
    packed = next(path for path in segments(tmp_path) if path.suffix == ".gz")
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(InputError, match=packed.name):
        list(segment_lines(packed))


def test_old_segments_are_deleted_and_others_are_not(tmp_path: Path) -> None:
    write(tmp_path, exposure("e1", ["i1"]))
    (path,) = segments(tmp_path)
    today = datetime.now(UTC).date()
    old, kept = (tmp_path / f"exposures-{today - timedelta(days=days):%Y%m%d}-000000-0.jsonl" for days in (9, 6))
    for one in (old, kept):
        one.write_bytes(path.read_bytes())
    write(tmp_path, event("v1", "i1", START), days=7)
    assert not old.exists()
    assert kept.exists()
    assert path.exists()


def test_records_that_do_not_fit_the_queue_are_dropped_and_counted(tmp_path: Path) -> None:
    is_held, may_go = threading.Event(), threading.Event()
    outcomes: list[str] = []

    def count(kind: str, outcome: str) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 1:
            is_held.set()
            may_go.wait(20)

    log = ExposureLog(tmp_path, max_waiting=2, count=count)
    assert log.add(exposure("e0", ["i1"]))
    assert is_held.wait(20)
    added = [log.add(exposure(f"e{number}", ["i1"])) for number in range(1, 6)]
    may_go.set()
    log.close()
    assert added == [True, True, False, False, False]
    assert (outcomes.count("written"), outcomes.count("dropped")) == (3, 3)
    assert len(lines(tmp_path)) == 3


def test_full_disk_leaves_no_half_line_and_is_counted(tmp_path: Path) -> None:
    with largest_file(1000):
        outcomes = write(tmp_path, *(exposure(f"e{number}", TEN) for number in range(6)))
    assert len(lines(tmp_path)) == outcomes["exposure", "written"] >= 1
    assert outcomes["exposure", "written"] + outcomes["exposure", "dropped"] == 6


def test_folder_that_was_removed_drops_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    log = ExposureLog(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    log.add(exposure("e1", ["i1"]))
    log.close()
    assert not folder.exists()


def test_segments_without_their_key_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ShownRecord("e1", START, [1]))
    (tmp_path / KEY).unlink()
    with pytest.raises(InputError, match="Restore it"):
        ExposureLog(tmp_path)
    (tmp_path / KEY).write_bytes(os.urandom(3))
    with pytest.raises(InputError, match="3 bytes"):
        ExposureLog(tmp_path)
