"""Tiny runs of simulated shoppers, one of each kind, into all that is measured of their posteriors."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks import exploration_path  # noqa: F401
from variseq.errors import InputError, PosteriorCollapseWarning
from variseq.estimator import VariationalAttention
from variseq.evaluation.evaluate import evaluate
from variseq.evaluation.metrics import ndcg
from variseq.events.simulate import SimulationOptions, simulate
from variseq.log import read
from variseq.training.display import Display

import posteriors  # isort: skip
import provenance  # isort: skip
from posteriors_chart import write_charts  # isort: skip
from posteriors_controls import EnsembleForecast, fitted  # isort: skip
from posteriors_measures import comparison, conformal, scores, selective  # isort: skip
from posteriors_runs import Judged, Run, judge_controls, load_runs  # isort: skip
from posteriors_simulated import Shops, measure, rank_correlation  # isort: skip

SHOP = SimulationOptions(num_users=80, num_items=40, num_categories=4, mean_events=12, seed=1)
NETWORK: dict[str, Any] = {"hidden_size": 8, "latent_dim": 4, "num_layers": 1, "num_heads": 1, "attention_dim": 4}
TRAINING: dict[str, Any] = {"max_epochs": 3, "kl_target": 4.0, "exclude_seen": True}
KINDS: dict[str, dict[str, Any]] = {
    "variational": {},
    "twin": {"deterministic_fraction": 1.0},
    "variational-before": {"refit_fraction": 0.0},
    "twin-before": {"deterministic_fraction": 1.0, "refit_fraction": 0.0},
}
Folders = dict[str, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A run of each kind; whether it came out well is no matter here."""
    shop = simulate(SHOP)
    train, valid, _ = read(shop.events(), items=shop.items()).split("leave-one-out")
    place = tmp_path_factory.mktemp("runs")
    for kind, changes in KINDS.items():
        model = VariationalAttention("tiny", 0, "cpu", NETWORK, TRAINING | changes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PosteriorCollapseWarning)
            model.fit(train, valid, place / kind, display=Display(quiet=True))
    return {kind: place / kind for kind in KINDS}


@pytest.fixture(scope="module")
def record(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script writes of two seeds that happen to be one run."""
    out = tmp_path_factory.mktemp("out") / "posteriors.jsonl"
    words = ["--data", "shop", "--out", str(out)]
    for role, kind in (("", ""), ("-before-refit", "-before")):
        words += [f"--variational{role}", *[str(folders[f"variational{kind}"])] * 2]
        words += [f"--twin{role}", *[str(folders[f"twin{kind}"])] * 2]
    assert posteriors.main(words) == 0
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_record_says_what_its_numbers_depend_on(record: dict[str, Any]) -> None:
    assert {"commit", "dirty", "hardware", "versions", "split_hash", "peak_megabytes"} <= set(record)
    assert record["seeds"] == [0, 0]
    assert [run["deterministic_fraction"] for run in record["runs"]["twin"]] == [1.0, 1.0]
    assert record["protocol"]["learned_from"] == "training and validation"
    assert record["num_users"] == SHOP.num_users


def test_controls_stand_beside_networks_that_have_seen_no_validation_event(record: dict[str, Any]) -> None:
    models = record["before_refit"]["models"]
    assert {"variational", "twin", "twin, MC-dropout", "ensemble of twins"} <= set(models)
    assert [run["refit_fraction"] for run in record["before_refit"]["runs"]["twin"]] == [0.0, 0.0]
    assert all(np.isfinite(found["mean"]["nll"]) for found in models.values())


def test_two_seeds_of_one_run_are_like_one(record: dict[str, Any]) -> None:
    for of_metric in record["comparisons"]["variational / twin"].values():
        assert of_metric["by_seed"]["0"]["difference"] == pytest.approx(of_metric["over_seeds"]["difference"])
    first, second = record["models"]["variational"]["by_seed"]
    assert first == second


def test_every_target_has_a_verdict(record: dict[str, Any]) -> None:
    assert len(record["targets"]) == 10
    assert all(isinstance(row["is_met"], bool) and row["found"] for row in record["targets"])


def test_epistemic_uncertainty_is_what_is_left_of_the_total(record: dict[str, Any]) -> None:
    for row in record["uncertainty"]:
        assert row["epistemic"] == pytest.approx(row["total"] - row["aleatoric"], abs=1e-4)
        assert row["epistemic"] > 0


def test_chart_is_drawn_the_same_twice(record: dict[str, Any], tmp_path: Path) -> None:
    (first,), (second,) = (write_charts([record], tmp_path / name) for name in ("one", "two"))
    assert first.name == "posteriors_shop.svg"
    assert first.read_bytes() == second.read_bytes()


def test_nothing_is_calibrated_on_events_that_were_learned(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has learned from the validation events"):
        judge_controls([Run.of(folders["twin"], None)])
    with pytest.raises(InputError, match="not made alike"):
        load_runs([folders["variational"]], [folders["twin-before"]], None)
    role = [str(folders["variational"])]
    words = ["--data", "shop", "--variational", *role, "--twin", *role, "--out", str(tmp_path / "none.jsonl")]
    assert posteriors.main([*words, "--variational-before-refit", *role, "--twin-before-refit", *role]) == 1
    assert not (tmp_path / "none.jsonl").exists()


def test_ensemble_of_one_network_three_times_forecasts_what_it_does_alone(folders: Folders) -> None:
    run = Run.of(folders["twin-before"], None)
    alone = run.forecast()
    assert alone.calibration.num_samples == 0
    together = EnsembleForecast([run.network] * 3, run.memory, alone.calibration)
    first, second = (evaluate(forecast, run.test, run.options) for forecast in (alone, together))
    np.testing.assert_allclose(first.metric("nll"), second.metric("nll"), rtol=1e-5)
    part, options = run.validation()
    again = fitted(partial(EnsembleForecast, [run.network] * 3, run.memory), 0, part, options)
    assert again.calibration.temperatures == alone.calibration.temperatures


def test_sample_of_users_is_that_many_and_the_same_for_every_run(folders: Folders) -> None:
    first, second = (Run.of(folders[kind], 30) for kind in ("variational", "twin"))
    np.testing.assert_array_equal(first.test.queries("last").user, second.test.queries("last").user)
    assert len(first.test.queries("last")) == 30


def test_seeds_are_averaged_for_each_user_before_users_are_compared(folders: Folders) -> None:
    run, other = Run.of(folders["variational"], None), Run.of(folders["twin"], None)
    ours = Judged.of([run.forecast(), run.uncalibrated()], run).evaluations
    theirs = Judged.of([other.forecast()] * 2, other).evaluations
    found = comparison(ours, theirs, "nll")
    by_hand = np.mean([one.metric("nll") for one in ours], axis=0) - theirs[0].metric("nll")
    assert found["difference"] == pytest.approx(by_hand.mean())
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert comparison(ours, ours, "nll")["p_value"] == 1.0


def test_shares_and_sets_are_what_they_are_called(folders: Folders) -> None:
    run = Run.of(folders["variational"], None)
    evaluations = Judged.of([run.forecast()], run).evaluations
    (one,) = evaluations
    assert one.forecasts is not None
    half = selective(evaluations, 0.5)
    surest = np.argsort(one.forecasts.entropy)[: len(one.rank) // 2]
    assert half["ndcg"] == pytest.approx(ndcg(one.rank[surest], 10).mean())
    assert selective(evaluations, 1.0)["gain"] == pytest.approx(0)
    assert scores([one.summary()] * 2, 10)["mean"]["nll"] == pytest.approx(one.metric("nll").mean())
    found = conformal(evaluations, [run.learned.thresholds])
    rows = found["by_history_length"]
    held = sum(row["coverage"] * row["num_queries"] for row in rows) / sum(row["num_queries"] for row in rows)
    assert held == pytest.approx(found["coverage"])


@pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")
def test_intervals_are_held_against_the_truth_of_the_simulator() -> None:
    shops = Shops(1, num_known=150, num_new=20, num_items=20, mean_events=15)
    shops = Shops(**{**vars(shops), "model": NETWORK, "training": TRAINING | {"exclude_seen": False}})
    found = measure(shops)
    rows = found["by_num_events"]
    assert [row["num_events"] for row in rows[:3]] == [1, 2, 4]
    for row in rows:
        assert row["inside"] + row["below"] + row["above"] == pytest.approx(1)
        assert row["divergence"] > 0
        assert row["reach"] > 0
    assert found["inside_interval"][0] <= found["inside"] <= found["inside_interval"][1]


def test_rank_correlation_goes_by_order_alone() -> None:
    value = np.array([0.1, 0.5, 0.2, 7.0])
    assert rank_correlation(value, np.exp(value)) == pytest.approx(1)
    assert rank_correlation(value, -value) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(np.sqrt(3) / 2)


def test_peak_memory_never_falls_and_grows_with_what_is_held() -> None:
    before = provenance.peak_megabytes()
    held = np.ones(64 << 20, dtype=np.uint8)
    assert provenance.peak_megabytes() >= before
    assert provenance.peak_megabytes() > held.nbytes / (1 << 20)
