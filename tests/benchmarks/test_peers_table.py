"""Made-up records of the bench: what the table in README and the charts say of them."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import peers_path  # noqa: F401
from variseq.errors import InputError

import table  # isort: skip
from records import append_records, read_records  # isort: skip


def record(system: str, scale: float = 1.0, **changes: Any) -> dict[str, Any]:
    """`scale` times the cost of ours, with half the quality where it is not 1."""
    best = 0.1 if scale == 1 else 0.05
    return {
        "system": system,
        "data": {
            "name": "films",
            "title": "Films",
            "sha256": "ab",
            "num_users": 943,
            "num_items": 1682,
            "num_events": 100000,
        },
        "settings": {
            "only_cost": False,
            "cpu_minutes": 60.0,
            "seed": 0,
            "width": 64,
            "num_layers": 2,
            "max_seq_len": 50,
        },
        "date": "2025-03-01T10:00:00+00:00",
        "bench_begun": "2025-03-01T09:00:00+00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "hardware": {"cpu": "A processor", "cores": 2, "threads": 1, "system": "Linux"},
        "versions": {system.split("-")[0]: "1.2"},
        "positions_per_second": 8000 / scale,
        "epoch_seconds": 10 * scale,
        "targets_per_epoch": 80_000,
        "num_epochs": 2,
        "training_seconds": 20 * scale,
        "curve": [[10 * scale, 1, best / 2], [20 * scale, 2, best]],
        "seconds_to_best": 20 * scale,
        "best_validation_ndcg": best,
        "stop_reason": "patience",
        "was_improving": False,
        "training_peak_megabytes": 500 * scale,
        "peak_megabytes": 600 * scale,
        "recommend_all_seconds": 0.5 * scale,
        "latency_p50_milliseconds": 2 * scale,
        "test": {"ndcg": best, "ndcg_interval": [best - 0.01, best + 0.01], "hit_rate": 2 * best},
        **changes,
    }


def only_cost(system: str, scale: float) -> dict[str, Any]:
    whole = record(system, scale)
    kept = ("system", "data", "date", "commit", "dirty", "hardware", "versions", "positions_per_second")
    settings = whole["settings"] | {"only_cost": True}
    return {name: whole[name] for name in (*kept, "epoch_seconds", "training_peak_megabytes")} | {"settings": settings}


def text_of(*records: dict[str, Any]) -> str:
    return table.peers_text(table.latest(records), "docs/pictures")


def rows_of(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0]: cells[1:] for cells in lines}


def test_speed_of_a_whole_run_is_that_of_all_its_epochs() -> None:
    slower = record("variseq", 1.0, training_seconds=40.0)
    assert table.speed_of(slower) == 80_000 * 2 / 40.0
    assert table.speed_of(only_cost("variseq", 2.0)) == 4000.0


def test_rival_is_set_in_relation_to_ours() -> None:
    rows = rows_of(text_of(record("replay-sasrec", 4.0), record("variseq")))
    assert rows["**variseq**"] == ["0.1000 [0.0900–0.1100]", "0.2000", "8,000", "20", "600", "0.5", "2"]
    # Our curve is at 0.05 after 10 seconds, the rival's after 80.
    assert rows["replay-sasrec"][2:] == ["2,000 (4×)", "80 (8×)", "2,400 (4×)", "2 (4×)", "8 (4×)"]


def test_ours_stands_first_and_the_latest_record_counts() -> None:
    later = record("popular", 2.0, date="2025-03-02T10:00:00+00:00", positions_per_second=None)
    text = text_of(later, record("popular", 9.0), record("variseq"))
    assert list(rows_of(text))[2:] == ["**variseq**", "popular"]
    assert rows_of(text)["popular"][2:5] == ["–", "40", "1,200 (2×)"]


def test_quality_that_ours_never_reaches_is_said() -> None:
    better = record("replay-sasrec", 4.0, best_validation_ndcg=0.3)
    assert rows_of(text_of(better, record("variseq")))["replay-sasrec"][3] == "80 (not reached)"


def test_rival_stopped_by_the_budget_is_marked() -> None:
    text = text_of(record("variseq"), record("replay-sasrec", 4.0, stop_reason="budget", was_improving=True))
    assert "replay-sasrec *" in rows_of(text)
    assert "stopped at the budget of 60 CPU minutes, still improving: replay-sasrec" in text


def test_cost_alone_stands_apart_and_gives_way_to_a_whole_run() -> None:
    text = text_of(record("variseq"), only_cost("variseq", 1.0), only_cost("recbole-sasrec", 20.0))
    before, _, after = text.partition("Cost alone")
    assert "recbole-sasrec" not in rows_of(before)
    assert rows_of(after)["recbole-sasrec"] == ["400 (20×)", "200", "10,000 (20×)"]
    assert "**variseq**" not in rows_of(after)


def test_records_of_two_files_do_not_share_a_table() -> None:
    other = record("popular", 2.0)
    other["data"] = other["data"] | {"sha256": "cd"}
    with pytest.raises(InputError, match="different files"):
        table.latest([record("variseq"), other])


def test_readme_is_written_once_and_checked(tmp_path: Path) -> None:
    results, readme = tmp_path / "peers.jsonl", tmp_path / "README.md"
    results.write_text("".join(json.dumps(r) + "\n" for r in (record("variseq"), record("replay-sasrec", 4.0))))
    readme.write_text(f"# Before\n{table.MARKERS[0]}\n{table.MARKERS[1]}\nAfter\n")
    words = ["--results", str(results), "--readme", str(readme), "--pictures", str(tmp_path / "pictures")]
    assert table.main([*words, "--check"]) == 1
    assert table.main(words) == 0
    assert table.main([*words, "--check"]) == 0
    assert "pictures/peers_films.svg" in readme.read_text()
    assert readme.read_text().startswith("# Before\n")
    assert readme.read_text().endswith("\nAfter\n")


def test_new_records_are_taken_in_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, new, readme = tmp_path / "peers.jsonl", tmp_path / "new.jsonl", tmp_path / "README.md"
    append_records(results, [record("variseq")])
    readme.write_text(f"{table.MARKERS[0]}\n{table.MARKERS[1]}\n")
    words = ["--results", str(results), "--readme", str(readme), "--pictures", str(tmp_path / "pictures")]
    words += ["--add", str(new)]
    assert table.main(words) == 2
    assert "Run the bench first" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        table.main([*words, "--check"])
    later = record("variseq", positions_per_second=9000, training_seconds=10.0, date="2025-03-02T10:00:00+00:00")
    for _ in range(2):
        append_records(new, [later])
        assert table.main(words) == 0
        assert read_records(results) == [record("variseq"), later]
    assert rows_of(readme.read_text())["**variseq**"][2] == "16,000"


def test_records_that_cannot_be_shown_are_not_taken_in(tmp_path: Path) -> None:
    results, new, readme = tmp_path / "peers.jsonl", tmp_path / "new.jsonl", tmp_path / "README.md"
    append_records(results, [record("variseq")])
    append_records(new, [record("popular", data=record("popular")["data"] | {"sha256": "cd"})])
    readme.write_text(f"{table.MARKERS[0]}\n{table.MARKERS[1]}\n")
    words = ["--results", str(results), "--readme", str(readme), "--pictures", str(tmp_path / "pictures")]
    assert table.main([*words, "--add", str(new)]) == 2
    assert read_records(results) == [record("variseq")]
    new.write_text("")
    append_records(new, [record("popular")])
    readme.write_text("no place for a table")
    assert table.main([*words, "--add", str(new)]) == 2
    assert read_records(results) == [record("variseq")]


def test_same_records_give_the_same_chart(tmp_path: Path) -> None:
    rows = {"films": {"variseq": record("variseq"), "replay-sasrec": record("replay-sasrec", 4.0)}}
    drawn = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        table.write_charts(rows, folder)
        drawn.append((folder / "peers_films.svg").read_bytes())
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(b"<?xml")


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(table).failed == 0


def test_readme_shows_the_records_of_this_repository() -> None:
    assert table.main(["--check"]) == 0, "run: python benchmarks/peers/table.py"
