"""A run that learned from exposures ranks what is rewarded higher, and is written where that is no chance."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from tests.exposures.lists import SECOND, START, event, write
from tests.terminal.invoke import refuse, succeed, variseq
from variseq.estimator import load
from variseq.export import export
from variseq.exposures.folder import make_key
from variseq.exposures.history import HistoryDigest, history_hash
from variseq.exposures.read import read_exposures
from variseq.exposures.records import ExposureRecord
from variseq.exposures.rewards import RewardOptions
from variseq.inference.engine import load_engine
from variseq.off_policy.logged import logged_lists
from variseq.off_policy.logged_pools import pools_of
from variseq.ranking.engine import Engine, Request
from variseq.ranking.options import RecommendOptions
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import Event
from variseq.terminal.ope import run_policy

NUM_USERS, LISTS = 100, 20
SOFTMAX: dict[str, Any] = {"strategy": "softmax", "temperature": 1.5, "pool": 40, "uniform_share": 0.5, "k": 4}


@pytest.fixture(scope="module")
def rewarded(engine: Engine) -> list[str]:
    """Two items that people buy whenever they are listed; nothing else is bought."""
    return engine.vocabulary.item_ids([7, 23])


@pytest.fixture(scope="module")
def log(engine: Engine, rewarded: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What a server would have logged, and the URL of its store."""
    folder = tmp_path_factory.mktemp("rewards")
    url = f"sqlite:///{folder / 'events.db'}"
    exposures = folder / "exposures"
    exposures.mkdir()
    key, records, stored = make_key(exposures), [], []
    items, random = engine.vocabulary.items.to_pylist(), np.random.default_rng(1)
    for user in (f"u{number}" for number in range(NUM_USERS)):
        rows = [(items[random.integers(len(items))], START + second * SECOND, None, None) for second in range(3)]
        stored += [Event(f"{user}-{time}", user, item, time) for item, time, _, _ in rows]
        history, digest = engine.history(rows, user), HistoryDigest(history_hash(rows, key), 3, rows[-1][1])
        asked = [RecommendOptions(**SOFTMAX, seed=seed, reasons=False) for seed in range(LISTS)]
        for number, answer in enumerate(engine.answer([(history, Request(one)) for one in asked])):
            name, time = f"{user}.{number}", START + 100 * SECOND + number
            listed = answer.recommendations
            records.append(ExposureRecord(name, time, user, digest, "m1", asked[number], listed))
            records += [
                event(f"{name}-{item}", item, time + 1, user, behavior="purchase", exposure_id=name)
                for item in listed.item_id
                if item in rewarded
            ]
    write(exposures, *records)
    store = open_store(url)
    store.append(stored)
    store.close()
    return exposures, url


def listed(model: Any, items: list[str], **options: Any) -> float:
    """How many of some items a list has, over lists of people of the log."""
    users = model.vocabulary.user_ids(range(40))
    table = model.recommend(users=users, k=4, exclude_seen=False, **options).to_pandas()
    return float(table["item_id"].isin(items).sum() / len(users))


@pytest.mark.unchecked
def test_better_run_lists_what_is_rewarded_and_forecasts_as_before(
    run_folder: Path,
    log: tuple[Path, str],
    rewarded: list[str],
    tmp_path: Path,
) -> None:
    exposures, url = log
    out = tmp_path / "better"
    printed = succeed(
        *("improve", str(run_folder), str(exposures), "--store", url, "--out", str(out)),
        *("--reward", "purchase=1"),
    )
    assert "Most up: " in printed.out
    base, better = load(run_folder), load(out)
    assert listed(better, rewarded) > listed(base, rewarded) + 0.3
    record = json.loads((out / "manifest.json").read_text())["improvement"]
    assert record["difference"]["interval"][0] > 0
    assert record["num_lists"]["held out"] > 0
    pairs = [model.recommend(users=["u001"], k=40, exclude_seen=False).to_pandas() for model in (base, better)]
    first, second = (pair.set_index("item_id")["probability"].sort_index() for pair in pairs)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    sets = [
        model.recommend(users=["u001"], conformal_level=0.6).to_pandas()["item_id"].tolist() for model in (base, better)
    ]
    assert sets[0] == sets[1]
    served = load_engine(export(out, tmp_path / "export"))
    known = served.history([(item, START, None, None) for item in rewarded[:1]])
    (answer,) = served.answer([(known, Request(RecommendOptions(k=6)))])
    expected = better.recommend(history=[{"item_id": rewarded[0], "timestamp": START / 1e6}], k=6)
    assert answer.recommendations.item_id == expected.item_id


def written_anew(exposures: Path, folder: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Path:
    """A copy of a folder of exposures with other lines."""
    folder.mkdir()
    shutil.copy(exposures / "user_hash.key", folder)
    for segment in exposures.glob("*.jsonl"):
        lines = change([json.loads(line) for line in segment.read_text().splitlines()])
        (folder / segment.name).write_text("".join(json.dumps(one) + "\n" for one in lines))
    return folder


def stays(exposures: Path, folder: Path, is_long: Callable[[list[str]], bool]) -> Path:
    """Half of the lists, an hour apart. After a long one people stay for twenty minutes, after others for one."""

    def change(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        lists, events = [one for one in lines if one["kind"] == "exposure"][::2], []
        for number, one in enumerate(lists):
            one["time"] = START + (number + 1) * 3600 * SECOND
            minutes = 20 if is_long(one["item_id"]) else 1
            events.append(
                {
                    "kind": "event", "event_id": f"s{number}", "time": one["time"] + minutes * 60 * SECOND,
                    "user": one["user"], "item_id": one["item_id"][0], "behavior": "view", "value": None,
                }
            )  # fmt: skip
        return lists + events

    return written_anew(exposures, folder, change)


@pytest.mark.unchecked
def test_run_learns_from_rewards_of_whole_lists(
    run_folder: Path, log: tuple[Path, str], rewarded: list[str], tmp_path: Path
) -> None:
    exposures, out = stays(log[0], tmp_path / "stays", lambda items: bool(set(items) & set(rewarded))), tmp_path / "out"
    command = ("improve", str(run_folder), str(exposures), "--store", log[1], "--out", str(out))
    printed = succeed(*command, "--dwell-within", "30m")
    assert "by the whole-list SNIPS estimate" in printed.out
    assert listed(load(out), rewarded) > listed(load(run_folder), rewarded) + 0.1
    record = json.loads((out / "manifest.json").read_text())["improvement"]
    assert record["dwell_within"] == "30m"
    assert record["difference"]["interval"][0] > 0
    assert "strength" not in record


@pytest.mark.unchecked
def test_rewards_of_lists_by_chance_write_nothing(run_folder: Path, log: tuple[Path, str], tmp_path: Path) -> None:
    random, out = np.random.default_rng(3), tmp_path / "better"
    exposures = stays(log[0], tmp_path / "stays", lambda items: bool(random.random() < 0.5))
    command = ("improve", str(run_folder), str(exposures), "--store", log[1], "--out", str(out))
    result = variseq(*command, "--dwell-within", "30m")
    assert result.code == 1
    assert "Nothing was written" in result.out
    assert not out.exists()


def test_rewards_of_lists_that_another_policy_drew_are_refused(
    run_folder: Path, log: tuple[Path, str], tmp_path: Path
) -> None:
    def colder(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for one in lines:
            one["p_at_rank"] = [0.5 * p for p in one["p_at_rank"]]
        return lines

    exposures = written_anew(
        stays(log[0], tmp_path / "stays", bool),
        tmp_path / "colder",
        lambda lines: (
            colder([one for one in lines if one["kind"] == "exposure"][:400])
            + [one for one in lines if one["kind"] == "event"]
        ),
    )
    command = ("improve", str(run_folder), str(exposures), "--store", log[1], "--out", str(tmp_path / "better"))
    refuse("other probabilities than those that were logged", *command, "--dwell-within", "30m")


def test_kinds_of_rewards_exclude_each_other(run_folder: Path, log: tuple[Path, str], tmp_path: Path) -> None:
    command = ("improve", str(run_folder), str(log[0]), "--store", log[1], "--out", str(tmp_path / "better"))
    refuse("exclude each other", *command, "--reward", "purchase=1", "--return-within", "7d")


@pytest.mark.unchecked
def test_certain_difference_that_diagnostics_refuse_is_written_only_on_demand(
    run_folder: Path, log: tuple[Path, str], tmp_path: Path
) -> None:
    few = written_anew(
        log[0], tmp_path / "few", lambda lines: [one for one in lines if int(one["exposure_id"].split(".")[1]) < 5]
    )
    out = tmp_path / "better"
    command = ("improve", str(run_folder), str(few), "--store", log[1], "--out", str(out), "--reward", "purchase=1")
    result = variseq(*command)
    assert result.code == 1
    assert "Refused: The effective sample" in result.out
    assert not out.exists()
    assert "Refused" in succeed(*command, "--even-if-uncertain").out
    assert json.loads((out / "manifest.json").read_text())["improvement"]["difference"]["refusal"]


@pytest.mark.unchecked
def test_rewards_by_chance_write_nothing(run_folder: Path, log: tuple[Path, str], tmp_path: Path) -> None:
    exposures, url = log
    random = np.random.default_rng(3)

    def bought(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        lists = [one for one in lines if one["kind"] == "exposure"]
        return lists + [
            {
                "kind": "event", "event_id": f"p{number}", "time": one["time"], "user": one["user"],
                "item_id": one["item_id"][random.integers(4)], "behavior": "purchase", "value": None,
                "exposure_id": one["exposure_id"],
            }
            for number, one in enumerate(lists) if random.random() < 0.3
        ]  # fmt: skip

    copy = written_anew(exposures, tmp_path / "exposures", bought)
    result = variseq("improve", str(run_folder), str(copy), "--store", url, "--out", str(tmp_path / "better"))
    assert result.code == 1
    assert "Nothing was written" in result.out
    assert not (tmp_path / "better").exists()


def test_evidence_of_rewards_does_not_depend_on_their_unit(run_folder: Path, log: tuple[Path, str]) -> None:
    found = []
    for unit in (1.0, 60.0):
        every, _ = read_exposures(log[0], options=RewardOptions({"purchase": unit}))
        some = every.exposures(np.arange(0, every.num_exposures, 20))
        policy = run_policy(str(run_folder), some, log[0], log[1], {}, Progress(disable=True))
        found.append(pools_of(policy, logged_lists(some), Counter())[0])
    purchases, seconds = found
    np.testing.assert_allclose(seconds.reward, purchases.reward)
    np.testing.assert_allclose(seconds.gain, 60 * purchases.gain)
    assert set(np.unique(purchases.reward)) == {0.0, 1.0}


def test_exposures_of_another_catalog_are_refused(run_folder: Path, log: tuple[Path, str], tmp_path: Path) -> None:
    def renamed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for one in lines:
            item = one["item_id"]
            one["item_id"] = [f"x{name}" for name in item] if isinstance(item, list) else f"x{item}"
        return lines

    copy = written_anew(log[0], tmp_path / "exposures", renamed)
    refuse(
        "another catalog", "improve", str(run_folder), str(copy), "--store", log[1], "--out", str(tmp_path / "better")
    )
    assert not (tmp_path / "better").exists()


def test_exposures_without_rewards_are_refused(run_folder: Path, log: tuple[Path, str], tmp_path: Path) -> None:
    exposures, url = log
    command = ("improve", str(run_folder), str(exposures), "--store", url, "--out", str(tmp_path / "better"))
    refuse("too few to learn from", *command, "--reward", "click=1")
