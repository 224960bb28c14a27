"""A server that keeps exposures records each list that it answers, and forgets those of an erased user."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.server_process import LocalServer, event, serving_here
from tests.test_docs import DOCS, python_of
from variseq.events.simulate import Simulation
from variseq.exposures.folder import hashed_user, read_key, segments
from variseq.exposures.history import HistoryDigest, history_hash, rebuild_history
from variseq.exposures.read import read_exposures
from variseq.exposures.records import policy_fields
from variseq.exposures.rewards import RewardOptions

NOW = int(time.time())


@pytest.fixture(scope="module")
def keeping(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server that keeps exposures."""
    with serving_here(bundle_folder, exposures=tmp_path_factory.mktemp("exposures")) as started:
        yield started


def folder_of(server: LocalServer) -> Path:
    log = server.application.services.exposures
    assert log is not None
    return log.folder


def records(server: LocalServer, wanted: Callable[[dict[str, Any]], bool], num: int) -> list[dict[str, Any]]:
    """The records that are wanted, once there are as many; a thread writes them."""
    end = time.monotonic() + 20
    while True:
        lines = [line for path in segments(folder_of(server)) for line in path.read_text().splitlines(keepends=True)]
        found = [record for line in lines if line.endswith("\n") and wanted(record := json.loads(line))]
        if len(found) >= num or time.monotonic() > end:
            assert len(found) == num, found
            return found
        time.sleep(0.01)


def of_list(exposure_id: str) -> Callable[[dict[str, Any]], bool]:
    return lambda record: record["kind"] == "exposure" and record["exposure_id"] == exposure_id


def test_answer_is_recorded_with_what_it_was_made_from(keeping: LocalServer) -> None:
    keeping.add(*(event(f"ann-{number}", "ann", f"i{number:02}", NOW - 100 + number) for number in range(4)))
    answer = keeping.recommend("ann", k=5, pin={"2": "i20"}, exclude_seen=True)
    (record,) = records(keeping, of_list(answer["exposure_id"]), 1)
    assert answer["exposure_id"] == answer["request_id"]
    assert record["item_id"] == [one["item_id"] for one in answer["recommendations"]]
    assert record["log_p"] == pytest.approx([one["score"] for one in answer["recommendations"]], rel=1e-4)
    assert record["policy"] == ["greedy"]
    assert "p_at_rank" not in record
    assert record["filters"] == {"exclude_seen": True, "pin": {"2": "i20"}}
    assert record["model"] == answer["model_version"]
    assert abs(record["time"] / 1e6 - time.time()) < 60


def test_propensities_of_a_drawn_list_are_recorded_as_they_were_answered(keeping: LocalServer) -> None:
    answer = keeping.recommend(
        "ann", k=4, strategy="softmax", temperature=0.5, pool=20, uniform_share=0.1, pin={"2": "i20"}
    )
    (record,) = records(keeping, of_list(answer["exposure_id"]), 1)
    for name in ("propensity_at_rank", "propensity_in_list"):
        answered = [one[name] for one in answer["recommendations"]]
        written = record[name.replace("propensity", "p")]
        assert written == pytest.approx(answered, rel=1e-5)
        assert written[1] == 1.0
    again = dict(zip(policy_fields("softmax"), record["policy"], strict=True))
    repeated = keeping.recommend("ann", k=4, pin={"2": "i20"}, **again)
    assert repeated["recommendations"] == answer["recommendations"]
    exposures, _ = read_exposures(folder_of(keeping))
    number = exposures.exposure_id.index(answer["exposure_id"])
    rows = slice(exposures.offsets[number], exposures.offsets[number + 1])
    assert exposures.is_pinned[rows].tolist() == [False, True, False, False]


def test_history_of_a_list_can_be_built_again_from_the_store(keeping: LocalServer) -> None:
    keeping.add(*(event(f"eve-{number}", "eve", f"i{number:02}", NOW - 90) for number in range(3)))
    answers = [keeping.recommend("eve")["exposure_id"], keeping.recommend("eve")["exposure_id"]]
    keeping.add(event("eve-later", "eve", "i05", NOW - 90), event("eve-last", "eve", "i06", NOW))
    stored = keeping.application.services.store.history("eve")
    rows = [(one.item_id, one.timestamp, one.behavior, one.value) for one in stored]
    key = read_key(folder_of(keeping))
    for exposure_id in answers:
        (record,) = records(keeping, of_list(exposure_id), 1)
        assert record["user"] == hashed_user(key, "eve")
        assert rebuild_history(rows, HistoryDigest(*record["history"]), key) == rows[:3]


def test_each_list_of_a_batch_is_a_record_of_its_own(keeping: LocalServer) -> None:
    response = keeping.client.post("/v1/recommend/batch", json={"users": ["ann", "new", "ann"], "k": 3}).json()
    ids = [one["exposure_id"] for one in response["answers"]]
    assert ids == [f"{response['request_id']}.{number}" for number in range(3)]
    for exposure_id, answer in zip(ids, response["answers"], strict=True):
        (record,) = records(keeping, of_list(exposure_id), 1)
        assert record["item_id"] == [one["item_id"] for one in answer["recommendations"]]


def test_list_for_a_history_that_was_sent_along_is_of_nobody(keeping: LocalServer) -> None:
    answer = keeping.recommend(history=["i01", "unknown", "i02"])
    (record,) = records(keeping, of_list(answer["exposure_id"]), 1)
    rows = [("i01", 0, None, None), ("unknown", 1_000_000, None, None), ("i02", 2_000_000, None, None)]
    digest = [history_hash(rows, read_key(folder_of(keeping))), 3, None]
    assert (record["user"], record["history"]) == (None, digest)


def test_list_that_nobody_is_shown_is_not_recorded(keeping: LocalServer) -> None:
    assert "exposure_id" not in keeping.recommend("ann", k=2, log_exposure=False)
    shown = keeping.recommend("ann", k=2)["exposure_id"]
    batch = keeping.client.post("/v1/recommend/batch", json={"users": ["ann"], "k": 2, "log_exposure": False}).json()
    assert "exposure_id" not in batch["answers"][0]
    # The thread writes records in their order.
    records(keeping, of_list(shown), 1)
    lines = [json.loads(line) for path in segments(folder_of(keeping)) for line in path.read_text().splitlines()]
    assert not [
        one for one in lines if one["kind"] == "exposure" and one["exposure_id"].startswith(batch["request_id"])
    ]


def test_later_page_goes_on_with_its_ranks(keeping: LocalServer) -> None:
    page = keeping.recommend("ann", k=3)["next_page"]
    (record,) = records(keeping, of_list(keeping.recommend("ann", k=3, page=page)["exposure_id"]), 1)
    assert record["first_rank"] == 4
    assert set(record["filters"]) == {"shown"}


def test_request_that_is_sent_again_is_recorded_once(keeping: LocalServer) -> None:
    for _ in range(3):
        keeping.client.post("/v1/recommend", json={"user_id": "ann"}, headers={"X-Request-Id": "again-1"})
    answer = keeping.recommend("ann")
    records(keeping, of_list(answer["exposure_id"]), 1)
    records(keeping, of_list("again-1"), 1)


def test_events_are_recorded_once_with_the_list_that_they_name(keeping: LocalServer) -> None:
    answer = keeping.recommend("bob", k=4)
    item_id = answer["recommendations"][1]["item_id"]
    named = {**event("bob-1", "bob", item_id, int(time.time()) + 1), "exposure_id": answer["exposure_id"], "rank": 2}
    assert keeping.add(named)["accepted"] == 1
    assert keeping.add(named, event("bob-2", "bob", "i00", NOW)) == {
        "accepted": 1, "duplicates": 1, "refused": 0, "unknown_items": []
    }  # fmt: skip
    shown = {"exposure_id": answer["exposure_id"], "ranks": [1, 2]}
    assert keeping.client.post("/v1/shown", json=shown).json() == {"accepted": True}
    records(keeping, lambda one: one.get("event_id") in ("bob-1", "bob-2"), 2)
    records(keeping, lambda one: one["kind"] == "shown", 1)
    exposures, report = read_exposures(folder_of(keeping), options=RewardOptions({"event": 2.0}, only_shown=True))
    assert exposures.exposure_id == [answer["exposure_id"]]
    assert exposures.reward.tolist() == [0.0, 2.0]
    assert report.events["joined by the list"] == 1


def test_exposures_of_an_erased_user_are_gone_and_others_stay(keeping: LocalServer) -> None:
    keeping.add(event("carl-1", "carl", "i00", NOW - 5))
    gone, stays = keeping.recommend("carl")["exposure_id"], keeping.recommend("dora")["exposure_id"]
    keeping.client.post("/v1/shown", json={"exposure_id": gone, "ranks": [1]})
    records(keeping, lambda one: gone in str(one) or one.get("event_id") == "carl-1", 3)
    assert keeping.client.delete("/v1/users/carl").json() == {"erased_events": 1, "verified": True}
    user = hashed_user(read_key(folder_of(keeping)), "carl")
    records(keeping, lambda one: gone in str(one) or user in str(one), 0)
    records(keeping, of_list(stays), 1)
    later = keeping.recommend("carl")["exposure_id"]
    (record,) = records(keeping, of_list(later), 1)
    assert record["history"][1] == 0


def test_metrics_count_what_was_written(keeping: LocalServer) -> None:
    (record,) = records(keeping, of_list(keeping.recommend("ann")["exposure_id"]), 1)
    text = keeping.client.get("/metrics").text
    (written,) = re.findall(r'variseq_exposures_total\{kind="exposure",outcome="written"\} (\S+)', text)
    assert record
    assert float(written) >= 1


def test_effective_number_of_drawn_items_follows_from_metrics(keeping: LocalServer) -> None:
    def sums() -> np.ndarray:
        text = keeping.client.get("/metrics").text
        names = ("variseq_inverse_propensities_total", "variseq_inverse_propensity_squares_total")
        return np.array([float(re.findall(rf"^{name} (\S+)", text, re.MULTILINE)[0]) for name in names])

    before = sums()
    keeping.recommend("ann", k=4)
    np.testing.assert_array_equal(sums(), before)
    drawn = keeping.recommend("ann", k=4, strategy="softmax", seed=1)["recommendations"]
    inverse = np.array([1 / one["propensity_in_list"] for one in drawn])
    np.testing.assert_allclose(sums() - before, [inverse.sum(), (inverse**2).sum()])


def test_visitors_of_the_guide_send_events_that_are_joined(
    bundle_folder: Path, shop: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = python_of(DOCS / "how-to" / "from-shown-to-better.md")
    with serving_here(bundle_folder, exposures=tmp_path) as server:
        for given, here in (("8000", str(server.port)), ("num_users=2000, num_items=300, seed=7", "")):
            assert given in code
            code = code.replace(given, here)
        monkeypatch.setattr("sys.argv", ["visitors.py", "1"])
        monkeypatch.setattr("variseq.simulate", lambda options: shop)
        exec(code, {})
        num_people = shop.options.num_users
        records_of = records(server, lambda record: record["kind"] == "exposure", num_people)
    exposures, report = read_exposures(tmp_path)
    assert exposures.num_exposures == len(records_of) == num_people
    assert report.events == {"joined by the list": report.lines["event"]}
    assert report.behaviors["view"] > report.behaviors["purchase"] > 0


def test_server_without_exposures_says_so(server: LocalServer) -> None:
    assert "exposure_id" not in server.recommend("ann")
    response = server.client.post("/v1/shown", json={"exposure_id": "x", "ranks": [1]})
    assert response.status_code == 400
    assert "--exposures" in response.json()["error"]["message"]
    named = {**event("named-1", "named", "i00", NOW), "exposure_id": "x", "rank": 1}
    assert server.add(named)["accepted"] == 1


@pytest.mark.parametrize(
    "shown", [{"exposure_id": "x", "ranks": [0]}, {"exposure_id": "", "ranks": []}, {"ranks": [1]}]
)
def test_confirmation_that_is_none_is_refused(keeping: LocalServer, shown: dict[str, Any]) -> None:
    assert keeping.client.post("/v1/shown", json=shown).status_code == 400
