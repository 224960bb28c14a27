"""`variseq fit` makes a run as it was asked to: flags, file, --set, and which of them wins."""

from __future__ import annotations

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
from variseq.terminal.run_config import RunConfig, run_config


def test_fit_tells_the_log_the_epochs_the_results_and_the_folder(fitted_by_command: FittedByCommand) -> None:
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


def test_flags_win_over_the_file_and_set_wins_over_flags(shop_file: Path, tmp_path: Path) -> None:
    words = [
        "--seed",
        3,
        "--set",
        "training.max_epochs=1",
        "--set",
        "model.hidden_size=12",
        "--set",
        "seed=4",
        "--quiet",
    ]
    out = succeed(*quick_fit(shop_file, tmp_path / "run", *words)).out
    config = config_of(tmp_path / "run")
    assert (config["size"], config["seed"]) == ("tiny", 4)
    assert (config["training"]["max_epochs"], config["training"]["seed"]) == (1, 4)
    assert (config["model"]["hidden_size"], config["model"]["num_heads"]) == (12, 2)
    assert "epoch" not in out
    assert "ndcg@10" in out


def test_split_size_columns_filters_and_rejects_are_obeyed(shop_file: Path, tmp_path: Path) -> None:
    header, *rows = shop_file.read_text().splitlines()
    renamed = header.replace("user_id", "who").replace("item_id", "what")
    (tmp_path / "log.csv").write_text("\n".join([renamed, *rows, ",i01,never,view,1"]) + "\n")
    words = ["fit", tmp_path / "log.csv", "--out", tmp_path / "run", "--split", "time", "--size", "tiny"]
    words += ["--columns", "user_id=who,item_id=what", "--min-user-events", 5, "--min-item-events", 5]
    words += ["--rejects", tmp_path / "rejects.csv", "--device", "cpu", "--time-unit", "iso", "--quiet"]
    succeed(*words, "--set", "training.max_epochs=1", "--set", "split.test=14d", "--set", "model.attention=dot")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["protocol"]["method"] == "time"
    assert manifest["log"]["filtered"]
    assert config_of(tmp_path / "run")["model"]["attention"] == "dot"
    assert "missing user" in (tmp_path / "rejects.csv").read_text()


def test_catalog_smaller_than_ten_is_fitted_and_ranked_whole(tmp_path: Path, shop_file: Path) -> None:
    rows = [f"u{n % 20},i{(n * 7 + n // 20) % 5},{1_600_000_000 + n}" for n in range(140)]
    (tmp_path / "few.csv").write_text("\n".join(["user,item,ts", *rows]) + "\n")
    (tmp_path / "quick.yaml").write_text(shop_file.with_name("quick.yaml").read_text())
    words = quick_fit(tmp_path / "few.csv", tmp_path / "run", "--set", "training.max_epochs=1", "--quiet")
    assert "ndcg@5" in succeed(*words).out
    text = (tmp_path / "run" / "evaluation.json").read_text()
    assert "NaN" not in text


def test_tensorboard_files_are_written_where_the_library_is_there(shop_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    succeed(*quick_fit(shop_file, tmp_path / "run", "--set", "training.max_epochs=1", "--tensorboard", "--quiet"))
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_run_folder_that_exists_is_left_alone(shop_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine")
    refuse("exists already. Choose another", *quick_fit(shop_file, tmp_path / "run"))
    assert left_in(tmp_path) == ["run"]
    assert left_in(tmp_path / "run") == ["precious"]


def test_resume_without_an_unfinished_run_is_refused(shop_file: Path, tmp_path: Path) -> None:
    refuse("no unfinished run.*without --resume", *quick_fit(shop_file, tmp_path / "run", "--resume"))
    assert left_in(tmp_path) == []


def test_folder_that_cannot_be_made_is_one_message(shop_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refuse("cannot be made", *quick_fit(shop_file, tmp_path / "file" / "run"))


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
    "split.by=color": "'time' or 'leave-one-out'",
    "split={by: time, test: 7}": r"test=7\.0 is not a share",
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
