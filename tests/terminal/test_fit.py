"""`variseq fit`: flags, configuration file and --set, parts and test files, and warm starts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.terminal.conftest import FittedByCommand
from tests.terminal.invoke import refuse, succeed
from tests.terminal.shop import left_in, quick_fit
from variseq.errors import InputError
from variseq.estimator import load
from variseq.terminal.run_config import RunConfig, run_config

SHORT = ["--set", "training.max_epochs=1", "--quiet"]


def test_fit_prints_the_log_the_epochs_the_results_and_the_folder(fitted_by_command: FittedByCommand) -> None:
    out = fitted_by_command.finished.out
    for text in ("80 users, 30 items", "epoch 3/3", "validation NDCG@10", "popular", "item-knn", "Run: "):
        assert text in out
    assert str(fitted_by_command.folder) in out


def test_fit_leaves_a_whole_run_and_nothing_beside_it(fitted_by_command: FittedByCommand) -> None:
    assert left_in(fitted_by_command.folder.parent) == ["shop"]
    assert {"manifest.json", "weights.safetensors", "metrics.jsonl", "evaluation.json"} <= set(
        left_in(fitted_by_command.folder)
    )


def test_warning_is_one_line_without_a_place_in_the_code(fitted_by_command: FittedByCommand) -> None:
    for line in fitted_by_command.finished.err.splitlines():
        assert line.startswith("warning: "), line


def config_of(run: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return config


@pytest.mark.slow
def test_flags_win_over_the_file_and_set_wins_over_flags(shop_file: Path, tmp_path: Path) -> None:
    words = ["--seed", 3, "--set", "model.hidden_size=12", "--set", "seed=4", *SHORT]
    out = succeed(*quick_fit(shop_file, tmp_path / "run", *words)).out
    config = config_of(tmp_path / "run")
    assert (config["size"], config["seed"]) == ("tiny", 4)
    assert (config["training"]["max_epochs"], config["training"]["seed"]) == (1, 4)
    assert (config["model"]["hidden_size"], config["model"]["num_heads"]) == (12, 2)
    assert "epoch" not in out
    assert "ndcg@10" in out


@pytest.mark.slow
def test_split_size_columns_filters_and_rejects_are_obeyed(shop_file: Path, tmp_path: Path) -> None:
    header, *rows = shop_file.read_text().splitlines()
    renamed = header.replace("user_id", "who").replace("item_id", "what")
    (tmp_path / "log.csv").write_text("\n".join([renamed, *rows, ",i01,never,view,1"]) + "\n")
    words = ["fit", tmp_path / "log.csv", "--out", tmp_path / "run", "--split", "time", "--size", "tiny"]
    words += ["--columns", "user_id=who,item_id=what", "--min-user-events", 5, "--min-item-events", 5]
    words += ["--rejects", tmp_path / "rejects.csv", "--device", "cpu", "--time-unit", "iso", *SHORT]
    succeed(*words, "--set", "split.test=14d", "--set", "model.attention=dot")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["protocol"]["method"] == "time"
    assert manifest["log"]["filtered"]
    assert config_of(tmp_path / "run")["model"]["attention"] == "dot"
    assert "missing user" in (tmp_path / "rejects.csv").read_text()


def test_catalog_smaller_than_ten_is_fitted_and_ranked_whole(tmp_path: Path, shop_file: Path) -> None:
    rows = [f"u{n % 20},i{(n * 7 + n // 20) % 5},{1_600_000_000 + n}" for n in range(140)]
    (tmp_path / "few.csv").write_text("\n".join(["user,item,ts", *rows]) + "\n")
    (tmp_path / "quick.yaml").write_text(shop_file.with_name("quick.yaml").read_text())
    words = quick_fit(tmp_path / "few.csv", tmp_path / "run", *SHORT)
    assert "ndcg@5" in succeed(*words).out
    text = (tmp_path / "run" / "evaluation.json").read_text()
    assert "NaN" not in text


def test_tensorboard_files_are_written_where_the_library_is_there(shop_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    succeed(*quick_fit(shop_file, tmp_path / "run", "--set", "training.max_epochs=1", "--tensorboard", "--quiet"))
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_folder_that_cannot_be_used_is_one_message_and_left_alone(shop_file: Path, tmp_path: Path) -> None:
    refuse("no unfinished run.*without --resume", *quick_fit(shop_file, tmp_path / "run", "--resume"))
    assert left_in(tmp_path) == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine")
    refuse("exists already. Choose another", *quick_fit(shop_file, tmp_path / "run"))
    assert left_in(tmp_path) == ["run"]
    refuse("cannot be made", *quick_fit(shop_file, tmp_path / "run" / "precious" / "run"))
    assert left_in(tmp_path / "run") == ["precious"]


WRONG_SETTINGS = {
    "color=red": r"there is no color; there are: size, seed",
    "model.color=red": r"there is no model\.color; there are: .*hidden_size",
    "training.color=red": r"there is no training\.color; there are: .*max_epochs",
    "read.color=red": r"there is no read\.color; there are: columns",
    "split.color=red": r"there is no split\.color; there are: by, test, valid",
    "color": r"not of the form section\.name=value",
    "=3": "setting without a name",
    "model=3": "model = 3",
    "model.hidden_size.deep=3": "'hidden_size' has no parts",
    "model.hidden_size=wide": r"model\.hidden_size = 'wide'.*valid integer",
    "model.hidden_size=[": "no YAML",
    "model.num_heads=3": "not a multiple of num_heads 3",
    "model.num_items=5": r"model\.num_items cannot be set: it follows from the log",
    "training.max_epochs=0": r"max_epochs = 0.*greater than or equal to 1",
    "training.learning_rate=.nan": "learning_rate = nan",
    "size=huge": "'tiny', 'small', 'medium' or 'large'",
    "seed=-1": "seed = -1",
    "device=abacus": "no device 'abacus'. Allowed: 'auto', 'cpu', 'cuda'",
    "split.by=color": "'time', 'leave-one-out', 'user-time' or 'users'",
    "split={by: time, test: 7}": "test=7 would hold none or all of the",
    "split={by: time, test: soon}": "'soon' is not a duration",
    "read.min_user_events=100000": "No event is left after filtering",
    "read.temporary_folder=/nowhere/at/all": "temporary folder cannot be used",
}  # fmt: skip


@pytest.mark.parametrize("setting", WRONG_SETTINGS)
def test_wrong_setting_is_one_message_and_leaves_nothing(shop_file: Path, tmp_path: Path, setting: str) -> None:
    refuse(WRONG_SETTINGS[setting], *quick_fit(shop_file, tmp_path / "run", "--set", setting))
    assert left_in(tmp_path) == []


WRONG_FILES = {
    "a list": ("- a\n- b\n", "no YAML mapping. Allowed sections: size"),
    "a number": ("3\n", "no YAML mapping"),
    "nothing": ("", "no YAML mapping"),
    "broken": ("a: [\n", "cannot be read"),
    "code": ('a: !!python/object/apply:os.system ["true"]\n', "cannot be read"),
    "unknown key": ("color: red\n", "there is no color"),
    "unknown key of a section": ("model: {color: red}\n", r"there is no model\.color"),
    "number as key": ("1: 2\n", "key that is no text: 1"),
    "empty section": ("model:\n", "model = None"),
    "not UTF-8": ("size: t\udcffny\n", "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_wrong_configuration_file_is_one_message(shop_file: Path, tmp_path: Path, case: str) -> None:
    text, told = WRONG_FILES[case]
    (tmp_path / "wrong.yaml").write_text(text, encoding="utf-8", errors="surrogateescape")
    refuse(told, "fit", shop_file, "--out", tmp_path / "run", "--config", tmp_path / "wrong.yaml")
    assert left_in(tmp_path) == ["wrong.yaml"]


def test_missing_configuration_file_is_one_message(shop_file: Path, tmp_path: Path) -> None:
    refuse("nowhere.yaml cannot be read", "fit", shop_file, "--out", tmp_path / "run", "--config", "nowhere.yaml")
    refuse("cannot be read", "fit", shop_file, "--out", tmp_path / "run", "--config", tmp_path)


def test_loss_that_is_no_number_stops_with_one_message_and_leaves_nothing(shop_file: Path, tmp_path: Path) -> None:
    words = quick_fit(shop_file, tmp_path / "run", "--set", "training.learning_rate=1e12", "--quiet")
    refuse("not finite|loss is nan|loss is inf", *words)
    assert left_in(tmp_path) == []


names = st.sampled_from(["seed", "size", "model.hidden_size", "training.beta", "split.test", "read.min_user_events"])
values = st.integers(0, 9) | st.text("abc.5[]{}:,'\" ", max_size=6)


@given(st.lists(st.tuples(names, values), max_size=4))
def test_any_assignment_gives_settings_or_an_input_error(assignments: list[tuple[str, object]]) -> None:
    try:
        config = run_config(None, {}, [f"{name}={value}" for name, value in assignments])
    except InputError:
        return  # One message is what is promised; anything else fails here.
    assert isinstance(config, RunConfig)


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


@pytest.mark.slow
def test_without_a_test_part_the_validation_metrics_are_shown(shop_file: Path, tmp_path: Path) -> None:
    out = succeed(*quick_fit(shop_file, tmp_path / "run", "--test", "none", *SHORT)).out
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


@pytest.mark.slow
def test_fit_and_evaluate_use_a_test_file_alike(cut_files: tuple[Path, Path], tmp_path: Path) -> None:
    first, rest = cut_files
    out = succeed(*quick_fit(first, tmp_path / "run", "--test-file", rest, *SHORT)).out
    assert "test file, " in out
    assert "unknown to the model; their history is the test file alone" in " ".join(out.split())
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


@pytest.mark.slow
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
    refuse("behaviors of the targets", "compare", tmp_path / "bought", tmp_path / "all")


def test_unknown_target_behavior_is_refused_with_those_there_are(shop_file: Path, tmp_path: Path) -> None:
    refuse(
        r"'bought'.*cart \(\d+\), purchase \(\d+\), view \([\d,]+\)",
        *quick_fit(shop_file, tmp_path / "run", "--targets-of", "bought", *SHORT),
    )
    assert left_in(tmp_path) == []


@pytest.mark.slow
def test_low_values_are_shown_by_check_and_read_alike_in_a_test_file(
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


@pytest.mark.slow
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
    assert (model.size, model.checkpoint.config["model"]["hidden_size"]) == ("tiny", 16)
    third = [*words[:-3], "--out", tmp_path / "third", "--from"]
    refuse("does not fit the earlier run", *third, tmp_path / "first", "--size", "small")
    refuse("nowhere does not exist", *third, "nowhere")
