"""Pairs of runs with and without request time, on made-up films."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import exploration_path  # noqa: F401
from tests.recipes.test_recipes import NUM_EXACT_USERS, NUM_USERS, TINY, write_movielens
from variseq.errors import InputError

from movielens_1m import movielens_1m, with_request_time  # isort: skip
from record import Request  # isort: skip
from request_time import GROUPS, main, measure, table  # isort: skip

pytestmark = pytest.mark.filterwarnings(
    "ignore::variseq.errors.PosteriorCollapseWarning"
)  # one epoch teaches next to nothing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, and the runs told/ and untold/ of seed 0 and other/ of seed 1."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "data").mkdir()
    write_movielens(folder / "data")
    for recipe, name, seed in ((with_request_time, "told", 0), (movielens_1m, "untold", 0), (movielens_1m, "other", 1)):
        recipe(folder / "data", Request(folder / name, seed, TINY, quiet=True))
    return folder


def test_both_tracks_are_paired_by_user_and_group(folder: Path) -> None:
    runs = ["--with", str(folder / "told"), "--without", str(folder / "untold")]
    main([str(folder / "data"), *runs, "--result", str(folder / "result.json")])
    record = json.loads((folder / "result.json").read_text())
    assert [row["group"] for row in record["groups"]] == list(GROUPS)
    num_users = [row["num_users"] for row in record["groups"]]
    assert num_users == [NUM_USERS, NUM_EXACT_USERS, NUM_USERS - NUM_EXACT_USERS]
    rows = json.loads((folder / "told" / "evaluation.json").read_text())["rows"]
    assert record["groups"][0]["ndcg"]["with"] == pytest.approx(rows[0]["ndcg@10"])
    for row in record["groups"]:
        low, high = row["ndcg"]["interval"]
        assert low <= row["ndcg"]["difference"] <= high
    assert table(record).count("\n| ") == len(GROUPS)


def test_a_run_beside_itself_differs_by_nothing(folder: Path) -> None:
    found = measure(folder / "data" / "interactions.parquet", [folder / "untold"], [folder / "untold"])
    assert all(row[metric]["difference"] == 0 for row in found["groups"] for metric in ("ndcg", "recall", "nll"))


def test_other_seeds_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="same seeds"):
        measure(folder / "data" / "interactions.parquet", [folder / "told"], [folder / "other"])
