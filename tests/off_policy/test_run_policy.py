"""The policy of a run at exposures of a server: histories are proved, and probabilities are those of its lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.exposures.lists import SECOND, START, event, write
from tests.terminal.invoke import succeed, variseq
from variseq.errors import InputError
from variseq.exposures.folder import hashed_user, make_key
from variseq.exposures.history import HistoryDigest, history_hash
from variseq.exposures.read import read_exposures
from variseq.exposures.records import ExposureRecord
from variseq.exposures.table import Exposures
from variseq.off_policy.evaluation import evaluate_policies
from variseq.off_policy.logged import logged_lists
from variseq.off_policy.run_policy import NO_FILTERS, NO_HISTORY, NO_OPTIONS, NO_USER, RunPolicy
from variseq.ranking.engine import Engine, Request
from variseq.ranking.options import RecommendOptions
from variseq.sequences.given_history import HistoryRow
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import Event

NUM_USERS, VISITS = 60, 4
SOFTMAX: dict[str, Any] = {"strategy": "softmax", "temperature": 0.7, "pool": 15, "uniform_share": 0.2, "k": 4}


@pytest.fixture(scope="module")
def histories(engine: Engine) -> dict[str, list[HistoryRow]]:
    """Eight events of each user with different items, two in each second."""
    random = np.random.default_rng(1)
    items = engine.vocabulary.items.to_pylist()
    return {
        f"u{user}": [
            (items[item], START + number // 2 * SECOND, None, None)
            for number, item in enumerate(random.permutation(len(items))[:8].tolist())
        ]
        for user in range(NUM_USERS)
    }


@pytest.fixture(scope="module")
def folder(engine: Engine, histories: dict[str, list[HistoryRow]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server would have logged: lists at several lengths of each history, and an event that follows."""
    folder = tmp_path_factory.mktemp("exposures")
    key, records = make_key(folder), []
    for number in range(NUM_USERS * VISITS):
        user = f"u{number // VISITS}"
        rows = histories[user][: 2 * (number % VISITS)]
        pin = {2: engine.vocabulary.items[number % 5].as_py()} if number % 3 == 0 else {}
        options = RecommendOptions(**SOFTMAX, seed=number, pin=pin)
        history = engine.history(rows, user)
        (answer,) = engine.answer([(history, Request(options))])
        assert not isinstance(answer, InputError)
        digest = HistoryDigest(history_hash(rows, key), len(rows), rows[-1][1] if rows else None)
        exposure_id, time = f"e{number:03}", START + 100 * SECOND + number
        listed = answer.recommendations
        records.append(ExposureRecord(exposure_id, time, user, digest, "m1", options, listed))
        records.append(event(f"v{number}", listed.item_id[number % 4], time + 1, user, exposure_id=exposure_id))
    write(folder, *records)
    return folder


@pytest.fixture(scope="module")
def exposures(folder: Path) -> Exposures:
    return read_exposures(folder)[0]


def policy(
    engine: Engine, histories: dict[str, list[HistoryRow]], folder: Path, name: str = "run", **options: Any
) -> RunPolicy:
    key = make_key(folder)
    users = {hashed_user(key, user): rows for user, rows in histories.items()}
    return RunPolicy(name, engine, RecommendOptions(**SOFTMAX | options), users.get, key)


def test_run_that_made_the_log_has_weights_of_1(
    engine: Engine, histories: dict[str, list[HistoryRow]], folder: Path, exposures: Exposures
) -> None:
    lists = logged_lists(exposures)
    assert lists.exposures.is_pinned.any()
    found = policy(engine, histories, folder).probabilities(lists)
    assert found.left_out == {}
    # Scores have 32 bits, and their last digits depend on what is ranked in one pass.
    assert found.at_rank == pytest.approx(exposures.propensity_at_rank, rel=1e-5)
    assert found.in_list == pytest.approx(exposures.propensity_in_list, rel=1e-5)


def test_expected_rewards_are_those_of_enumerated_items(
    engine: Engine, histories: dict[str, list[HistoryRow]], folder: Path, exposures: Exposures
) -> None:
    lists = logged_lists(exposures)
    found = policy(engine, histories, folder).probabilities(lists)
    assert found.expected is not None
    ones = np.ones((1, len(exposures.item_ids)))
    lengths = found.expected(ones, np.zeros(exposures.num_exposures, dtype=np.int64))
    assert lengths == pytest.approx(np.full(exposures.num_exposures, 4.0), abs=1e-8)


def test_expected_next_item_is_the_logged_one_with_its_probability(
    engine: Engine, histories: dict[str, list[HistoryRow]], folder: Path, exposures: Exposures
) -> None:
    lists = logged_lists(exposures)
    for strategy in ("softmax", "greedy"):
        found = policy(engine, histories, folder, strategy=strategy).probabilities(lists)
        assert found.expected_next is not None
        is_drawn = ~exposures.is_pinned
        for rank in range(4):
            row = exposures.offsets[:-1] + rank
            one_each = np.eye(len(exposures.item_ids))
            chance = found.expected_next(one_each, rank)[np.arange(len(row)), exposures.item[row]]
            # An item that was never logged has the mean of all, so it adds a little to each.
            above = found.at_rank[row] + 1 / len(exposures.item_ids)
            is_possible = is_drawn[row] & (np.add.reduceat(found.at_rank == 0, exposures.offsets[:-1]) == 0)
            assert (chance[is_possible] >= found.at_rank[row][is_possible] - 1e-9).all()
            assert (chance[is_possible] <= above[is_possible]).all()


def test_greedy_run_shows_its_best_items_and_nothing_else(
    engine: Engine, histories: dict[str, list[HistoryRow]], folder: Path, exposures: Exposures
) -> None:
    lists = logged_lists(exposures)
    found = policy(engine, histories, folder, strategy="greedy").probabilities(lists)
    key = make_key(folder)
    users = {hashed_user(key, user): user for user in histories}
    for number in range(0, exposures.num_exposures, 7):
        assert exposures.context is not None
        user, context = users[str(exposures.user[number])], exposures.context[number]
        rows = histories[user][: context["history"].num_events]
        pin = {int(rank): item for rank, item in context["filters"].get("pin", {}).items()}
        options = RecommendOptions(k=4, pin=pin)
        (answer,) = engine.answer([(engine.history(rows), Request(options))])
        assert not isinstance(answer, InputError)
        best = answer.recommendations.item_id
        rows_of_list = slice(exposures.offsets[number], exposures.offsets[number + 1])
        logged = [exposures.item_ids[item] for item in exposures.item[rows_of_list]]
        assert found.in_list[rows_of_list].tolist() == [float(item in best) for item in logged]
        is_first = np.cumprod([a == b for a, b in zip(logged, best, strict=True)]).astype(bool)
        assert (np.cumprod(found.at_rank[rows_of_list]) > 0).tolist() == is_first.tolist()


def test_lists_whose_context_is_not_proved_are_left_out_and_counted(
    engine: Engine, histories: dict[str, list[HistoryRow]], folder: Path, exposures: Exposures
) -> None:
    assert exposures.context is not None
    contexts = [dict(one) for one in exposures.context]
    contexts[0]["filters"] = {"candidates": "00ff"}
    contexts[1]["history"] = replace(contexts[1]["history"], hash="00" * 8)
    contexts[2]["filters"] = {"pin": {"1": "no such item"}}
    users: list[str | None] = [*exposures.user]
    users[3] = None
    lists = logged_lists(replace(exposures, context=contexts, user=users))
    some = {user: rows for user, rows in histories.items() if user != "u9"}
    found = policy(engine, some, folder).probabilities(lists)
    assert found.left_out == {NO_FILTERS: 1, NO_HISTORY: 1, NO_OPTIONS: 1, NO_USER: 1 + VISITS}
    is_known = lists.per_exposure(np.isnan(found.in_list).astype(float)) == 0
    assert is_known.sum() == exposures.num_exposures - 4 - VISITS
    result = evaluate_policies(lists.exposures, [policy(engine, some, folder)], num_resamples=20)
    assert result.num_exposures == exposures.num_exposures - 4 - VISITS


def test_exposures_of_another_catalog_and_tables_without_histories_are_errors(
    engine: Engine, histories: dict[str, list[HistoryRow]], folder: Path, exposures: Exposures
) -> None:
    run = policy(engine, histories, folder)
    others = replace(exposures, item_ids=[f"other {one}" for one in range(len(exposures.item_ids))])
    with pytest.raises(InputError, match="another catalog"):
        run.probabilities(logged_lists(others))
    with pytest.raises(InputError, match="the history before each list"):
        run.probabilities(logged_lists(replace(exposures, context=None)))


def test_command_evaluates_a_run_with_the_histories_of_a_store(
    run_folder: Path, histories: dict[str, list[HistoryRow]], folder: Path, tmp_path: Path
) -> None:
    address = f"sqlite:///{tmp_path / 'events.db'}"
    store = open_store(address)
    for user, rows in histories.items():
        store.append([Event(f"{user}-{n}", user, row[0], row[1]) for n, row in enumerate(rows)])
    store.close()
    run = str(run_folder)
    done = succeed("ope", folder, "--policy", run, "--policy", "logged", "--store", address)
    assert "240 lists with 960 items of 60 people" in done.out
    assert "the same as the logging policy" in done.out
    other = variseq("ope", folder, "--policy", run, "--store", address, "--strategy", "greedy")
    assert "lists" in other.out
    assert variseq("ope", folder, "--policy", run).code == 2


@pytest.fixture(scope="module")
def shop_table(
    histories: dict[str, list[HistoryRow]], exposures: Exposures, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The lists without pins as a shop's own table, whose times say how long histories were, and the log of events."""
    path, key = tmp_path_factory.mktemp("shop"), make_key(folder)
    users = {hashed_user(key, user): user for user in histories}
    assert exposures.context is not None
    row = exposures.row_exposure
    length = np.array([one["history"].num_events for one in exposures.context])
    # Each second has two events, and a list of the moment of an event is from before it.
    time = START + length // 2 * SECOND
    shown = pd.DataFrame(
        {
            "exposure_id": np.array(exposures.exposure_id)[row],
            "user_id": [users[str(exposures.user[one])] for one in row.tolist()],
            "item_id": [exposures.item_ids[one] for one in exposures.item.tolist()],
            "timestamp": pd.to_datetime(time[row], unit="us", utc=True),
            "rank": exposures.rank,
            "reward": exposures.reward,
            "propensity_at_rank": exposures.propensity_at_rank,
            "propensity_in_list": exposures.propensity_in_list,
        }
    )
    has_pin = np.bincount(row, weights=exposures.is_pinned) > 0
    shown[~has_pin[row]].to_parquet(path / "shown.parquet")
    events = [(user, one[0], one[1]) for user, rows in histories.items() for one in rows]
    log = pd.DataFrame(events, columns=["user_id", "item_id", "timestamp"])
    log.assign(timestamp=pd.to_datetime(log.timestamp, unit="us", utc=True)).to_parquet(path / "log.parquet")
    return path / "shown.parquet", path / "log.parquet"


def test_histories_of_a_log_are_the_events_before_each_list(
    run_folder: Path, shop_table: tuple[Path, Path], tmp_path: Path
) -> None:
    shown, log = shop_table
    as_logged = [f"--{name.replace('_', '-')}={SOFTMAX[name]}" for name in ("strategy", "temperature", "pool")]
    words = ["ope", shown, "--policy", run_folder, "--histories", log, *as_logged, "--uniform-share=0.2"]
    done = succeed(*words, "--out", tmp_path)
    num_lists = pd.read_parquet(shown)["exposure_id"].nunique()
    assert f"{num_lists} lists" in done.out
    assert "no hash proves" in done.out
    record = json.loads((tmp_path / "ope.json").read_text(encoding="utf-8"))
    (policy,) = record["policies"]
    assert policy["left_out"] == {}
    # With any other history the weights of the policy that made the log would not be 1.
    item, cascade = policy["diagnostics"]["item"], policy["diagnostics"]["cascade"]
    assert (item["mean"], item["standard_error"]) == pytest.approx((1.0, 0.0), abs=1e-5)
    assert cascade["effective_sample"] == pytest.approx(num_lists, abs=1e-3)
    assert str(log) in record["histories"]


def test_histories_of_other_people_and_of_a_server_are_errors(
    run_folder: Path, shop_table: tuple[Path, Path], folder: Path, tmp_path: Path
) -> None:
    shown, log = shop_table
    others = pd.read_parquet(log)
    others.assign(user_id=others.user_id + "x").to_parquet(tmp_path / "others.parquet")
    for words, message in (
        ([shown, "--histories", tmp_path / "others.parquet"], "same user ids"),
        ([folder, "--histories", log], "--histories is for a table"),
        ([shown], "with --histories"),
    ):
        done = variseq("ope", *words, "--policy", run_folder)
        assert done.code == 2
        assert message in " ".join(done.err.split())
