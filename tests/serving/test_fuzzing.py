"""Whatever is sent, the answer is one of the API's: never a failure of the server, never a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.raw_http import answer_to
from tests.serving.server_process import LocalServer, serving_here

plain = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
numbers = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0, -1, 2**63, 2**64, 1e308])
)
ids = st.sampled_from(["i00", "i39", "u1", "", "\x00", "ü", "x" * 1024]) | st.text(max_size=20) | st.integers()
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
past = st.fixed_dictionaries(
    {"item_id": ids},
    optional={"timestamp": numbers | st.datetimes().map(str), "event": st.text(max_size=5), "value": numbers},
)
WISHES: dict[str, st.SearchStrategy[Any]] = {
    "user_id": ids,
    "history": st.lists(ids, max_size=20) | st.lists(past, max_size=5),
    "k": st.integers(-1, 1001),
    "exclude": st.lists(ids, max_size=5),
    "candidates": st.lists(ids, max_size=5),
    "categories": st.just(["Toys"]) | st.lists(st.text(max_size=5), max_size=3),
    "exclude_seen": st.booleans(),
    "strategy": st.sampled_from(["thompson", "greedy", "softmax"]),
    "seed": st.integers(-1, 2**33),
    "diversity": st.floats(-0.1, 1.1),
    "conformal_level": st.floats(0.4, 1.0),
    "boost_items": st.dictionaries(ids.map(str), numbers, max_size=3),
    "boost_categories": st.dictionaries(st.sampled_from(["Toys", "none"]), numbers, max_size=3),
    "pin": st.dictionaries(st.integers(0, 50).map(str), ids, max_size=4),
    "page": st.text(max_size=30),
    "reasons": st.booleans(),
    "ids_as_text": st.booleans(),
    "attention": st.booleans(),
}  # fmt: skip
wish = st.fixed_dictionaries({}, optional={name: of_kind | anything for name, of_kind in WISHES.items()})
good_wish = st.fixed_dictionaries(
    {"history": st.lists(st.sampled_from([f"i{n:02}" for n in range(40)]), max_size=30), "k": st.integers(1, 40)},
    optional={
        name: WISHES[name]
        for name in ("exclude_seen", "reasons", "attention", "diversity", "conformal_level", "pin", "boost_items")
    },
)
one_event = st.fixed_dictionaries(
    {
        "event_id": ids,
        "user_id": ids,
        "item_id": ids,
        "timestamp": numbers | st.text(max_size=30) | st.datetimes().map(str),
    },
    optional={"event": st.text(max_size=10) | anything, "value": numbers | anything, "odd": anything},
)


@pytest.fixture(scope="module")
def fuzzed(bundle_folder: Path) -> Iterator[LocalServer]:
    with serving_here(bundle_folder) as server:
        yield server
        assert not [line for line in server.log() if "trace" in line]


def check(response: httpx.Response) -> None:
    assert response.status_code < 500, response.text
    assert "Traceback" not in response.text
    if response.status_code != 200 and response.request.method != "HEAD":
        assert set(response.json()) == {"error"}


def check_post(server: LocalServer, path: str, content: str | bytes) -> None:
    check(server.client.post(path, content=content, headers={"content-type": "application/json"}))


@plain
@given(body=wish | good_wish | anything)
def test_any_wish_is_answered_or_refused(fuzzed: LocalServer, body: Any) -> None:
    check_post(fuzzed, "/v1/recommend", json.dumps(body))


@plain
@given(users=st.lists(ids, max_size=5) | anything, body=wish | good_wish)
def test_any_batch_is_answered_or_refused(fuzzed: LocalServer, users: Any, body: Any) -> None:
    check_post(fuzzed, "/v1/recommend/batch", json.dumps({**body, "users": users}))


@plain
@given(events=st.lists(one_event, max_size=5))
def test_any_events_are_stored_or_refused(fuzzed: LocalServer, events: list[Any]) -> None:
    check_post(fuzzed, "/v1/events", json.dumps({"events": events}))


@plain
@given(raw=st.binary(max_size=300))
def test_any_bytes_as_a_body_are_answered_or_refused(fuzzed: LocalServer, raw: bytes) -> None:
    check_post(fuzzed, "/v1/events", raw)


@plain
@given(
    method=st.sampled_from(["GET", "DELETE", "POST", "PUT", "HEAD", "OPTIONS"]),
    parts=st.lists(
        st.sampled_from(["v1", "users", "items", "similar", "admin", "model", "map"]) | st.text(max_size=10)
    ),
    query=st.text(max_size=30),
)
def test_any_path_is_answered_or_refused(fuzzed: LocalServer, method: str, parts: list[str], query: str) -> None:
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    check(fuzzed.client.request(method, f"{path}?{quote(query, safe='=&%')}"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: b"POST /v1/events HTTP/1.1\r\n" + tail))
def test_any_bytes_on_the_wire_leave_the_server_well(fuzzed: LocalServer, raw: bytes) -> None:
    answer = answer_to(
        fuzzed.port, [raw + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"]
    )
    assert not answer or int(answer.split(b" ", 2)[1]) < 500
    assert fuzzed.client.get("/health").status_code == 200
