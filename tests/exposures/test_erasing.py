"""Who is erased is in no segment any more, also not by what waited to be written; others stay as they were."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.exposures.lists import START, event, exposure, write
from tests.terminal.invoke import refuse, succeed
from variseq.artifacts.catalog_changes import locked
from variseq.errors import InputError
from variseq.exposures.erasing import count_lines, erase_users
from variseq.exposures.folder import KEY, segment_lines, segments
from variseq.exposures.records import ShownRecord
from variseq.exposures.segments import ExposureLog
from variseq.privacy.erased_users import ErasedUsers


def written(folder: Path) -> bytes:
    return b"".join(line for path in segments(folder) for line in segment_lines(path))


def fill(folder: Path) -> None:
    """Lists of ann and bob in two segments."""
    write(folder, exposure("e1", ["i1", "i2"]), exposure("e2", ["i1"], "bob"), event("v1", "i1", START))
    write(folder, ShownRecord("e1", START, [1]), ShownRecord("e2", START, [1]), event("v2", "i1", START, "bob"))


def test_all_lines_of_a_user_are_removed_and_others_keep_their_bytes(tmp_path: Path) -> None:
    fill(tmp_path)
    others = [line for line in written(tmp_path).splitlines() if b'"e2"' in line or b'"v2"' in line]
    assert count_lines(tmp_path, ["ann"]) == erase_users(tmp_path, ["ann"]) == 3
    assert written(tmp_path).splitlines() == others
    assert erase_users(tmp_path, ["ann"]) == 0


def test_compressed_segments_are_written_again_too(tmp_path: Path) -> None:
    records = [exposure(f"e{number}", ["i1"] * 20, ["ann", "bob"][number % 2]) for number in range(8)]
    write(tmp_path, *records, segment_bytes=800)
    assert sum(path.suffix == ".gz" for path in segments(tmp_path)) > 1
    assert erase_users(tmp_path, ["ann"]) == 4
    assert written(tmp_path).count(b'"exposure_id"') == 4
    assert count_lines(tmp_path, ["bob"]) == 4


def test_segment_of_nobody_else_is_removed(tmp_path: Path) -> None:
    write(tmp_path, exposure("e1", ["i1"]))
    assert erase_users(tmp_path, ["ann"]) == 1
    assert segments(tmp_path) == []


def test_number_and_text_are_different_people(tmp_path: Path) -> None:
    write(tmp_path, exposure("e1", ["i1"], 12), exposure("e2", ["i1"], "12"))
    assert erase_users(tmp_path, [12]) == 1
    assert b'"e2"' in written(tmp_path)


def test_what_waits_when_a_user_is_erased_is_not_written(tmp_path: Path) -> None:
    outcomes: list[str] = []
    log = ExposureLog(tmp_path, count=lambda kind, outcome: outcomes.append(outcome))
    with locked(tmp_path):
        log.add(exposure("e1", ["i1"]))
        # What `erase_users` writes first, in any process.
        ErasedUsers().with_users(["ann"], time.time_ns() // 1000).write(tmp_path)
    log.add(exposure("e2", ["i1"]))
    log.close()
    assert outcomes == ["erased", "written"]
    assert b'"e1"' not in written(tmp_path)


def test_process_goes_on_in_the_segment_that_an_erasure_has_replaced(tmp_path: Path) -> None:
    outcomes: list[str] = []
    log = ExposureLog(tmp_path, count=lambda kind, outcome: outcomes.append(outcome))
    log.add(exposure("e1", ["i1"]))
    log.add(exposure("e2", ["i1"], "bob"))
    while len(outcomes) < 2:
        time.sleep(0.001)
    erase_users(tmp_path, ["ann"])
    log.add(exposure("e3", ["i1"], "bob"))
    log.close()
    found = written(tmp_path)
    assert [text in found for text in (b'"e1"', b'"e2"', b'"e3"')] == [False, True, True]


def test_rest_of_an_interrupted_erasure_is_removed(tmp_path: Path) -> None:
    fill(tmp_path)
    rest = tmp_path / f".{segments(tmp_path)[0].name}.partial"
    rest.write_bytes(written(tmp_path))
    erase_users(tmp_path, ["nobody"])
    assert not rest.exists()


def test_folder_without_its_key_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / KEY).unlink()
    with pytest.raises(InputError, match="key"):
        erase_users(tmp_path, ["ann"])


def test_command_lists_and_erases_exposures_of_a_server_and_of_copies(tmp_path: Path) -> None:
    for name in ("live", "runs/copy"):
        fill(tmp_path / name)
    words = ("erase", "--user", "ann", "--runs", tmp_path / "runs", "--receipts", tmp_path / "receipts")
    found = succeed(*words, "--exposures", tmp_path / "live", "--dry-run").out
    assert found.count("3 lines removed") == 2
    assert count_lines(tmp_path / "live", ["ann"]) == 3
    succeed(*words, "--exposures", tmp_path / "live")
    assert [count_lines(tmp_path / name, ["ann"]) for name in ("live", "runs/copy")] == [0, 0]
    assert count_lines(tmp_path / "live", ["bob"]) == 3
    refuse("key", *words, "--exposures", tmp_path / "runs")
