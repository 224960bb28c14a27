"""Items over HTTP: recommended at once, durable, the same for every worker, after a restart and for another model."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.server_process import LocalServer, event, serving_here
from tests.serving.test_swapping import another_version
from variseq.artifacts.catalog_changes import read_changes
from variseq.artifacts.folder import CHANGES

ODD = "n'\"2\n<é>/?#"


@pytest.fixture
def run(bundle_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder, tmp_path / "served"))


@pytest.fixture
def server(run: Path) -> Iterator[LocalServer]:
    with serving_here(run) as started:
        yield started


def change(server: LocalServer, method: str, status: int = 200, **body: Any) -> dict[str, Any]:
    response = server.client.request(method, "/v1/items", json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def shown(server: LocalServer, **options: Any) -> dict[str, str]:
    """Every item of the whole list, and its source."""
    answer = server.recommend(**{"history": ["i00"], "k": 40, "exclude_seen": False, **options})
    return {one["item_id"]: one["source"] for one in answer["recommendations"]}


def test_added_item_is_recommended_by_the_next_answer_and_removed_from_it(server: LocalServer) -> None:
    server.add(event("e1", "anna", "i01"), event("e2", "anna", "n1", 1_700_000_100))
    assert server.recommend("anna")["num_unknown_items"] == 1
    given = [{"item_id": "n1", "title": "New toy", "categories": ["Toys"]}, {"item_id": ODD, "text": "a new book"}]
    answer = change(server, "POST", items=given)
    assert {name: answer[name] for name in ("added", "updated", "removed", "unchanged")} == {
        "added": 2, "updated": 0, "removed": 0, "unchanged": 0,
    }  # fmt: skip
    assert shown(server, new_items_share=0.05).items() >= {"n1": "content", ODD: "content"}.items()
    assert server.recommend("anna")["num_unknown_items"] == 0
    added = server.client.get("/v1/items/added?start=1&limit=5").json()
    assert ([one["item_id"] for one in added["items"]], added["num_added"]) == ([ODD], 2)
    assert server.client.get("/v1/items/n1/similar").status_code == 200
    assert change(server, "POST", items=given)["unchanged"] == 2
    assert change(server, "DELETE", item_ids=["n1", "i03"])["removed"] == 2
    assert change(server, "DELETE", item_ids=["n1", "i03"])["unchanged"] == 2
    assert not {"n1", "i03"} & {*shown(server, pin={1: "i03"})}
    assert server.client.get("/v1/items/i03/similar").status_code == 404


def test_update_shows_in_search_and_the_answer(server: LocalServer) -> None:
    assert change(server, "POST", items=[{"item_id": "i05", "title": "Renamed", "categories": ["Fresh"]}])["updated"]
    assert server.client.get("/v1/items?search=renamed").json()["items"][0]["item_id"] == "i05"
    assert list(shown(server, categories=["Fresh"])) == ["i05"]


def test_everything_can_be_removed_and_the_server_still_answers(server: LocalServer) -> None:
    change(server, "DELETE", item_ids=[f"i{number:02}" for number in range(40)])
    assert shown(server) == {}
    assert server.client.get("/v1/items/map").json()["items"] == []


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("POST", {"items": [{"item_id": "a"}, {"item_id": "a"}]}, 400),
        ("POST", {"items": []}, 400),
        ("POST", {"items": [{"item_id": 7}]}, 400),
        ("POST", {"items": [{"item_id": ""}]}, 400),
        ("POST", {"items": [{"item_id": "a", "vectors": {"v": ["x"]}}]}, 400),
        ("POST", {"items": [{"item_id": "a", "title": "x" * 70_000}]}, 400),
        ("POST", {"items": [{"item_id": f"a{number}"} for number in range(1001)]}, 400),
        ("POST", {"items": [{"item_id": "a", "path": "/etc/passwd"}]}, 400),
        ("DELETE", {"item_ids": ["never heard of"]}, 400),
        ("DELETE", {"item_ids": ["x" * 600_000]}, 413),
    ],
)
def test_bad_request_is_one_error_and_changes_nothing(
    server: LocalServer, run: Path, method: str, body: dict[str, Any], status: int
) -> None:
    error = change(server, method, status, **body)["error"]
    assert "\n" not in error["message"]
    assert not (run / CHANGES).exists()
    assert len(shown(server)) == 40


def test_changes_hold_after_a_restart_and_a_swap_and_for_a_model_that_knows_the_item(
    bundle_folder: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        another_version(bundle_folder, tmp_path / name)
    with serving_here(tmp_path / "first", model_dir=tmp_path) as server:
        change(server, "POST", items=[{"item_id": "n1", "title": "New", "vectors": {"odd": [1, 2]}}])
        change(server, "DELETE", item_ids=["i03"])
        assert server.client.post("/v1/admin/model", json={"model_name": "second"}).status_code == 200
        assert "n1" in shown(server, new_items_share=0.02)
        assert "i03" not in shown(server)
    with serving_here(tmp_path / "first", model_dir=tmp_path) as server:
        assert "n1" in shown(server, new_items_share=0.02)
        # What this model knows from its training is its own, with the title that was given.
        (tmp_path / CHANGES).write_text(
            json.dumps({"items": [{"item_id": "i04", "title": "Kept", "texts": {"text": "x"}}]})
        )
        deadline = time.monotonic() + 20
        while server.client.get("/v1/items?search=kept").json()["items"] == [] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert shown(server)["i04"] == "events"
        assert server.client.get("/v1/items/added").json()["num_added"] == 0


def test_workers_that_write_at_once_lose_nothing_and_follow_each_other(run: Path) -> None:
    with serving_here(run) as one, serving_here(run) as other:

        def send(server: LocalServer, name: str) -> None:
            for number in range(5):
                change(server, "POST", items=[{"item_id": f"{name}{number}"}])

        threads = [threading.Thread(target=send, args=pair) for pair in ((one, "a"), (other, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(read_changes(run).items) == 10
        deadline = time.monotonic() + 20
        for server in (one, other):
            while server.client.get("/v1/items/added").json()["num_added"] < 10 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert server.client.get("/v1/items/added").json()["num_added"] == 10


def test_damaged_file_is_refused_and_the_one_before_goes_on(server: LocalServer, run: Path) -> None:
    change(server, "POST", items=[{"item_id": "n1"}])
    (run / CHANGES).write_text("{")
    deadline = time.monotonic() + 20
    while not server.client.get("/ready").json()["problems"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert CHANGES in server.client.get("/ready").json()["problems"][0]
    assert "n1" in shown(server, new_items_share=0.02)
    assert str(run) not in change(server, "POST", 409, items=[{"item_id": "n2"}])["error"]["message"]
