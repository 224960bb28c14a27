"""A user who is erased is gone from the store, from memory and from the logs, and does not come back."""

from __future__ import annotations

from tests.serving.server_process import LocalServer, event


def test_erased_user_is_gone_and_verified(server: LocalServer) -> None:
    server.add(*(event(f"gone-{number}", "gone", "i00", 1000 + number) for number in range(3)))
    assert server.recommend("gone")["num_events_used"] == 3
    response = server.client.delete("/v1/users/gone")
    assert (response.status_code, response.json()) == (200, {"erased_events": 3, "verified": True})
    assert server.recommend("gone")["num_events_used"] == 0
    assert server.client.get("/v1/users/gone").status_code == 404
    assert "gone" not in server.client.get("/v1/users?prefix=gone").json()["users"]


def test_event_from_before_the_erasure_does_not_come_back(server: LocalServer) -> None:
    one = event("back-1", "back", "i00")
    server.add(one)
    server.client.delete("/v1/users/back")
    assert server.add(one) == {"accepted": 0, "duplicates": 0, "refused": 1, "unknown_items": []}
    assert server.recommend("back")["num_events_used"] == 0


def test_erasing_twice_and_erasing_nobody_are_well(server: LocalServer) -> None:
    for _ in range(2):
        response = server.client.delete("/v1/users/never-seen")
        assert response.json() == {"erased_events": 0, "verified": True}


def test_path_that_is_no_text_is_refused(server: LocalServer) -> None:
    assert server.client.get("/v1/users/%FF").status_code == 400
    assert server.client.get("/v1/users/").status_code == 404
    assert server.client.get("/v1/users/" + "x" * 1025).status_code == 400
