"""Growth: the simulated log, processes that are stopped, exponents, tables and the picture."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import growth, growth_results, growth_stages, tables
from measurement.records import append_records, read_records, record_of
from variseq import load, read
from variseq.errors import InputError

SETTINGS = growth.Settings("tiny", 1, None)


def record(events: int, items: int, **metrics: float) -> dict[str, Any]:
    case = {"events": events, "items": items, "size": "tiny"}
    settings = SETTINGS.to_json() | {"max_minutes": 1.0, "stopped_in": None}
    return record_of("growth", case, metrics, seed=0, settings=settings)


def cost(stage: str, seconds: float) -> dict[str, float]:
    return {f"{stage}_seconds": seconds, f"{stage}_cpu_seconds": 2 * seconds, f"{stage}_peak_megabytes": 100.0}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("growth") / "log.parquet"
    growth_stages.write_log(path, 1_500, 100)
    return path


def test_simulated_log_has_the_numbers_that_its_cell_names(log: Path) -> None:
    found = read(log)
    assert (found.histories.num_events, found.vocabulary.num_items) == (1_500, 100)
    assert found.vocabulary.user_ids([0]) == [growth_stages.user_id(0)]


def test_two_of_five_events_are_one_of_three_successors_of_the_event_before() -> None:
    events = growth_stages.simulated_events(200_000, 500)
    assert (np.diff(events["second"]) >= 0).all()
    order = np.argsort(events["user"], kind="stable")
    user, item = events["user"][order], events["item"][order]
    is_next = user[1:] == user[:-1]
    count = np.zeros((500, 500), dtype=np.int64)
    np.add.at(count, (item[:-1][is_next], item[1:][is_next]), 1)
    share = np.sort(count, axis=1)[:, -growth_stages.NUM_SUCCESSORS :].sum() / count.sum()
    # What is popular comes among the three by chance, too.
    assert growth_stages.FOLLOW_SHARE - 0.02 < share < growth_stages.FOLLOW_SHARE + 0.1
    assert abs(np.bincount(user).mean() - growth_stages.MEAN_LENGTH) < 1


@pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")
def test_parts_of_a_fit_are_its_epochs_refits_and_evaluation(log: Path, tmp_path: Path) -> None:
    run, parts = tmp_path / "run", tmp_path / "fit.jsonl"
    words = ["fit", "--log", str(log), "--run", str(run), "--parts", str(parts), "--max-epochs", "1"]
    assert growth_stages.main(words) == 0
    assert load(run).checkpoint is not None
    assert (run / "evaluation.json").exists()
    metrics = growth.part_metrics("fit", parts)
    assert metrics["epochs"] == 1
    assert {f"{stage}_seconds" for stage in growth_results.STAGES if stage.startswith("fit_")} <= metrics.keys()
    assert sum(json.loads(line)["part"] == "epoch" for line in parts.read_text().splitlines()) == 1


def test_cost_of_an_epoch_is_a_mean_and_that_of_other_parts_a_sum(tmp_path: Path) -> None:
    took = [("epoch", 2.0), ("validation", 1.0), ("epoch", 4.0), ("refit", 3.0), ("refit", 4.0), ("calibration", 1.0)]
    rows = [{"part": part, "seconds": one, "cpu_seconds": 1.0, "peak_megabytes": one} for part, one in took]
    lines, path = [json.dumps(row) + "\n" for row in rows], tmp_path / "fit.jsonl"
    path.write_text("".join(lines[:-1]))
    stopped = growth.part_metrics("fit", path)
    assert stopped["fit_refit_seconds_at_least"] == 7.0
    assert "fit_refit_seconds" not in stopped
    path.write_text("".join(lines))
    metrics = growth.part_metrics("fit", path)
    assert (metrics["fit_epoch_seconds"], metrics["fit_refit_seconds"], metrics["epochs"]) == (3.0, 7.0, 1)
    assert metrics["fit_refit_peak_megabytes"] == 4.0
    assert growth.part_metrics("read", tmp_path / "missing.jsonl") == {}


def test_process_is_measured_and_is_stopped_when_its_minutes_are_over(tmp_path: Path) -> None:
    metrics: dict[str, Any] = {}
    quick = growth.Processes(tmp_path, 1, time.perf_counter() + 60)
    quick.run("read", ["-c", "x = bytearray(50_000_000)"], metrics)
    assert metrics["read_peak_megabytes"] > 45
    with pytest.raises(growth.Stopped, match="exit code 3"):
        quick.run("export", ["-c", "import sys; sys.exit(3)"], metrics)
    late = growth.Processes(tmp_path, 1, time.perf_counter() + 0.2)
    with pytest.raises(growth.Stopped, match=growth.OUT_OF_TIME):
        late.run("evaluate", ["-c", "import time; time.sleep(60)"], metrics)
    assert 0.1 < metrics["evaluate_seconds_at_least"] < 30
    assert "evaluate_seconds" not in metrics


def test_cells_have_two_events_an_item_unless_they_are_named() -> None:
    assert growth.cells_of([100], [40, 60], []) == [growth.Cell(100, 40)]
    assert growth.cells_of(None, None, ["100x90"]) == [growth.Cell(100, 90)]
    assert len(growth.cells_of(None, None, [])) == 6
    for text in ("100", "ax3", "5x10"):
        with pytest.raises(InputError):
            growth.cells_of(None, None, [text])


def test_cell_is_measured_again_for_another_commit_more_minutes_or_after_a_failure() -> None:
    cell, whole = growth.Cell(1000, 100), record(1000, 100)
    stopped, failed = (whole | {"settings": whole["settings"] | {"stopped_in": "fit", "why": why}}
                       for why in (growth.OUT_OF_TIME, "exit code 1"))  # fmt: skip
    assert growth.is_measured(cell, SETTINGS, 5.0, [whole])
    assert growth.is_measured(cell, SETTINGS, 1.0, [stopped])
    assert not growth.is_measured(cell, SETTINGS, 5.0, [stopped])
    assert not growth.is_measured(cell, SETTINGS, 1.0, [failed])
    assert not growth.is_measured(cell, SETTINGS, 5.0, [whole | {"commit": "a" * 40}])
    assert not growth.is_measured(cell, growth.Settings("tiny", 2, None), 5.0, [whole])
    assert not growth.is_measured(growth.Cell(1000, 10), SETTINGS, 5.0, [whole])


def test_exponents_are_of_stages_that_take_long_enough_in_the_latest_records() -> None:
    sizes = [(10**power, items) for power in (5, 6, 7) for items in (10, 1000)]
    cells = [record(events, items, **cost("fit", 3e-9 * events**2 * items), **cost("export", 0.1 * items**0.5),
                    serve_start_seconds=events / 1e4)
             for events, items in sizes]  # fmt: skip
    old = record(10**5, 10, **cost("fit", 9.0)) | {"date": "2020"}
    by_stage = {one["case"]["stage"]: one["metrics"] for one in growth_results.exponent_records([old, *cells])}
    fit, export = by_stage[growth_results.STAGES["fit"]], by_stage[growth_results.STAGES["export"]]
    assert fit["events_exponent"] == fit["events_cpu_exponent"] == fit["events_steepest"] == pytest.approx(2)
    assert (fit["items_exponent"], fit["events_points"], fit["items_points"]) == (pytest.approx(1), 6, 6)
    # 0.3 s with 10 items is left out.
    assert export["events_points"] == 3
    assert not export.keys() & {"items_points", "items_exponent"}
    # The CPU time of a server is not known.
    assert by_stage[growth_results.STAGES["serve_start"]].keys() == {
        *("events_exponent", "events_points", "items_exponent", "items_points")
    }
    assert growth_results.STAGES["read"] not in by_stage


def test_page_shows_a_stopped_stage_as_a_lower_bound(tmp_path: Path) -> None:
    page, results = tmp_path / "growth.md", tmp_path / "results"
    blocks = ("growth", "growth-exponents")
    page.write_text("".join(f"<!-- table:{name} -->\n<!-- /table -->\n" for name in blocks))
    stopped = record(10**6, 10, fit_seconds_at_least=60.0)
    append_records(results / "growth.jsonl", [record(10**5, 10, **cost("fit", 5.0)), stopped])
    append_records(results / "growth.jsonl", [record(10**5, 100, **cost("fit", 50.0))])
    assert tables.main(["--pages", str(page), "--results", str(results)]) == 0
    text = page.read_text()
    assert "| 1,000,000 | 10 | 1 | > 60.0 |" in text
    assert "| fit, the whole command | 1 | 1.00 | 1.00 | 1.00 | 2 |" in text
    assert len(read_records(results)) == 3


def test_picture_needs_two_comparable_cells(tmp_path: Path) -> None:
    cells = [record(events, 10, **cost("fit_epoch", events / 1e4), **cost("fit", events / 1e3))
             for events in (10**5, 10**6)]  # fmt: skip
    growth_results.draw(cells, tmp_path / "growth.svg")
    assert "<svg" in (tmp_path / "growth.svg").read_text()
    with pytest.raises(InputError):
        growth_results.draw(cells[:1], tmp_path / "none.svg")
