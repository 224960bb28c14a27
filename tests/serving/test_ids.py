"""Ids by every interface of HTTP: as numbers, as text, exactly as they are, and up to one length."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.serving.conftest import LARGE
from tests.serving.server_process import LocalServer, event
from variseq.events.vocabulary import MAX_ID_BYTES

LONG = "https://news.example.org/" + "ü" * 487 + "x"
ODD_IDS = [
    "p/q/r",
    "100%",
    "p%2Fq",
    "🛒",
    " blanks around ",
    "null",
    "NaN",
    "\ufeffi00",
    "a\tb\nc",
    "?k=1#x",
    "..",
    "similar",
    "map",
    "007",
    LONG,
]


def get(server: LocalServer, path: str, **query: Any) -> dict[str, Any]:
    response = server.client.get(path, params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def lists(answer: dict[str, Any]) -> list[tuple[Any, float]]:
    return [(int(one["item_id"]), one["probability"]) for one in answer["recommendations"]]


def test_number_and_its_digits_are_one_id(numbered: LocalServer) -> None:
    wishes = [
        {"user_id": LARGE, "exclude": [LARGE + 1], "pin": {2: LARGE + 3}},
        {"user_id": LARGE, "candidates": [LARGE + place for place in range(20)], "boost_items": {str(LARGE + 2): 9.0}},
        {"history": [LARGE + 5, LARGE + 6], "exclude_seen": False},
        {"history": [{"item_id": LARGE + 5, "timestamp": 100}, {"item_id": LARGE + 6, "timestamp": 200}]},
    ]
    for wish in wishes:
        assert lists(numbered.recommend(**wish)) == lists(numbered.recommend(**as_text(wish)))


def as_text(wish: Any) -> Any:
    """The same with text in place of each large number."""
    if isinstance(wish, dict):
        return {name: as_text(value) for name, value in wish.items()}
    if isinstance(wish, list):
        return [as_text(value) for value in wish]
    return str(wish) if isinstance(wish, int) and wish >= LARGE else wish


def test_events_with_ids_as_text_are_those_of_the_numbers(numbered: LocalServer) -> None:
    user, item = str(LARGE + 700), str(LARGE + 3)
    unknown = str(LARGE + 999_999)
    response = numbered.client.post(
        "/v1/events",
        json={"events": [event("t-1", user, item), event("t-2", user, unknown)], "ids_as_text": True},
    )
    assert response.json()["unknown_items"] == [unknown]
    # Sent again as numbers they are the same events.
    again = numbered.add(event("t-1", LARGE + 700, LARGE + 3), event("t-2", LARGE + 700, LARGE + 999_999))  # type: ignore[arg-type]
    assert (again["accepted"], again["duplicates"], again["unknown_items"]) == (0, 2, [LARGE + 999_999])
    shown = get(numbered, f"/v1/users/{user}")
    assert (shown["user_id"], shown["events"][0]["item_id"]) == (LARGE + 700, LARGE + 3)


def test_every_answer_gives_ids_as_text_where_that_is_asked(numbered: LocalServer) -> None:
    answer = numbered.recommend(LARGE, ids_as_text=True)
    assert [one["item_id"] for one in answer["recommendations"]] == [
        str(one["item_id"]) for one in numbered.recommend(LARGE)["recommendations"]
    ]
    user = get(numbered, f"/v1/users/{LARGE}", ids_as_text="true")
    assert user["user_id"] == str(LARGE)
    assert all(isinstance(one["item_id"], str) for one in user["events"])
    assert str(LARGE) in get(numbered, "/v1/users", prefix=str(LARGE), ids_as_text="true")["users"]
    for path in ("/v1/items", "/v1/items/map", f"/v1/items/{LARGE}/similar"):
        as_numbers, texts = get(numbered, path)["items"], get(numbered, path, ids_as_text="true")["items"]
        assert [one["item_id"] for one in texts] == [str(one["item_id"]) for one in as_numbers]


@pytest.mark.parametrize("spelling", ["007", "+7", " 7", "7.0", "7e0", "-0", "", "9223372036854775808", "ü", "٧"])
def test_text_that_is_not_just_the_number_is_refused(numbered: LocalServer, spelling: str) -> None:
    response = numbered.client.post("/v1/recommend", json={"history": [spelling]})
    assert response.status_code == 400
    if spelling:
        assert numbered.client.get(f"/v1/users/{quote(spelling, safe='')}").status_code == 400


def test_digits_stay_text_where_ids_are_text(server: LocalServer) -> None:
    server.add(event("d-1", "12", "i01"), event("d-2", "012", "i02"))
    assert get(server, "/v1/users/12")["num_events"] == 1
    assert get(server, "/v1/users/012")["events"][0]["item_id"] == "i02"
    assert server.client.post("/v1/recommend", json={"user_id": 12}).status_code == 400


@pytest.mark.parametrize("odd", ODD_IDS)
def test_odd_id_is_kept_exactly_as_it_was_given(server: LocalServer, odd: str) -> None:
    path = "/v1/users/" + "".join(f"%{byte:02X}" for byte in odd.encode())
    server.add(event(f"odd {odd}"[:200], odd, odd), event(f"odd 2 {odd}"[:200], odd, "i01", 1_700_000_001))
    shown = get(server, path)
    assert shown["user_id"] == odd
    assert [one["item_id"] for one in shown["events"]] == [odd, "i01"]
    assert odd in get(server, "/v1/users", prefix=odd)["users"]
    answer = server.recommend(odd)
    assert (answer["num_events_used"], answer["num_unknown_items"], answer["fallback"]) == (1, 1, None)
    assert server.client.delete(path).json() == {"erased_events": 2, "verified": True}
    assert server.client.get(path).status_code == 404


def test_event_with_an_empty_value_or_behavior_or_without_one_is_kept(server: LocalServer) -> None:
    one = event("v-1", "valueless", "i01", 1, value=None, event=None)
    other = event("v-2", "valueless", "i02", 2)
    assert server.add(one, other)["accepted"] == 2
    shown = get(server, "/v1/users/valueless")["events"]
    assert [(one["value"], one["event"]) for one in shown] == [(None, None), (None, None)]


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"user_id": "u"}',
        b'{"user_id": NaN}',
        b'{"history": [{"item_id": "i01", "timestamp": 1, "value": NaN}]}',
        b'{"history": [{"item_id": "i01", "timestamp": Infinity}]}',
        b'{"history": [{"item_id": "i01", "timestamp": 4102444800}]}',
        b'{"history": [{"item_id": "i01", "timestamp": 5}, {"item_id": "i01"}]}',
        b'{"history": [null]}',
        b'{"user_id": 12.0}',
        b'{"user_id": "\\ud800"}',
        b"null",
    ],
)
def test_what_is_no_json_or_cannot_be_is_refused(server: LocalServer, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = server.client.post("/v1/recommend", content=body, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")


def test_id_is_at_most_so_many_bytes(server: LocalServer) -> None:
    longest, longer = "ü" * (MAX_ID_BYTES // 2), "ü" * (MAX_ID_BYTES // 2) + "x"
    server.add(event(longest, longest, longest))
    assert get(server, f"/v1/users/{quote(longest)}")["num_events"] == 1
    for body in ({"user_id": longer}, {"history": [longer]}, {"history": [], "exclude": [longer]}):
        response = server.client.post("/v1/recommend", json=body)
        assert (response.status_code, f"{MAX_ID_BYTES:,} bytes" in response.text) == (400, True)
    for fields in ((longer, "u", "i01"), ("e", longer, "i01"), ("e", "u", longer)):
        assert server.client.post("/v1/events", json={"events": [event(*fields)]}).status_code == 400
    assert server.client.get(f"/v1/users/{quote(longer)}").status_code == 400
