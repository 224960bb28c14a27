"""The bench of refits: nobody's last event is known, its means are those of a run, and the table says what differs."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from tests.benchmarks import exploration_path  # noqa: F401
from variseq.errors import InputError
from variseq.log import LogPart
from variseq.training.display import Display
from variseq.training.refit import mean_of, refit

import record_file  # isort: skip
import refits  # isort: skip
from record_file import read_records  # isort: skip
from refits import ROLES, Trial, changes_of, records_of, resolved, table, without_last  # isort: skip

Parts = tuple[LogPart, LogPart, LogPart]

pytestmark = pytest.mark.filterwarnings("ignore::variseq.errors.PosteriorCollapseWarning")


def test_last_event_of_each_user_is_taken_away() -> None:
    events = pa.table({"user_id": [4, 4, 4, 2, 9, 9], "item_id": [1, 2, 3, 4, 5, 6]})
    assert without_last(events).to_pydict() == {"user_id": [4, 4, 9], "item_id": [1, 2, 5]}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for role, noise in (("twin", 1.0), ("model", 0.0)):
        settings = {"max_epochs": 2, "refit_fraction": 0.5, "deterministic_fraction": noise}
        monkeypatch.setitem(ROLES, role, settings)


@pytest.mark.usefixtures("quick")
def test_refits_that_are_averaged_are_those_that_a_run_makes(shop_parts: Parts) -> None:
    trial = Trial(shop_parts, "model", seed=3)
    averaged = mean_of([trial.refitted(0), trial.refitted(1)])
    config = trial.config.model_copy(update={"num_refits": 2})
    refit(trial.network, trial.latest, config, None, Display(quiet=True))
    for name, tensor in trial.network.state_dict().items():
        assert torch.equal(averaged[f"network.{name}"], tensor), name


@pytest.mark.usefixtures("quick")
def test_model_is_asked_in_two_ways_and_its_twin_in_one(shop_parts: Parts) -> None:
    twin, model = (records_of(shop_parts, role, 0, (), most=2) for role in ("twin", "model"))
    assert [(one["num_samples"], one["num_refits"]) for one in twin] == [(0, 1), (0, 2)]
    assert [(one["num_samples"], one["num_refits"]) for one in model] == [(0, 1), (0, 2), (8, 1), (8, 2)]
    assert "nll_interval" not in twin[0]
    low, high = twin[1]["nll_interval"]
    assert low <= round(twin[1]["nll"] - twin[0]["nll"], 5) <= high


def record(num_refits: int, seed: int, ndcg: float, **more: Any) -> dict[str, Any]:
    shared = {
        "role": "twin",
        "changes": [],
        "num_samples": 0,
        "settings": {"model.dropout": 0.5, "training.seed": seed},
    }
    shared |= {"commit": "c" * 40, "dirty": False, "hardware": {"cpu": "a processor"}}
    return {**shared, "num_refits": refits, "seed": seed, "ndcg": ndcg, "nll": 7.5, **more}


def test_table_has_a_row_for_each_number_of_refits_and_lists_seeds_in_order() -> None:
    intervals = {"ndcg_interval": [-0.001, 0.002], "nll_interval": [-0.02, -0.01]}
    lines = table([record(2, 1, 0.06, **intervals), record(2, 0, 0.05, **intervals), record(1, 0, 0.04)]).splitlines()
    assert lines[2] == "| twin | – | posterior mean | 1 | 0 | .0400 | – | 7.500 | – |"
    assert lines[3].startswith(
        "| twin | – | posterior mean | 2 | 0, 1 | .0500, .0600 | −0.0010 to +0.0020, −0.0010 to +"
    )


def test_latest_record_of_a_seed_counts() -> None:
    assert ".0700" in table([record(1, 0, 0.04), record(1, 0, 0.07)])
    assert ".0400" not in table([record(1, 0, 0.04), record(1, 0, 0.07)])


def test_row_says_what_it_has_other_than_the_latest_run_without_changes() -> None:
    louder = {"model.dropout": 0.3, "training.seed": 0}
    asked = table([record(1, 0, 0.04), record(1, 0, 0.07, changes=["model.dropout=0.3"], settings=louder)])
    assert "| twin | – | posterior mean | 1 | 0 | .0400 |" in asked
    assert "| twin | `dropout` 0.3 | posterior mean | 1 | 0 | .0700 |" in asked
    # What was usual once has a row of its own when something else is.
    later = table([record(1, 0, 0.04), record(1, 1, 0.07, settings={"model.dropout": 0.3, "training.seed": 1})])
    assert "| twin | `dropout` 0.5 | posterior mean | 1 | 0 | .0400 |" in later
    assert "| twin | – | posterior mean | 1 | 1 | .0700 |" in later


def test_setting_that_was_not_there_in_the_usual_run_is_named() -> None:
    newer = {"model.dropout": 0.5, "training.new": 2, "training.seed": 0}
    asked = table([record(1, 0, 0.04), record(1, 0, 0.07, changes=["training.new=2"], settings=newer)])
    assert "| twin | – | posterior mean | 1 | 0 | .0400 |" in asked
    assert "| twin | `new` 2 | posterior mean | 1 | 0 | .0700 |" in asked


@pytest.mark.parametrize("word", ["training.num_refits=3", "training.seed=1", "split.test=7d", "size=tiny"])
def test_settings_that_a_trial_has_for_itself_are_refused(word: str) -> None:
    assert changes_of(["training.patience=2", "model.hidden_size=8"]) == ("model.hidden_size=8", "training.patience=2")
    with pytest.raises(InputError, match="not possible here"):
        changes_of([word])


def test_changes_are_what_is_trained(shop_parts: Parts) -> None:
    assert resolved(shop_parts[0], "model", 0, ("training.patience=5",))["training.patience"] == 5
    assert resolved(shop_parts[0], "model", 0, ())["training.patience"] != 5


@pytest.mark.usefixtures("quick")
def test_what_is_there_is_run_again_only_for_more_refits_or_other_settings(
    shop_parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ShopLog:
        def split(self, by: str) -> Parts:
            return shop_parts

    ran: list[tuple[str, int]] = []

    def records(parts: Parts, role: str, seed: int, changes: tuple[str, ...], most: int) -> list[dict[str, Any]]:
        ran.append((role, most))
        return [{"num_refits": number} for number in range(1, most + 1)]

    monkeypatch.setattr(refits, "find_files", lambda data, *names: [])
    monkeypatch.setattr(refits, "shifted_log", lambda files: ShopLog())
    monkeypatch.setattr(refits, "records_of", records)
    out = tmp_path / "refits.jsonl"
    for most in (2, 2, 1, 3):
        refits.run_all(tmp_path, [0], (), most, out)
    assert ran == [("twin", 2), ("model", 2), ("twin", 3), ("model", 3)]
    monkeypatch.setitem(ROLES, "model", {**ROLES["model"], "max_epochs": 3})
    refits.run_all(tmp_path, [0], (), 3, out)
    assert ran[4:] == [("model", 3)]
    refits.run_all(tmp_path, [0], ("training.patience=5",), 3, out)
    assert ran[5:] == [("twin", 3), ("model", 3)]


def test_damaged_file_of_records_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"seed": 0}\n{"seed":')
    with pytest.raises(InputError, match="Remove the line that is no JSON"):
        read_records(tmp_path / "records.jsonl")


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(record_file).attempted > 0
    assert doctest.testmod(record_file).failed == 0
