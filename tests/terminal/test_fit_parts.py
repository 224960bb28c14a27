"""`variseq fit` without a test part, with a test file, target behaviors, low values, and from an earlier run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from tests.terminal.invoke import refuse, succeed
from tests.terminal.shop import left_in, quick_fit
from variseq.estimator import load

SHORT = ["--set", "training.max_epochs=1", "--quiet"]


@pytest.fixture(scope="module")
def cut_files(shop_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The first four fifths of the shop's events in time, and the rest with a user and an item nobody knows."""
    folder = tmp_path_factory.mktemp("cut")
    (folder / "quick.yaml").write_text(shop_file.with_name("quick.yaml").read_text())
    with shop_file.open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["timestamp"])
    cut = len(rows) * 4 // 5
    latest = rows[-1]
    strange = [latest | {"user_id": "stranger"}, latest | {"item_id": "never seen", "user_id": "other stranger"}]
    for name, some in (("first.csv", rows[:cut]), ("rest.csv", rows[cut:] + strange)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(latest))
            writer.writeheader()
            writer.writerows(some)
    return folder / "first.csv", folder / "rest.csv"


@pytest.mark.parametrize(
    "words", [["--test", "none"], ["--test", "none", "--split", "time"], ["--set", "split.test=none"]]
)
def test_without_a_test_part_validation_is_told_as_validation(
    shop_file: Path, tmp_path: Path, words: list[str]
) -> None:
    out = succeed(*quick_fit(shop_file, tmp_path / "run", *words, *SHORT)).out
    assert "There is no test part. On the validation part (" in out
    assert "popular" not in out
    assert "evaluation.json" not in left_in(tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["protocol"]["num_test_events"] == 0
    refuse(r"without a test part.*--test-file", "evaluate", tmp_path / "run")
    assert (
        "rank"
        in succeed("recommend", tmp_path / "run", "--user", load(tmp_path / "run").vocabulary.user_ids([0])[0]).out
    )


def test_test_file_is_judged_on_by_fit_and_by_evaluate_alike(cut_files: tuple[Path, Path], tmp_path: Path) -> None:
    first, rest = cut_files
    out = succeed(*quick_fit(first, tmp_path / "run", "--test-file", rest, *SHORT)).out
    assert "test file part" in out
    assert "are unknown to the model and judged from their events in the test file alone" in out
    succeed("evaluate", tmp_path / "run", "--test-file", rest, "--json", tmp_path / "again.json")
    again, written = (
        json.loads(path.read_text()) for path in (tmp_path / "again.json", tmp_path / "run" / "evaluation.json")
    )
    assert again["protocol"] == written["protocol"]
    assert again["rows"][0]["ndcg@10"] == written["rows"][0]["ndcg@10"]
    assert (again["rows"][0]["unknown_targets"], again["protocol"]["test_file"]["events_of_unknown_items"]) == (1, 1)


def test_test_file_that_cannot_be_used_is_refused_before_training(cut_files: tuple[Path, Path], tmp_path: Path) -> None:
    first, rest = cut_files
    refuse("Give one of the two", *quick_fit(first, tmp_path / "run", "--test-file", rest, "--test", "0.1"))
    (tmp_path / "other.csv").write_text("user_id,item_id,timestamp,event\nu,other,2030-01-01,view\n")
    refuse("No item of the test file", *quick_fit(first, tmp_path / "run", "--test-file", tmp_path / "other.csv"))
    assert left_in(tmp_path) == ["other.csv"]


def test_targets_of_is_kept_and_runs_of_other_targets_are_not_compared(shop_file: Path, tmp_path: Path) -> None:
    succeed(*quick_fit(shop_file, tmp_path / "bought", "--targets-of", "purchase", *SHORT))
    table = json.loads((tmp_path / "bought" / "evaluation.json").read_text())
    assert table["protocol"]["targets_of"] == ["purchase"]
    succeed("evaluate", tmp_path / "bought", "--json", tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["protocol"] == table["protocol"]
    assert again["rows"][0]["ndcg@10"] == table["rows"][0]["ndcg@10"]
    succeed(*quick_fit(shop_file, tmp_path / "all", "--targets-of", "purchase,view", "--targets-of", "cart", *SHORT))
    assert "targets_of" not in json.loads((tmp_path / "all" / "evaluation.json").read_text())["protocol"]
    refuse("the behaviors that are asked for", "compare", tmp_path / "bought", tmp_path / "all")


def test_unknown_target_behavior_is_refused_with_those_there_are(shop_file: Path, tmp_path: Path) -> None:
    refuse(
        r"'bought'.*cart \(\d+\), purchase \(\d+\), view \([\d,]+\)",
        *quick_fit(shop_file, tmp_path / "run", "--targets-of", "bought", *SHORT),
    )
    assert left_in(tmp_path) == []


def test_low_values_are_told_by_check_and_read_alike_in_a_test_file(
    cut_files: tuple[Path, Path], tmp_path: Path
) -> None:
    first, rest = cut_files
    assert "value below min_value" in succeed("check", first, "--min-value", "12").out
    words = ["--min-value", "12", "--low-values", "negative", "--test-file", rest]
    succeed(*quick_fit(first, tmp_path / "run", *words, *SHORT))
    table = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert table["protocol"]["targets_of"] == ["cart", "purchase", "view"]
    assert table["protocol"]["test_file"]["events_of_unknown_behaviors"] == 0
    refuse("low_values", "check", first, "--low-values", "hidden")


def test_fit_goes_on_from_an_earlier_run_of_its_size(
    shop_file: Path, cut_files: tuple[Path, Path], tmp_path: Path
) -> None:
    quick = yaml.safe_load(shop_file.with_name("quick.yaml").read_text())
    del quick["size"], quick["model"], quick["training"]["max_epochs"]
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(quick | {"split": {"by": "time", "test": "none"}}))
    succeed(*quick_fit(cut_files[0], tmp_path / "first", "--test", "none", "--split", "time", *SHORT))
    words = ["fit", shop_file, "--config", tmp_path / "quick.yaml", "--out", tmp_path / "second", "--quiet"]
    finished = succeed(*words, "--from", tmp_path / "first", "--set", "split.valid=0.15")
    assert "test part" in finished.out
    model = load(tmp_path / "second")
    assert model.checkpoint is not None
    assert (model.size, model.checkpoint.config["model"]["hidden_size"]) == ("tiny", 16)
    refuse(
        "does not fit the earlier run",
        *words[:-3],
        "--out",
        tmp_path / "third",
        "--from",
        tmp_path / "first",
        "--size",
        "small",
    )
    refuse("nowhere does not exist", *words[:-3], "--out", tmp_path / "third", "--from", "nowhere")
