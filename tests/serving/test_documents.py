"""What the server says of itself: the API's document, pages, headers, metrics and log lines."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.serving.server_process import LocalServer, event
from variseq.serving.app import API
from variseq.serving.openapi import docs_page, openapi

PAGES = ["/health", "/v1/model", "/docs", "/explore", "/openapi.json", "/nothing", "/metrics"]


@pytest.fixture(scope="module")
def document(server: LocalServer) -> dict[str, Any]:
    answer: dict[str, Any] = server.client.get("/openapi.json").json()
    return answer


def references_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references_in, value.values()))
    return set().union(*map(references_in, value)) if isinstance(value, list) else set()


def test_document_has_every_operation_with_its_answers_and_errors(document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(one.method, one.path) for one in API}
    events = document["paths"]["/v1/events"]["post"]
    assert {*events["responses"]} == {"200", "400", "401", "403", "408", "409", "413", "415", "429", "500", "503"}
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["paths"]["/health"]["get"]["security"] == []
    assert document["openapi"] == "3.1.0"


def test_every_reference_of_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references_in(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place


def test_schemas_are_strict_and_bounded(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("RecommendRequest", "EventsRequest", "EventInput", "HistoryEvent", "ModelRequest"):
        assert schemas[name]["additionalProperties"] is False
    assert schemas["RecommendRequest"]["properties"]["k"] == {
        "type": "integer", "minimum": 1, "maximum": 1000, "default": 10,
    }  # fmt: skip
    assert schemas["EventsRequest"]["properties"]["events"]["maxItems"] == 1000


def test_page_of_documentation_names_every_operation_and_type_and_takes_nothing_from_elsewhere() -> None:
    page = docs_page(openapi(API)).decode()
    for one in API:
        assert one.path in page
    assert "RecommendRequest" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", page)


def test_every_answer_has_security_headers_and_no_other_site_may_frame_it(server: LocalServer) -> None:
    for path in PAGES:
        headers = server.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert "server" not in headers


def test_personal_data_is_stored_nowhere_on_its_way(server: LocalServer) -> None:
    server.add(event("private-1", "private", "i00"))
    for response in (
        server.client.get("/v1/users/private"),
        server.client.get("/v1/users"),
        server.client.post("/v1/recommend", json={"user_id": "private"}),
    ):
        assert response.headers["cache-control"] == "no-store"


def test_explorer_is_served_whole_under_a_strict_policy(server: LocalServer) -> None:
    page = server.client.get("/explore")
    assert server.client.get("/").content == page.content
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    for path in set(re.findall(r"(?:src|href)=\"(explore/[^\"]+)\"", page.text)):
        assert server.client.get(f"/{path}").status_code == 200, path
    assert server.client.get("/explore/explore.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "path",
    ["/explore/../app.py", "/explore/..%2fapp.py", "/explore/%2e%2e/app.py", "/explore//etc/passwd", "/explore/%00",
     "/explore/index.html", "/explore/....//app.py", "/explore\\..\\app.py"],
)  # fmt: skip
def test_no_file_is_served_but_those_read_at_the_start(server: LocalServer, path: str) -> None:
    """CVE-2023-51449, CVE-2024-1561 and their kind: a path of a client is never joined to a folder."""
    from tests.serving.raw_http import answer_to, head, status_of

    assert status_of(answer_to(server.port, [head("GET", path)])) in (400, 404)


def test_range_is_ignored(server: LocalServer) -> None:
    """CVE-2025-62727: no answer is cut by a header of the client."""
    ranges = "bytes=" + ",".join(f"{n}-{n}" for n in range(1000))
    response = server.client.get("/explore", headers={"range": ranges})
    assert response.status_code == 200


def test_request_id_is_kept_where_it_is_plain_and_made_where_not(server: LocalServer) -> None:
    assert server.client.get("/health", headers={"x-request-id": "shop-7"}).headers["x-request-id"] == "shop-7"
    for odd in ("a b", "x" * 65, '"}{', "", "a_b", "%0a"):
        made = server.client.get("/health", headers={"x-request-id": odd}).headers["x-request-id"]
        assert made != odd
        assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", made)
    ids = {server.client.get("/health").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_each_request_is_one_line_of_json(server: LocalServer) -> None:
    server.client.get("/v1/items?search=toys", headers={"x-request-id": "logged-1"})
    end = time.monotonic() + 5
    while not (lines := [one for one in server.log() if one.get("request_id") == "logged-1"]):
        assert time.monotonic() < end
    assert set(lines[0]) == {"time", "level", "request_id", "method", "route", "status", "milliseconds"}
    assert (lines[0]["method"], lines[0]["route"], lines[0]["status"]) == ("GET", "/v1/items", 200)


def test_metrics_tell_routes_latency_queue_batches_cache_model_and_memory(server: LocalServer) -> None:
    server.recommend(history=["i00"])
    server.add(event("counted", "counted", "i00", 1_600_000_000))
    text = server.client.get("/metrics").text
    for name in (
        'variseq_requests_total{method="POST",route="/v1/recommend",status="200"}',
        'variseq_request_seconds_bucket{le="0.005",route="/v1/recommend"}',
        "variseq_queue_length",
        "variseq_batch_size_count",
        "variseq_cache_bytes",
        "variseq_store_errors_total 0.0",
        'variseq_model_info{version="',
        "variseq_resident_memory_bytes",
        'variseq_events_total{outcome="accepted"}',
    ):
        assert name in text, name


def test_unknown_paths_are_one_label_of_the_metrics(server: LocalServer) -> None:
    for number in range(20):
        server.client.get(f"/nothing/{number}")
    text = server.client.get("/metrics").text
    assert 'route="unmatched",status="404"' in text
    assert "/nothing" not in text


def test_items_and_the_model_are_shown(server: LocalServer) -> None:
    found = server.client.get("/v1/items", params={"search": "toys", "limit": 3}).json()["items"]
    assert len(found) == 3
    assert all("toys" in one["title"].lower() for one in found)
    similar = server.client.get("/v1/items/i00/similar", params={"k": 4}).json()["items"]
    assert len(similar) == 4
    assert "i00" not in [one["item_id"] for one in similar]
    assert server.client.get("/v1/items/nothing/similar").status_code == 404
    assert len(server.client.get("/v1/items/map").json()["items"]) == 40
    assert server.client.get("/v1/model").json()["model_version"] == server.recommend(history=[])["model_version"]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "odd=1", "limit=1&limit=2", "limit", "search=%FF", "search=" + "x" * 1025],
)
def test_odd_query_is_refused(server: LocalServer, query: str) -> None:
    response = server.client.get(f"/v1/items?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_request"
