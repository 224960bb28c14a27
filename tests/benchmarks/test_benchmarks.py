"""Records, tables and the scripts of the benchmarks on small data."""

from __future__ import annotations

import importlib
import math
import os
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ablations, speed, tables, uncertainty
from benchmarks.competitors import run as competitors
from benchmarks.competitors.process import LearningCurve, Sequences, Settings
from benchmarks.competitors.turns import Work, take_turns
from measurement.datasets import load_dataset
from measurement.records import append_records, read_records, record_of
from variseq.errors import InputError
from variseq.model.network import NetworkConfig

pytestmark = pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")
SETTINGS = Settings(variant="tiny", max_seq_len=50, dropout=0.2, batch_rows=32, cpu_minutes=1.0, patience=2)
SEQUENCES = Sequences({1: [10, 11, 12, 13], 2: [13, 12, 10, 11], 3: [11, 13, 10, 12], 4: [11, 10, 13, 99]})
SCRIPTS = (
    "ablations",
    "competitors.run",
    "erasure",
    "experiments",
    "feedback_loop",
    "growth",
    "improvement",
    "long_term",
    "off_policy",
    "reading",
    "serving",
    "shown_lists",
    "speed",
    "startup",
    "stores",
    "tables",
    "uncertainty",
    "values",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens-100K in small."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "ml-100k").mkdir()
    rows = [(user, item, 5, 1000 + item) for user in range(1, 21) for item in range(user % 9, user % 9 + 12)]
    (folder / "ml-100k" / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return folder


def record(model: str = "variseq", seed: int | None = 0, ndcg: float = 0.5, **settings: Any) -> dict[str, Any]:
    metrics = {"ndcg@10": ndcg, "ndcg@10_interval": [ndcg - 0.1, ndcg + 0.1]}
    case = {"data": "shop", "model": model}
    return record_of("accuracy", case, metrics, seed=seed, settings={"request_time": False} | settings)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_describes_its_command_line(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(f"benchmarks.{script}").main(["--help"])
    assert "python -m benchmarks" in capsys.readouterr().out


def test_records_state_code_and_machine_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_records(path, [record()])
    (found,) = read_records(tmp_path)
    assert found["metrics"]["ndcg@10"] == 0.5
    assert {"commit", "dirty", "date", "hardware", "versions"} <= found.keys()
    path.write_text("no json")
    with pytest.raises(InputError):
        read_records(path)


def test_seeds_are_one_row_the_latest_record_counts_and_conditions_are_stated() -> None:
    old = record(ndcg=0.9) | {"date": "2020"}
    text = tables.table_text(tables.TABLES["accuracy"], [old, record(ndcg=0.1), record(seed=1, ndcg=0.3)])
    assert text is not None
    assert "| shop | variseq | 2 | 0.2000 (0.1000–0.3000) |" in text
    one = tables.table_text(tables.TABLES["accuracy"], [record() | {"dirty": True, "commit": "a" * 40}])
    assert one is not None
    assert "0.5000 [0.4000 to 0.6000]" in one
    assert "`aaaaaaaaaa` with uncommitted changes" in one


@pytest.mark.parametrize("part", ["data", "settings"])
def test_seeds_of_different_experiments_are_never_averaged(part: str) -> None:
    with pytest.raises(InputError):
        tables.table_text(
            tables.TABLES["accuracy"], [record(), record(seed=1) | {part: {"request_time": False, "a": 1}}]
        )


def test_competitor_that_was_stopped_is_in_the_table_about_cost_alone() -> None:
    case = {"data": "shop", "system": "slow", "only_cost": False}
    settings = {"is_converged": False, "stop_reason": "budget"}
    stopped = record_of("competitors", case, {"ndcg@10": 0.1, "epoch_seconds": 5.0}, seed=0, settings=settings)
    assert tables.table_text(tables.TABLES["competitors-quality"], [stopped]) is None
    cost = tables.table_text(tables.TABLES["competitors-cost"], [stopped])
    assert cost is not None
    assert "cost alone" in cost
    assert "NDCG" not in cost


def test_pages_are_checked_and_written(tmp_path: Path) -> None:
    page, results = tmp_path / "accuracy.md", tmp_path / "results"
    page.write_text("before\n<!-- table:accuracy -->\nold\n<!-- /table -->\nafter\n")
    append_records(results / "accuracy.jsonl", [record()])
    words = ["--pages", str(page), "--results", str(results)]
    assert tables.main([*words, "--check"]) == 1
    assert "old" in page.read_text()
    assert tables.main(words) == tables.main([*words, "--check"]) == 0
    assert page.read_text().startswith("before\n<!-- table:accuracy -->\n| data |")
    assert page.read_text().endswith("<!-- /table -->\nafter\n")


@pytest.mark.slow
def test_ablation_is_run_once_with_the_settings_of_its_row(data: Path, tmp_path: Path) -> None:
    out, tiny = tmp_path / "ablations.jsonl", {"size": "tiny", "training.max_epochs": 1}
    for _ in range(2):
        ablations.run_grid("ml-100k", data / "ml-100k", {"one": tiny | {"model.dropout": 0.7}}, [0], out)
    (found,) = read_records(out)
    assert found["settings"]["model"]["dropout"] == 0.7
    assert found["metrics"]["nll"] > 0
    (tmp_path / "grid.yaml").write_text("narrow: {model.hidden_size: 8}")
    assert ablations.chosen_grid(tmp_path / "grid.yaml", []) == {"narrow": {"model.hidden_size": 8}}
    with pytest.raises(InputError):
        ablations.chosen_grid(None, ["no-such-row"])


def test_reasons_and_diversity_are_measured_by_public_functions(
    data: Path, fitted: Any, shop_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uncertainty, "DIVERSITIES", (0.0,))
    histories, vocabulary = shop_log.histories, shop_log.vocabulary
    items = [vocabulary.item_ids(histories.history(row).item) for row in range(3)]
    queries = uncertainty.Queries([one[:-1] for one in items], [one[-1] for one in items])
    reasons = uncertainty.reason_record("shop", fitted, queries)["metrics"]
    assert reasons["over_random"] == pytest.approx(reasons["reasons"] - reasons["random"], abs=1e-4)
    plain, *_ = uncertainty.diversity_records("shop", fitted, queries)
    assert 0 <= plain["metrics"]["ndcg@10"] <= 1
    with pytest.raises(InputError):
        uncertainty.Queries.of("taobao", data, 5)


def test_flops_count_products_of_real_positions_and_of_scored_items() -> None:
    config = NetworkConfig(num_items=9, hidden_size=4, latent_dim=4, attention_dim=2, num_layers=1, num_heads=1)
    one, two = (speed.flops_per_position(config, num_scored=n, pairs_per_position=1.0) for n in (9, 10))
    assert two - one == 6.0 * 4
    layers, posterior, feed_forward, maps = 4 * 16 + 2 * 4, 2 * 4 * 2 + 6, 2 * 6 * 16, 4 * 16
    assert one == 6.0 * (4 * 9 + layers + posterior + feed_forward + maps)
    assert speed._windows(450, 200) == [200, 200, 50]


@pytest.mark.slow
def test_system_is_run_once_with_its_baselines(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "records.jsonl"
    words = ["ml-100k", "--data", str(data), "--systems", "variseq", "--work-folder", str(tmp_path), "--out", str(out)]
    assert competitors.main([*words, "--cpu-minutes", "0.001"]) == 0, capsys.readouterr().out
    assert competitors.main([*words, "--cpu-minutes", "0.001"]) == 0
    ours, *baselines = read_records(out)
    assert (ours["case"]["system"], ours["settings"]["stop_reason"]) == ("variseq", "budget")
    assert not ours["settings"]["is_converged"]
    assert ours["metrics"]["num_queries"] == 20
    assert ours["metrics"]["lists_with_seen"] == 0
    assert {"popular", "item-knn"} <= {one["case"]["system"] for one in baselines}
    assert competitors.main([*words[:4], "oracle"]) == 2


def test_lists_are_evaluated_as_by_hand_and_seen_items_are_removed() -> None:
    result = competitors.evaluate_lists({1: [10, 11, 13, 50], 2: [50, 51, 11], 3: [50, 51], 4: [99]}, SEQUENCES)
    assert result["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4) + 0 + 0) / 4)
    assert (result["hit_rate@10"], result["lists_with_seen"]) == (2 / 4, 1)
    assert competitors.evaluate_lists({1: [*range(50, 60), 13]}, SEQUENCES)["hit_rate@10"] == 0


def test_curve_stops_after_patience_and_at_the_budget() -> None:
    curve = LearningCurve(SETTINGS)
    for ndcg, stop, is_best in ((0.1, None, True), (0.3, None, True), (0.2, None, False), (0.3, "patience", False)):
        curve.epoch_seconds.append(10.0)
        assert (curve.validated(ndcg), curve.stop_reason) == (is_best, stop)
    assert curve.best == (20.0, 2, 0.3)
    curve.epoch_seconds, curve.points = [61.0], [(61.0, 1, 0.1)]
    assert curve.stop_reason == "budget"


def test_sequences_are_in_the_order_of_time_and_targets_have_an_event_before_them(data: Path, tmp_path: Path) -> None:
    rows = ["2\t8\t1\t50", "1\t9\t1\t30", "1\t7\t1\t20", "1\t5\t1\t40", "2\t6\t1\t40", "2\t4\t1\t60"]
    (tmp_path / "u.data").write_text("\n".join(rows) + "\n")
    log = load_dataset("ml-100k", tmp_path).log
    assert [log.vocabulary.item_ids(log.histories.history(row).item) for row in (0, 1)] == [[7, 9, 5], [6, 8, 4]]
    sequences = Sequences({1: [5, 6, 7, 8, 9], 2: [5, 6, 7]})
    assert (sequences.num_targets(), sequences.num_targets(max_seq_len=1)) == (2, 1)
    assert (sequences.validation, sequences.test) == ({1: 8, 2: 6}, {1: 9, 2: 7})


WRITE_NAMES = """
import os, sys, time
for _ in range(40):
    with open(sys.argv[1], "a") as file: file.write(sys.argv[2] + "\\n")
    time.sleep(0.01)
"""
WRITE_PID_AND_WAIT = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"


def work(name: str, code: str, *words: str, folder: Path) -> Work:
    return Work(name, [sys.executable, "-I", "-c", code, *words], folder / f"{name}.txt")


def test_one_process_runs_at_a_time_and_failures_do_not_stop_the_others(tmp_path: Path) -> None:
    written, finished = tmp_path / "names", dict[str, int]()
    works = [work(name, WRITE_NAMES, str(written), name, folder=tmp_path) for name in "abc"]
    works.insert(1, work("bad", "import sys; print('why'); sys.exit(3)", folder=tmp_path))
    take_turns(works, 0.2, lambda work, code: finished.update({work.name: code}))
    names = written.read_text().split()
    assert finished == {"a": 0, "b": 0, "c": 0, "bad": 3}
    assert len(names) == 3 * 40
    # Side by side they would change at nearly every line.
    assert len([name for name, _ in groupby(names)]) < 40
    assert (tmp_path / "bad.txt").read_text() == "why\n"


def test_no_process_is_left_when_the_benchmark_is_interrupted(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    works = [work("long", WRITE_PID_AND_WAIT, str(pid), folder=tmp_path), work("short", "", folder=tmp_path)]

    def interrupt(_work: Work, _code: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_turns(works, 1.0, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
