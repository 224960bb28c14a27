"""Events in, and the very next answer reflects them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.serving.server_process import LocalServer, event, serving_here


def ids_of(answer: dict[str, Any]) -> list[str]:
    return [one["item_id"] for one in answer["recommendations"]]


def test_new_event_changes_the_very_next_answer(server: LocalServer) -> None:
    before = server.recommend("ann", k=5)
    assert (before["num_events_used"], before["latest_event"]) == (0, None)
    assert before["fallback"] is not None
    known: list[str] = []
    for number in range(5):
        item = ids_of(server.recommend("ann", k=1))[0]
        assert server.add(event(f"ann-{number}", "ann", item, 1_700_000_000 + number))["accepted"] == 1
        known.append(item)
        after = server.recommend("ann", k=5)
        assert after["num_events_used"] == number + 1
        assert after["fallback"] is None
        assert not set(known) & set(ids_of(after))
    assert after["latest_event"] == "2023-11-14T22:13:24Z"
    now = datetime.now(UTC).timestamp()
    assert after["latest_event_age_seconds"] == pytest.approx(now - 1_700_000_004, abs=60)


def test_answer_about_a_user_is_that_about_the_same_history(server: LocalServer) -> None:
    server.add(*(event(f"same-{place}", "same", f"i0{place}", 1_600_000_000 + place) for place in range(4)))
    wish = {"k": 8, "attention": True}
    by_user, by_history = (
        server.recommend("same", **wish),
        server.recommend(history=["i00", "i01", "i02", "i03"], **wish),
    )
    assert ids_of(by_user) == ids_of(by_history)
    assert by_user["uncertainty"] == pytest.approx(by_history["uncertainty"], abs=0.2)
    assert by_history["latest_event"] is None
    assert len(by_user["attention"]) == 4


def test_time_of_the_next_event_is_told_where_it_is_asked_for(server: LocalServer) -> None:
    server.add(*(event(f"when-{place}", "when", f"i0{place}", 1_600_000_000 + 3_600 * place) for place in range(4)))
    wanted = {"when": {"within": ["1h", "7d"]}}
    found = server.recommend("when", k=2, **wanted)["when"]
    assert "2020-09-13T15:26:40Z" < found["low"] < found["median"] < found["high"]
    assert 0 < found["within"]["1h"] < found["within"]["7d"] <= 1
    later = server.recommend("when", at="2020-09-20T00:00:00Z", when={})["when"]
    assert later["low"] > "2020-09-20"
    assert "when" not in server.recommend("when")
    assert server.recommend("somebody new", **wanted)["when"] is None
    batch = server.client.post("/v1/recommend/batch", json={"users": ["when"], **wanted}).json()
    assert batch["answers"][0]["when"] == found
    for bad in (
        {"user_id": "when", "at": "2020-01-01T00:00:00Z", "when": {}},
        {"user_id": "when", "when": {"within": ["soon"]}},
        {"history": ["i01", "i02"], "when": {}},
    ):
        assert server.client.post("/v1/recommend", json=bad).status_code == 400


def test_same_event_sent_again_is_stored_once(server: LocalServer) -> None:
    one = event("twice-1", "twice", "i03")
    assert server.add(one, one) == {"accepted": 1, "duplicates": 1, "refused": 0, "unknown_items": []}
    assert server.add(one) == {"accepted": 0, "duplicates": 1, "refused": 0, "unknown_items": []}
    assert server.recommend("twice")["num_events_used"] == 1


def test_known_event_id_with_other_content_is_a_conflict_and_nothing_is_stored(server: LocalServer) -> None:
    server.add(event("clash-1", "clash", "i03"))
    batch = [event("clash-2", "clash", "i04"), event("clash-1", "clash", "i05")]
    response = server.client.post("/v1/events", json={"events": batch})
    assert response.status_code == 409
    assert response.json()["error"]["code"] == "conflict"
    assert server.recommend("clash")["num_events_used"] == 1


def test_late_event_is_placed_by_its_time(server: LocalServer) -> None:
    for number, (item, timestamp) in enumerate((("i01", 300), ("i02", 100), ("i03", "1970-01-01T00:03:20Z"))):
        server.add(event(f"late-{number}", "late", item, timestamp))
    shown = server.client.get("/v1/users/late").json()
    assert [one["item_id"] for one in shown["events"]] == ["i02", "i03", "i01"]
    assert shown["events"][1]["timestamp"] == "1970-01-01T00:03:20Z"
    assert server.recommend("late")["latest_event"] == "1970-01-01T00:05:00Z"


def test_item_that_the_model_does_not_know_is_stored_and_told(server: LocalServer) -> None:
    assert server.add(event("new-1", "new", "brand-new"), event("new-2", "new", "i02"))["unknown_items"] == [
        "brand-new"
    ]
    answer = server.recommend("new")
    assert (answer["num_events_used"], answer["num_unknown_items"]) == (1, 1)
    shown = server.client.get("/v1/users/new").json()
    assert [(one["item_id"], one["known"]) for one in shown["events"]] == [("brand-new", False), ("i02", True)]


def test_pages_never_repeat_although_events_arrive_in_between(server: LocalServer) -> None:
    server.add(event("pages-0", "pages", "i00"))
    seen: list[str] = []
    ranks: list[int] = []
    page: dict[str, str] = {}
    for number in range(1, 4):
        answer = server.recommend("pages", k=7, **page)
        seen += ids_of(answer)
        ranks += [one["rank"] for one in answer["recommendations"]]
        page = {"page": answer["next_page"]}
        server.add(event(f"pages-{number}", "pages", f"i1{number}", 1_700_000_100 + number))
    assert len(set(seen)) == len(seen) == 21
    assert ranks == list(range(1, 22))


def test_last_page_has_no_next_one(server: LocalServer) -> None:
    answer = server.recommend(history=["i00"], candidates=["i01", "i02", "i03"], k=2)
    assert answer["next_page"] is not None
    answer = server.recommend(history=["i00"], candidates=["i01", "i02", "i03"], k=2, page=answer["next_page"])
    assert len(answer["recommendations"]) == 1
    assert answer["next_page"] is None


def test_options_hold(server: LocalServer) -> None:
    plain = ids_of(server.recommend(history=["i00", "i05"], k=10))
    assert not set(plain[:3]) & set(ids_of(server.recommend(history=["i00", "i05"], k=10, exclude=plain[:3])))
    assert set(ids_of(server.recommend(history=["i00", "i05"], k=3, candidates=plain[5:8]))) == set(plain[5:8])
    assert ids_of(server.recommend(history=["i00", "i05"], k=3, pin={2: plain[9]}))[1] == plain[9]
    boosted = server.recommend(history=["i00", "i05"], k=3, boost_items={plain[9]: 1000.0})
    assert ids_of(boosted)[0] == plain[9]
    toys = server.recommend(history=["i00", "i05"], k=3, categories=["Toys"])["recommendations"]
    assert all(one["title"].startswith("Toys") for one in toys)
    assert ids_of(server.recommend(history=["i00", "i05"], k=10, diversity=0.9)) != plain
    sampled = [ids_of(server.recommend(history=["i00"], k=10, strategy="thompson", seed=seed)) for seed in (1, 1, 2, 3)]
    assert sampled[0] == sampled[1]
    assert len({tuple(one) for one in sampled}) > 1


def test_answer_says_what_it_is(server: LocalServer) -> None:
    answer = server.recommend(history=["i00", "i01"], k=2)
    assert answer["model_version"] == server.client.get("/ready").json()["model_version"]
    assert set(answer["uncertainty"]) == {"total", "aleatoric", "epistemic"}
    first = answer["recommendations"][0]
    assert set(first) == {
        "item_id",
        "rank",
        "score",
        "probability",
        "probability_low",
        "probability_high",
        "title",
        "source",
        "reasons",
    }
    assert first["probability_low"] <= first["probability"] <= first["probability_high"]
    assert "attention" not in answer
    assert server.recommend(history=["i00"], k=1, reasons=False)["recommendations"][0]["reasons"] == []


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({}, "either user_id or history"),
        ({"user_id": "ann", "history": []}, "not both"),
        ({"user_id": 12}, 'text ("12")'),
        ({"history": [12]}, 'text ("12")'),
        ({"history": [], "k": 0}, "$.k"),
        ({"history": [], "k": 1001}, "$.k"),
        ({"history": [], "k": 10.5}, "$.k"),
        ({"history": [], "k": True}, "$.k"),
        ({"history": [], "kk": 3}, "unknown field `kk`"),
        ({"history": ["i00"] * 10_001}, "10000"),
        ({"user_id": ""}, "$.user_id"),
        ({"history": [], "boost_items": {"i00": 0}}, "$.boost_items"),
        ({"history": [], "boost_items": {"i00": 1001}}, "$.boost_items"),
        ({"history": [], "boost_items": {f"i{n}": 2 for n in range(1001)}}, "$.boost_items"),
        ({"history": [], "pin": {"1": "i00", "2": "i00"}}, "two ranks"),
        ({"history": [], "pin": {str(n): "i00" for n in range(1, 102)}}, "$.pin"),
        ({"history": [], "candidates": ["nothing"]}, "not in the catalog"),
        ({"history": [], "categories": ["nothing"]}, "Toys"),
        ({"history": [], "strategy": "ucb"}, "$.strategy"),
        ({"history": [], "diversity": 1.1}, "$.diversity"),
        ({"history": [], "conformal_level": 0.3}, "$.conformal_level"),
        ({"history": [], "page": "nonsense"}, "no token of this server"),
        ({"history": [], "page": "WyJ4IixbMV1d"}, "Start again"),
    ],
)
def test_what_cannot_be_is_refused_with_one_clear_message(
    server: LocalServer, wish: dict[str, Any], words: str
) -> None:
    response = server.client.post("/v1/recommend", json=wish)
    assert response.status_code == 400
    error = response.json()["error"]
    assert words in error["message"]
    assert error["code"] == "invalid_request"
    assert error["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timestamp": 1_700_000_000_000}, "not milliseconds"),
        ({"timestamp": -1}, "$.events[0].timestamp"),
        ({"timestamp": "2026-11-24T15:00:00"}, "no zone"),
        ({"timestamp": "yesterday at noon"}, "is no time"),
        ({"timestamp": "9999-12-31T23:59:59Z"}, "in the future"),
        ({"timestamp": "1969-12-31T23:59:59Z"}, "before 1970"),
        ({"item_id": 7}, 'text ("12")'),
        ({"event_id": ""}, "event_id"),
        ({"value": "much"}, "value"),
        ({"value": 1e31}, "value"),
        ({"odd": 1}, "unknown field `odd`"),
    ],
)
def test_event_that_cannot_be_is_refused_and_the_batch_with_it(
    server: LocalServer, change: dict[str, Any], words: str
) -> None:
    bad = {**event("bad-1", "bad", "i00"), **change}
    response = server.client.post("/v1/events", json={"events": [bad, event("bad-2", "bad", "i01")]})
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
    assert server.recommend("bad")["num_events_used"] == 0


def test_batch_of_more_than_a_thousand_events_or_of_none_is_refused(server: LocalServer) -> None:
    many = [event(f"many-{number}", "many", "i00", number) for number in range(1001)]
    for events in (many, []):
        assert server.client.post("/v1/events", json={"events": events}).status_code == 400
    assert server.add(*many[:1000])["accepted"] == 1000


def test_times_are_read_in_every_allowed_form(server: LocalServer) -> None:
    forms = [1, 2.5, "1970-01-01T00:00:04Z", "1970-01-01T02:00:05.25+02:00"]
    server.add(*(event(f"forms-{number}", "forms", "i00", form) for number, form in enumerate(forms)))
    shown = server.client.get("/v1/users/forms").json()["events"]
    assert [one["timestamp"] for one in shown] == [
        "1970-01-01T00:00:01Z", "1970-01-01T00:00:02.500000Z", "1970-01-01T00:00:04Z", "1970-01-01T00:00:05.250000Z",
    ]  # fmt: skip


def test_server_draws_lists_apart_where_its_policy_is_a_softmax(bundle_folder: Path) -> None:
    with serving_here(bundle_folder, strategy="softmax", temperature=2.0, uniform_share=0.3) as server:
        answers = [server.recommend(history=["i00"], k=5, reasons=False) for _ in range(8)]
        assert len({tuple(ids_of(one)) for one in answers}) > 1
        for one in answers[0]["recommendations"]:
            assert 0 < one["propensity_at_rank"] < 1
            assert 0 < one["propensity_in_list"] < 1
        for other in ({"strategy": "greedy"}, {"diversity": 0.2}, {"conformal_level": 0.9}):
            greedy = [server.recommend(history=["i00"], reasons=False, **other) for _ in range(2)]
            assert ids_of(greedy[0]) == ids_of(greedy[1])
            assert "propensity_in_list" not in greedy[0]["recommendations"][0]
        batch = server.client.post("/v1/recommend/batch", json={"users": ["new", "newer"], "seed": 3}).json()["answers"]
        assert ids_of(batch[0]) != ids_of(batch[1])
        again = [
            server.client.post("/v1/recommend", json={"history": ["i00"]}, headers={"X-Request-Id": name}).json()
            for name in ("first", "second", "first")
        ]
        assert ids_of(again[0]) == ids_of(again[2]) != ids_of(again[1])
        assert ids_of(batch[1]) == ids_of(server.recommend("newer", seed=3))
