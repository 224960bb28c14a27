"""The command `ope` on tables of impressions: numbers in a table and in JSON, a picture, sentences, refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.terminal.invoke import refuse, succeed, variseq

NUM_ITEMS = 5


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 impressions of five items; the third is shown most, and the first is taken most."""
    random = np.random.default_rng(1)
    propensity = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    item = random.choice(NUM_ITEMS, size=4000, p=propensity)
    rate = np.array([0.6, 0.3, 0.1, 0.2, 0.1])
    new = np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    columns = {
        "user_id": random.integers(0, 1500, size=4000),
        "item_id": [f"i{one}" for one in item],
        "click": (random.random(4000) < rate[item]).astype(int),
        "propensity": propensity[item],
        "new": new[item],
        "never": np.where(item == 2, 0.1, 0.0),
    }
    path = tmp_path_factory.mktemp("impressions") / "shown.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_results_are_a_table_a_record_and_a_picture(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "ope"
    done = succeed("ope", table, "--policy", "uniform", "--target-column", "new", "--precision", 0.05, "--out", out)
    record = json.loads((out / "ope.json").read_text(encoding="utf-8"))
    assert record["num_exposures"] == 4000
    by_name = {one["policy"]: {e["estimator"]: e for e in one["estimates"]} for one in record["policies"]}
    for name, truth in (("uniform", 0.26), ("new", 0.4)):
        low, high = by_name[name]["SNIPS"]["interval"]
        assert low < truth < high
    (pair,) = record["differences"]
    assert (pair["first"], pair["second"]) == ("uniform", "new")
    assert all(high < 0 for one in pair["estimates"] for _, high in [one["interval"]])
    assert (out / "ope.png").read_bytes().startswith(b"\x89PNG")
    assert "more than the logging policy" in done.out
    assert "needs about" in done.out


def test_logging_policy_is_evaluated_where_none_is_named(table: Path) -> None:
    assert "the same as the logging policy" in succeed("ope", table).out


def test_refused_policy_has_no_numbers_and_exit_code_1(table: Path, tmp_path: Path) -> None:
    done = variseq("ope", table, "--target-column", "never", "--out", tmp_path)
    assert done.code == 1
    assert "mean weight" in done.out
    (policy,) = json.loads((tmp_path / "ope.json").read_text(encoding="utf-8"))["policies"]
    assert [one["value"] for one in policy["estimates"]] == [None, None]
    shown = variseq("ope", table, "--target-column", "never", "--show-refused", "--out", tmp_path)
    assert shown.code == 1
    (policy,) = json.loads((tmp_path / "ope.json").read_text(encoding="utf-8"))["policies"]
    assert all(one["value"] is not None for one in policy["estimates"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "nothing"], "no folder of a run"),
        (["--precision", "2"], "between 0 and 1"),
        (["--policy", "uniform", "--policy", "uniform"], "each once"),
        (["--reward", "purchase=1"], "segments|exposures of Variseq"),
        (
            ["--target-column", "click", "--policy", "uniform", "--columns", "reward=new,propensity=click"],
            "probability",
        ),
    ],
)
def test_what_is_not_possible_is_one_message(table: Path, words: list[str], message: str) -> None:
    done = variseq("ope", table, *words)
    assert done.code == 2
    assert done.err.count("error:") == 1
    assert re.search(message, done.err)


def test_target_of_lists_is_the_probability_in_the_list_where_the_table_has_that(tmp_path: Path) -> None:
    columns = {"exposure_id": [1, 1, 2, 2], "item_id": ["a", "b"] * 2, "click": [1, 0, 0, 1]}
    path = tmp_path / "lists.csv"
    pd.DataFrame(columns | {"propensity_in_list": 0.5, "same": 0.5, "wrong": [0.5, 0.5, 0.5, 1.5]}).to_csv(path)
    out = tmp_path / "out"
    assert variseq("ope", path, "--target-column", "same", "--show-refused", "--out", out).code == 1
    (policy,) = json.loads((out / "ope.json").read_text(encoding="utf-8"))["policies"]
    assert policy["estimates"][0]["value"] == 1.0
    refuse("probability by wrong is 1.5", "ope", path, "--target-column", "wrong")


def test_table_without_propensities_says_how_to_get_them(table: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.csv"
    pd.read_csv(table)[["user_id", "item_id", "click"]].to_csv(plain, index=False)
    done = variseq("ope", plain)
    assert (done.code, "softmax" in done.err) == (2, True)


def test_folder_of_results_that_is_a_file_is_refused_before_work(table: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    done = variseq("ope", table, "--out", tmp_path / "taken")
    assert (done.code, (tmp_path / "taken").read_text()) == (2, "mine")
