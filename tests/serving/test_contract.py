"""One request in Python, on the command line and over HTTP is one answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.server_process import LocalServer, serving_here
from tests.terminal.invoke import succeed
from variseq.estimator import VariationalAttention, load
from variseq.events.simulate import Simulation
from variseq.serving.stores.transfer import import_run

NUMBERS = ("score", "probability", "probability_low", "probability_high")
POSTERIORS = {"total": "uncertainty", "aleatoric": "aleatoric", "epistemic": "epistemic"}


@pytest.fixture(scope="module")
def server(bundle_folder: Path, run_folder: Path) -> Iterator[LocalServer]:
    """A server of the run, with its histories."""
    with serving_here(bundle_folder) as running:
        import_run(running.application.services.store, run_folder, "yes")
        yield running


@pytest.fixture(scope="module")
def model(run_folder: Path) -> VariationalAttention:
    return load(run_folder, device="cpu")


REQUESTS: dict[str, dict[str, Any]] = {
    "a user": {"user_id": "u000"},
    "a history": {"history": ["i03", "i01"]},
    "nobody known": {"user_id": "nobody"},
    "filters": {"user_id": "u002", "k": 4, "exclude": ["i00", "i05"], "exclude_seen": False},
    "exploring": {"user_id": "u003", "strategy": "thompson", "seed": 7},
    "drawn": {"user_id": "u009", "k": 4, "strategy": "softmax", "seed": 6, "uniform_share": 0.2, "pin": {1: "i11"}},
    "a spread": {"user_id": "u004", "diversity": 0.5},
    "a set": {"user_id": "u005", "conformal_level": 0.6},
    "boosts and pins": {"user_id": "u006", "k": 6, "boost_items": {"i07": 3.0}, "pin": {2: "i09"}},
    "exploring with pins": {"user_id": "u007", "k": 6, "strategy": "thompson", "seed": 3, "pin": {2: "i09"}},
    "all at once": {
        "user_id": "u008",
        "strategy": "thompson",
        "seed": 5,
        "diversity": 0.4,
        "boost_items": {"i07": 3.0},
        "pin": {1: "i11"},
    },
    "at a time": {"user_id": "u001", "at": "2026-11-24T15:00:00Z"},
    "at a second": {"user_id": "u001", "at": 1_795_000_000},
}


def words_of(body: dict[str, Any]) -> list[str]:
    """The same request on the command line."""
    words = []
    for name, value in body.items():
        if name == "exclude_seen":
            words.append("--exclude-seen" if value else "--include-seen")
        else:
            pairs = [f"{key}={one}" for key, one in value.items()] if isinstance(value, dict) else value
            text = ",".join(pairs) if isinstance(pairs, list) else str(pairs)
            words += ["-k" if name == "k" else "--user" if name == "user_id" else f"--{name.replace('_', '-')}", text]
    return words


@pytest.mark.parametrize("name", REQUESTS)
def test_one_request_is_one_answer_by_every_interface(
    server: LocalServer, model: VariationalAttention, run_folder: Path, name: str
) -> None:
    body = REQUESTS[name]
    users = [body["user_id"]] if "user_id" in body else None
    options = {name: value for name, value in body.items() if name != "user_id"}
    called = model.recommend(users=users, **options).to_dicts()
    printed = json.loads(succeed("recommend", run_folder, *words_of(body), "--json").out)
    answer = server.client.post("/v1/recommend", json=body).json()
    served = answer["recommendations"]
    for found in (printed, served):
        assert [row["item_id"] for row in found] == [row["item_id"] for row in called]
        assert [row["rank"] for row in found] == [row["rank"] for row in called]
        assert [row["title"] for row in found] == [row["title"] for row in called]
        assert [row["reasons"] for row in found] == [list(row["reasons"]) for row in called]
        for number in NUMBERS:
            expected = [row[number] for row in called]
            assert [row[number] for row in found] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    entropies = [
        called[0][number] for number in ("uncertainty_total", "uncertainty_aleatoric", "uncertainty_epistemic")
    ]
    assert [answer["uncertainty"][kind] for kind in ("total", "aleatoric", "epistemic")] == pytest.approx(
        entropies, abs=1e-3
    )
    assert answer["fallback"] == called[0]["fallback"]


def test_history_that_is_sent_with_its_times_is_answered_as_that_of_the_user(server: LocalServer) -> None:
    events = server.client.get("/v1/users/u001").json()["events"]
    sent = [{name: one[name] for name in ("item_id", "timestamp", "event", "value")} for one in events]
    asked, known = ({"history": sent, "k": 5}, {"user_id": "u001", "k": 5})
    one, other = (server.client.post("/v1/recommend", json=body).json()["recommendations"] for body in (asked, known))
    assert one == other


HISTORIES: dict[str, list[Any]] = {
    "items": ["i03", "i01", "i07"],
    "times": [{"item_id": "i01", "timestamp": 1_700_090_000}, {"item_id": "i03", "timestamp": 1_700_000_000}],
    "times as text": [
        {"item_id": "i03", "timestamp": "2024-01-02T10:00:00Z"},
        {"item_id": "i01", "timestamp": "2024-02-02T12:00:00.5+02:00"},
    ],
    "behaviors and values": [
        {"item_id": "i03", "timestamp": 1_700_000_000, "event": "purchase", "value": 12.5},
        {"item_id": "i01", "timestamp": 1_700_500_000, "event": "never heard of", "value": None},
    ],
    "vast values": [{"item_id": "i03", "value": 1e30}, {"item_id": "i01", "value": -1e30}],
    "no times": [{"item_id": "i03", "event": "purchase", "value": 12.5}, {"item_id": "i01"}],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_one_history_is_one_answer_in_python_and_over_http(
    server: LocalServer, model: VariationalAttention, name: str
) -> None:
    called = model.recommend(history=HISTORIES[name], k=8).to_pandas()
    served = server.recommend(history=HISTORIES[name], k=8)["recommendations"]
    assert [row["item_id"] for row in served] == called["item_id"].tolist()
    for number in NUMBERS:
        assert [row[number] for row in served] == pytest.approx(called[number].tolist(), rel=1e-4, abs=1e-5)
    assert [row["reasons"] for row in served] == [list(reasons) for reasons in called["reasons"]]


def test_times_behaviors_and_values_of_a_history_count(model: VariationalAttention) -> None:
    scores = [
        model.recommend(history=HISTORIES[name], k=30, exclude_seen=False)
        .to_pandas()
        .set_index("item_id")["score"]
        .to_dict()
        for name in ("times", "behaviors and values", "no times")
        for scored in [model.recommend(history=HISTORIES[name], k=30, exclude_seen=False)]
    ]
    assert scores[0] != scores[1]
    assert scores[1] != scores[2]


def test_history_of_the_log_in_python_is_answered_as_that_of_the_user(
    model: VariationalAttention, shop: Simulation
) -> None:
    log = shop.events().to_pandas()
    of_user = log[log["user_id"] == "u001"].drop(columns="user_id")
    known = model.recommend(users=["u001"], k=8).to_pandas()
    for history in (of_user, of_user.to_dict("records")):
        found = model.recommend(history=history, k=8).to_pandas()
        assert found["item_id"].tolist() == known["item_id"].tolist()
        np.testing.assert_allclose(found["probability"], known["probability"], rtol=1e-5)


def test_history_of_ids_and_events_is_refused(server: LocalServer) -> None:
    mixed = ["i01", {"item_id": "i02", "timestamp": 1_700_000_000}]
    response = server.client.post("/v1/recommend", json={"history": mixed})
    assert response.status_code == 400
    assert "Send all as ids, or all as events" in response.json()["error"]["message"]
