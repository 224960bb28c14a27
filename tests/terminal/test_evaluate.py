"""`variseq evaluate`, `compare` and `simulate`: numbers for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import BASELINES
from tests.terminal.invoke import refuse, succeed
from tests.terminal.shop import left_in, quick_fit

pytestmark = pytest.mark.slow

MODELS = ["variseq", *BASELINES]


def test_json_holds_the_protocol_and_a_row_a_model(run: Path, tmp_path: Path) -> None:
    out = succeed("evaluate", run, "--json", tmp_path / "evaluation.json").out
    table = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(table) == ["protocol", "rows", "comparisons"]
    assert [row["model"] for row in table["rows"]] == MODELS
    for row in table["rows"]:
        low, high = row["ndcg@10_interval"]
        assert 0 <= low <= row["ndcg@10"] <= high <= 1
        assert row["model"] in out
    assert len(table["protocol"]["split_hash"]) == 64
    assert (table["protocol"]["k"], table["protocol"]["targets"]) == (10, "last")
    assert left_in(tmp_path) == ["evaluation.json"]
    assert "…" not in out
    assert out.count("–") >= 3 * len(MODELS), "every interval is shown whole"
    first = json.loads((run / "evaluation.json").read_text())
    assert table["protocol"] == first["protocol"], "the evaluation is that which fit wrote"
    assert table["rows"][0]["ndcg@10"] == first["rows"][0]["ndcg@10"]
    assert table["rows"][0]["nll"] == pytest.approx(first["rows"][0]["nll"], abs=1e-5)


@pytest.mark.parametrize(("flag", "excludes"), [("--exclude-seen", True), ("--include-seen", False)])
def test_k_targets_and_seen_items_are_obeyed(run: Path, tmp_path: Path, flag: str, excludes: bool) -> None:
    succeed("evaluate", run, "-k", 5, "--targets", "all", flag, "--json", tmp_path / "five.json")
    table = json.loads((tmp_path / "five.json").read_text())
    assert "ndcg@5" in table["rows"][0]
    assert table["protocol"]["targets"] == "all"
    assert table["protocol"]["exclude_seen"] is excludes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-k", "0"], "k=0 does not fit.*Allowed: 1 to 30"),
        (["-k", "31"], "k=31 does not fit.*Allowed: 1 to 30"),
        (["--targets", "best"], "'best' is unknown. Allowed: 'first', 'last', 'all'"),
        (["--json", "nowhere/evaluation.json"], "folder nowhere does not exist"),
        (["--json", "."], "is a folder"),
    ],
)
def test_wrong_word_of_evaluate_is_one_message_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refuse(message, "evaluate", run, *words)
    assert left_in(tmp_path) == []


@pytest.fixture(scope="session")
def other_run(shop_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "other"
    succeed(*quick_fit(shop_file, folder, "--seed", 1, "--set", "training.max_epochs=1", "--quiet"))
    return folder


def test_run_beside_it_is_a_row_with_paired_differences(run: Path, other_run: Path, tmp_path: Path) -> None:
    out = succeed("evaluate", run, "--compare-with", other_run, "-k", 5, "--json", tmp_path / "beside.json").out
    table = json.loads((tmp_path / "beside.json").read_text())
    assert [row["model"] for row in table["rows"]] == ["variseq", str(other_run), *MODELS[1:]]
    assert [one["metric"] for one in table["comparisons"]] == ["nll", "ndcg@5"]
    assert f"variseq minus '{other_run}', paired by 80 users: nll " in out
    assert "…" not in out
    message = f"{table['comparisons'][1]['difference']:+.4f}"
    assert f"{message}, 95 % interval" in succeed("compare", run, other_run, "-k", 5).out


def test_runs_that_cannot_stand_beside_are_refused(run: Path, integer_run: Path, other_run: Path) -> None:
    refuse("cannot be compared. They differ in: users, items", "evaluate", run, "--compare-with", integer_run)
    refuse("nowhere does not exist", "evaluate", run, "--compare-with", "nowhere")
    refuse("is given twice", "evaluate", run, "--compare-with", other_run, "--compare-with", other_run)
    refuse("training.refit_fraction=0", "evaluate", run, "--mc-dropout")


def test_two_runs_are_compared_in_a_sentence(run: Path, other_run: Path) -> None:
    out = succeed("compare", run, other_run, "-k", 5).out
    assert f"ndcg@5 of {run} minus that of {other_run}: " in out
    assert "95 % interval" in out
    assert "80 users" in out
    assert "mrr of " in succeed("compare", run, other_run, "--metric", "mrr").out


def test_runs_that_cannot_be_compared_are_refused(run: Path, other_run: Path) -> None:
    refuse("no metric 'luck'. It has: ndcg", "compare", run, other_run, "--metric", "luck")
    refuse("nowhere does not exist", "compare", run, "nowhere")
    refuse("k=99 does not fit", "compare", run, other_run, "-k", 99)


def test_simulation_is_written_as_asked(tmp_path: Path) -> None:
    words = ["--users", 20, "--items", 24, "--mean-events", 6, "--seed", 2]
    out = succeed("simulate", "--out", tmp_path / "shop.parquet", *words).out
    assert "shop-items.parquet" in out
    events = pd.read_parquet(tmp_path / "shop.parquet")
    assert events["user_id"].nunique() == 20
    assert len(pd.read_parquet(tmp_path / "shop-items.parquet")) == 24
    succeed("simulate", "--out", tmp_path / "again.csv", *words)
    assert pd.read_csv(tmp_path / "again.csv")["item_id"].tolist() == events["item_id"].tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "nowhere/shop.csv"], "'nowhere' does not exist"),
        (["--out", "shop.txt"], r"\.parquet or \.csv"),
        (["--out", "shop.csv", "--users", "0"], "num_users is 0"),
        (["--out", "shop.csv", "--items", "0"], "num_items is 0"),
        (["--out", "shop.csv", "--mean-events", "1"], "mean_events is 1"),
        (["--out", "shop.csv", "--seed", "-1"], "seed is -1"),
    ],
)
def test_wrong_word_of_simulate_is_one_message_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refuse(message, "simulate", *words)
    assert left_in(tmp_path) == []
