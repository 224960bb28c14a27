"""`variseq fit --exposures` and `variseq evaluate --exposures` on a table of impressions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from tests.terminal.invoke import refuse, succeed
from tests.terminal.shop import quick_fit
from variseq.ranking.mixture import SCORE_OFFSET

SHORT = ["--set", "training.max_epochs=1", "--set", "training.num_refits=1"]


@pytest.fixture(scope="module")
def shown(shop_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each event a list of the taken item, three others, and one that nobody had.

    Half of the items are shown beside others far more often than they are taken.
    """
    events, random = pd.read_csv(shop_file), np.random.default_rng(0)
    items = events["item_id"].unique()
    rejected = items[::2]
    lists = [[item, *random.choice(rejected, 3), "never"] for item in events["item_id"]]
    length = len(lists[0])
    table = pd.DataFrame(
        {
            "exposure_id": np.repeat(np.arange(len(events)), length),
            "user_id": np.repeat(events["user_id"].to_numpy(), length),
            "item_id": [item for one in lists for item in one],
            "timestamp": np.repeat(events["timestamp"].to_numpy(), length),
            "reward": np.tile([1] + [0] * (length - 1), len(events)),
        }
    )
    path = tmp_path_factory.mktemp("shown") / "shown.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def runs(shop_file: Path, shown: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs by what they have of the lists; beside each stands what its fit printed."""
    folder = tmp_path_factory.mktemp("with-lists")
    table, events = pd.read_csv(shown), pd.read_csv(shop_file)
    last = events.sort_values(["user_id", "timestamp"]).groupby("user_id").tail(1).index
    table[~table["exposure_id"].isin(last)].to_csv(folder / "earlier.csv", index=False)
    of_run = {"none": [], "all": ["--exposures", shown], "earlier": ["--exposures", folder / "earlier.csv"]}
    for name, more in of_run.items():
        out = succeed(*quick_fit(shop_file, folder / name, *SHORT, *more)).out
        (folder / f"{name}.txt").write_text(out)
    return {name: folder / name for name in of_run}


def test_fit_states_what_became_of_every_row(runs: dict[str, Path]) -> None:
    out = " ".join(runs["all"].with_name("all.txt").read_text().split())
    assert re.search(r"Exposures: [\d,]+ rows of [\d,]+ lists: [\d,]+ taken, [\d,]+ not taken", out)
    assert "not taken, of an item that is not in the log" in out
    assert re.search(r"learned from [\d,]+ lists of the training part. On 80 lists of the validation part", out)


def test_weights_and_forecasts_are_those_of_an_ordinary_fit(runs: dict[str, Path]) -> None:
    for name in ("weights.safetensors", "metrics.jsonl"):
        ordinary, with_lists = (read_without_times(runs[one] / name) for one in ("none", "all"))
        assert ordinary == with_lists
    calibration = [json.loads((runs[one] / "manifest.json").read_text())["calibration"] for one in ("none", "all")]
    assert calibration[0] == calibration[1]


def read_without_times(path: Path) -> object:
    if path.suffix == ".safetensors":
        return path.read_bytes()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in one.items() if "second" not in name} for one in records]


def test_only_lists_before_the_test_part_are_learned_from(runs: dict[str, Path]) -> None:
    every, earlier = (load_file(runs[one] / "counts.safetensors") for one in ("all", "earlier"))
    assert SCORE_OFFSET in every
    assert np.array_equal(every[SCORE_OFFSET], earlier[SCORE_OFFSET])


def test_evaluate_ranks_the_lists_of_the_test_part_with_offsets_and_without(
    runs: dict[str, Path], shown: Path, tmp_path: Path
) -> None:
    record = tmp_path / "lists.json"
    words = ["evaluate", runs["all"], "--exposures", shown, "--compare-with", runs["none"], "--json", record]
    assert "80 lists of the test part" in succeed(*words).out, "one list for each user's last event"
    rows = {row["model"]: row for row in json.loads(record.read_text())["rows"]}
    run, plain = str(runs["all"]), str(runs["none"])
    assert set(rows) == {run, f"{run}, without offsets", plain, "popular", "recent-popular"}
    assert rows[plain]["auc"] == rows[f"{run}, without offsets"]["auc"] != rows[run]["auc"]
    assert all(0 < row[name] < 1 for row in rows.values() for name in ("ndcg@10", "ndcg@5", "mrr", "auc"))


def test_exposures_with_what_they_cannot_go_with_are_refused(
    shop_file: Path, shown: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    items = shop_file.with_name("shop-items.csv")
    private = ["fit", shop_file, "--out", tmp_path / "run", "--private", 1, "--items", items, "--exposures", shown]
    refuse("--exposures cannot go with --private", *private)
    refuse("--targets is not for --exposures", "evaluate", runs["none"], "--exposures", shown, "--targets", "all")
    other = tmp_path / "other.csv"
    pd.read_csv(shown).assign(item_id="elsewhere").to_csv(other, index=False)
    refuse("another catalog", *quick_fit(shop_file, tmp_path / "run", "--exposures", other))
    first = tmp_path / "first.csv"
    pd.read_csv(shown).groupby("user_id").head(5).to_csv(first, index=False)
    message = "are of the training part, and 0 of the validation part"
    refuse(message, *quick_fit(shop_file, tmp_path / "run", "--exposures", first))
    assert not (tmp_path / "run").exists()
