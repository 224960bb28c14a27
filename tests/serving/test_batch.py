"""Several users in one request: each gets the answer that they get alone, or nobody gets one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.serving.server_process import LocalServer, event, serving_here

USERS = [f"batch-{place}" for place in range(12)]
WISHES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "filters": {"k": 4, "exclude": ["i00", "i05"], "exclude_seen": False, "attention": True},
    "exploring with a pin": {"k": 6, "strategy": "thompson", "seed": 3, "pin": {2: "i09"}},
    "a spread with boosts": {"k": 5, "diversity": 0.5, "boost_items": {"i07": 3.0}, "categories": ["Toys"]},
}
CHANGING = {"request_id", "latest_event_age_seconds"}


@pytest.fixture(scope="module", autouse=True)
def histories(server: LocalServer) -> None:
    """Users with 0 to 11 events."""
    for place, user in enumerate(USERS):
        events = [event(f"{user}-{n}", user, f"i{(7 * n + place) % 40:02}", 1_600_000_000 + n) for n in range(place)]
        if events:
            server.add(*events)


def batch(server: LocalServer, users: list[Any], **wish: Any) -> dict[str, Any]:
    response = server.client.post("/v1/recommend/batch", json={"users": users, **wish})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def alone(server: LocalServer, user: Any, **wish: Any) -> dict[str, Any]:
    return {name: value for name, value in server.recommend(user, **wish).items() if name not in CHANGING}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Numbers of passes of different sizes differ by rounding."""
    listed, wanted = found.pop("recommendations"), expected.pop("recommendations")
    for number in ("score", "probability", "probability_low", "probability_high"):
        values = [one.pop(number) for one in listed]
        assert values == pytest.approx([one.pop(number) for one in wanted], rel=1e-4, abs=1e-6)
    assert listed == wanted
    assert found.pop("attention", []) == pytest.approx(expected.pop("attention", []), rel=1e-4, abs=1e-5)
    assert found.pop("uncertainty") == pytest.approx(expected.pop("uncertainty"), rel=1e-4, abs=1e-5)
    assert found == expected


@pytest.mark.parametrize("name", WISHES)
def test_each_user_gets_the_answer_that_they_get_alone_in_the_order_asked(server: LocalServer, name: str) -> None:
    asked = [*reversed(USERS), "nobody", USERS[3]]
    answers = batch(server, asked, **WISHES[name])["answers"]
    assert [one["user_id"] for one in answers] == asked
    for user, answer in zip(asked, answers, strict=True):
        found = {field: value for field, value in answer.items() if field not in {*CHANGING, "user_id"}}
        assert_same(found, alone(server, user, **WISHES[name]))


def test_unknown_user_among_others_gets_the_fallback(server: LocalServer) -> None:
    known, unknown = batch(server, [USERS[5], "nobody"])["answers"]
    assert known["fallback"] is None
    assert "unknown user" in unknown["fallback"]


def test_page_of_one_user_of_several_goes_on_alone(server: LocalServer) -> None:
    first = batch(server, USERS[4:6], k=5)["answers"][1]
    second = server.recommend(USERS[5], k=5, page=first["next_page"])
    assert [one["rank"] for one in second["recommendations"]] == [6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"users": []}, "$.users"),
        ({}, "users"),
        ({"users": ["a", 12]}, 'text ("12")'),
        ({"users": ["a"], "k": 1000}, "catalog"),
        ({"users": ["a"], "history": ["i01"]}, "unknown field `history`"),
        ({"users": ["a"], "user_id": "b"}, "unknown field `user_id`"),
        ({"users": ["a"] * 101}, "100 at once"),
        ({"users": ["a"] * 1001}, "1000"),
        ({"users": ["a"] * 100, "k": 201}, "20,000 items"),
        ({"users": ["a", "b"], "candidates": ["nothing like it"]}, "not in the catalog"),
    ],
)
def test_batch_that_is_not_possible_is_refused_as_a_whole(
    server: LocalServer, body: dict[str, Any], words: str
) -> None:
    response = server.client.post("/v1/recommend/batch", json=body)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]


def test_users_of_a_batch_may_be_numbers_as_text(numbered: LocalServer) -> None:
    user = numbered.client.get("/v1/users").json()["users"][0]
    as_text, as_number = batch(numbered, [str(user), user])["answers"]
    assert as_text["recommendations"] == nearly(as_number["recommendations"])
    (texts,) = batch(numbered, [user], ids_as_text=True)["answers"]
    assert texts["user_id"] == str(user)
    assert [one["item_id"] for one in texts["recommendations"]] == [
        str(one["item_id"]) for one in as_number["recommendations"]
    ]


def test_batch_counts_as_many_requests_as_it_has_users(bundle_folder: Path) -> None:
    with serving_here(bundle_folder, rate_limit=1, burst=3, batch_users=8) as server:
        assert server.client.post("/v1/recommend/batch", json={"users": ["a"] * 9}).status_code == 400
        assert len(batch(server, ["a"] * 8)["answers"]) == 8
        refused = server.client.post("/v1/recommend", json={"user_id": "a"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 5


def test_batch_larger_than_the_queue_is_refused(bundle_folder: Path) -> None:
    with serving_here(bundle_folder, queue_length=4) as server:
        assert len(batch(server, ["a"] * 4)["answers"]) == 4
        assert server.client.post("/v1/recommend/batch", json={"users": ["a"] * 5}).status_code == 429


def nearly(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: pytest.approx(value) if isinstance(value, float) else value for name, value in one.items()}
        for one in listed
    ]
