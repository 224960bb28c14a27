"""The commands of experiments on exposures that were written as a server writes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.exposures.lists import START, event, exposure, write
from tests.terminal.invoke import succeed, variseq
from variseq.experiments.experiment import read_experiment

FILE = """name: ranking
planned_users: 1000
arms:
- {name: control, share: 0.5}
- {name: drawn, share: 0.5, strategy: softmax}
"""
NUM_USERS, DAY = 1000, 86_400_000_000
RATES = {"control": 0.2, "drawn": 0.45}


@pytest.fixture(scope="module")
def experiment_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("experiment") / "experiment.yaml"
    file.write_text(FILE)
    return file


@pytest.fixture(scope="module")
def folder(experiment_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list for each of 1,000 users over ten days, and another user two days after the last one."""
    experiment, random, records = read_experiment(experiment_file), np.random.default_rng(4), []
    for number in range(NUM_USERS + 1):
        user, time = f"user {number}", START + (10 * DAY * number) // NUM_USERS + (number == NUM_USERS) * 3 * DAY
        arm = experiment.arm_of(user).name
        shown = exposure(f"list {number}", ["i1", "i2"], user, time)
        records.append(replace(shown, experiment="ranking", arm=arm, uncertainty=float(random.random())))
        if random.random() < RATES[arm]:
            records.append(event(f"event {number}", "i1", time + 1, user, "purchase", exposure_id=f"list {number}"))
    out = tmp_path_factory.mktemp("shown") / "exposures"
    write(out, *records)
    return out


def test_arm_that_earns_more_is_decided(folder: Path, experiment_file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "difference.png"
    done = succeed("experiment", "analyze", folder, "--experiment", experiment_file, "--picture", picture)
    assert "drawn: decided" in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = succeed("experiment", "analyze", folder, "--experiment", experiment_file, "--json").out
    found = json.loads(printed)
    low, high = found["comparisons"]["drawn"]["always_valid"]
    assert 0 < low < RATES["drawn"] - RATES["control"] < high
    assert sum(arm["num_users"] for arm in found["arms"]) == NUM_USERS + 1
    assert sum(arm["num_complete"] for arm in found["arms"]) == NUM_USERS
    assert found["covariates"] == ["number of events", "uncertainty of the model"]


def test_reward_that_nobody_earned_decides_nothing(folder: Path, experiment_file: Path) -> None:
    done = succeed("experiment", "analyze", folder, "--experiment", experiment_file, "--reward", "click=1")
    assert "too few users" in done.out


def test_other_shares_than_those_of_the_server_are_refused_with_exit_code_1(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(
        FILE.replace("control, share: 0.5", "control, share: 0.7").replace("drawn, share: 0.5", "drawn, share: 0.3")
    )
    done = variseq("experiment", "analyze", folder, "--experiment", file)
    assert done.code == 1
    assert "Refused" in done.out
    assert "decided" not in done.out


def test_other_experiment_and_what_is_no_folder_are_messages(
    folder: Path, experiment_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(FILE.replace("name: ranking", "name: another"))
    for words in (
        (folder, "--experiment", file),
        (experiment_file, "--experiment", experiment_file),
        (folder, "--experiment", experiment_file, "--picture", tmp_path / "difference.gif"),
        (folder, "--experiment", experiment_file, "--picture", tmp_path / "none" / "difference.png"),
        (folder, "--experiment", experiment_file, "--reward", "purchase"),
    ):
        done = variseq("experiment", "analyze", *words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: ")


def test_size_has_users_and_days_for_both_kinds_of_looks() -> None:
    done = succeed("experiment", "size", "--rate", 0.05, "--effect", 0.1, "--users-per-day", 1000)
    assert "31,231" in done.out
    assert "63" in done.out.split()
    assert "59,801" in done.out
    assert "days" not in succeed("experiment", "size", "--rate", 0.05, "--effect", 0.1).out
    assert variseq("experiment", "size", "--rate", 0.05, "--effect", 30).code == 2
