"""A tiny data set through the bench with systems that need no rival; curves, settings and files of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import peers_path  # noqa: F401
from variseq.errors import InputError

import run  # isort: skip
from data_sets import write_sequences  # isort: skip
from measure import CostProbe, EnoughMeasured, Job, LearningCurve, Settings  # isort: skip
from records import append_records, is_finished, read_records, record_of  # isort: skip
from sequences import Sequences  # isort: skip

SETTINGS = Settings(variant="popular", max_seq_len=50, dropout=0.2, batch_rows=32, cpu_minutes=1.0, patience=2)
RATINGS = [(user, item, 5, 100 * item) for user in range(1, 8) for item in range(user, user + 12)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in RATINGS))
    return tmp_path / "data"


def test_ratings_become_lines_in_the_order_of_time_and_then_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    rows = ["2\t8\t1\t50", "1\t9\t1\t30", "1\t7\t1\t20", "1\t5\t1\t30", "2\t6\t1\t40", "2\t4\t1\t60"]
    (folder / "u.data").write_text("\n".join(rows) + "\n")
    made = write_sequences("ml-100k", tmp_path, tmp_path / "out")
    assert made.path.read_text() == "1 7 9 5\n2 6 8 4\n"
    assert (made.num_users, made.num_items, made.num_events) == (2, 6, 6)


def test_user_with_too_few_events_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "sequences_5core_items.txt").write_text("1 5 6\n")
    with pytest.raises(InputError, match="fewer than 3 events"):
        write_sequences("ml-1m", tmp_path, tmp_path / "out")


def test_system_is_run_once_and_passed_over_afterwards(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "peers.jsonl"
    words = ["ml-100k", "--data", str(data), "--systems", "popular", "--workplace", str(tmp_path)]
    assert run.main(words) == 0
    assert run.main(words) == 0
    (record,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert record["system"] == "popular"
    assert record["test"]["num_users"] == 7
    assert record["test"]["lists_with_seen_items"] == 0
    assert record["recommend_all_seconds"] > 0
    assert record["latency_p50_milliseconds"] <= record["latency_p95_milliseconds"]


def test_finished_entry_is_known_by_system_data_and_settings(data: Path, tmp_path: Path) -> None:
    file = write_sequences("ml-100k", data, tmp_path / "out")
    out = tmp_path / "peers.jsonl"
    append_records(out, [record_of("popular", file, SETTINGS, {"facts": {}, "lists": {"1": [2]}})])
    records = read_records(out)
    assert is_finished(records, "popular", file, SETTINGS)
    assert not is_finished(records, "item-knn", file, SETTINGS)
    assert not is_finished(records, "popular", replace(file, sha256="other"), SETTINGS)
    assert not is_finished(records, "popular", file, replace(SETTINGS, cpu_minutes=2.0))


def test_unknown_system_is_one_message(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["ml-100k", "--data", str(data), "--systems", "oracle"]) == 2
    assert "There is no system 'oracle'" in capsys.readouterr().err


def test_curve_stops_after_patience_and_at_the_budget() -> None:
    curve = LearningCurve(SETTINGS)
    for ndcg, stop in ((0.1, None), (0.3, None), (0.2, None), (0.3, "patience")):
        curve.epoch_seconds.append(10.0)
        assert curve.validated(ndcg) == ((ndcg > 0.1 and len(curve.points) == 2) or len(curve.points) == 1)
        assert curve.stop_reason == stop
    assert curve.best == (20.0, 2, 0.3)
    short = LearningCurve(SETTINGS)
    short.epoch_seconds.append(61.0)
    short.validated(0.1)
    assert short.stop_reason == "budget"


def test_probe_counts_the_steps_after_the_warm_up() -> None:
    probe = CostProbe()
    for _ in range(8):
        probe.tick()
    with pytest.raises(EnoughMeasured):
        probe.tick()
    probe.times = [0.0, 50.0, 90.0, 91.0, 92.0, 93.0, 94.0, 95.0, 96.0]
    assert probe.step_seconds == 1.0


def test_job_comes_back_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path / "lines.txt", tmp_path / "answer.json", SETTINGS)
    job.write(tmp_path / "job.json")
    monkeypatch.setattr("sys.argv", ["script", str(tmp_path / "job.json")])
    assert Job.from_command_line() == job


def test_targets_have_an_event_before_them_in_training() -> None:
    sequences = Sequences({1: [5, 6, 7, 8, 9], 2: [5, 6, 7]})
    assert sequences.num_targets() == 2
    assert sequences.num_targets(max_seq_len=1) == 1
    assert (sequences.validation, sequences.test) == ({1: 8, 2: 6}, {1: 9, 2: 7})
