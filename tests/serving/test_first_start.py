"""A run is served as it is: exported by a child process, its histories taken into an empty store."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.server_process import serving
from tests.terminal.invoke import refuse
from variseq.events.simulate import Simulation
from variseq.serving.stores.transfer import run_rows

WITHOUT_TORCH = """
import asyncio, sys, threading
from pathlib import Path
import httpx
from variseq.serving.app import Application
from variseq.serving.telemetry import LogWriter
from variseq.serving.settings import serve_settings

async def main():
    settings = serve_settings({"run": sys.argv[1], "store": "memory://"}, {})
    async with Application(settings, LogWriter()).running() as middleware:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(middleware), base_url="http://localhost") as client:
            response = await client.post("/v1/recommend", json={"history": ["i00"]})
            assert response.status_code == 200, response.text
    loaded = sorted(name for name in sys.modules if name.split(".")[0] == "torch" or name == "variseq.estimator")
    print(loaded)

asyncio.run(main())
"""


def test_server_never_loads_torch(bundle_folder: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(bundle_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def own_run(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run that may be exported into."""
    folder = tmp_path_factory.mktemp("runs") / "own"
    shutil.copytree(run_folder, folder)
    return folder


@pytest.mark.slow
def test_run_is_exported_and_its_histories_are_known(own_run: Path, shop: Simulation, tmp_path: Path) -> None:
    with serving(tmp_path, own_run) as server:
        assert (own_run / "encoder.onnx").is_file()
        num_events = shop.events().num_rows
        *preparing, imported, _ = server.said
        assert preparing[0].startswith("Preparing the model")
        assert preparing[-1].startswith("The model was prepared in ")
        assert imported.startswith(f"Imported {num_events:,} events")
        user = shop.events().column("user_id")[0].as_py()
        shown = server.client.get(f"/v1/users/{user}").json()
        mine = [row for row in shop.events().to_pylist() if row["user_id"] == user]
        mine.sort(key=lambda row: row["timestamp"])
        assert [one["item_id"] for one in shown["events"]] == [row["item_id"] for row in mine]
        assert [one["event"] for one in shown["events"]] == [row["event"] for row in mine]
        server.client.delete(f"/v1/users/{user}")
        last = shop.events().column("user_id")[-1].as_py()
    with serving(tmp_path, own_run) as server:
        assert len(server.said) == 1  # Nothing is imported again.
        assert server.client.get(f"/v1/users/{user}").status_code == 404
    with serving(tmp_path, own_run, "--import-histories", "yes") as server:
        assert "Imported 0 events" in server.said[0]
        assert f"{len(mine)} are of erased users" in server.said[0]
        assert server.client.get(f"/v1/users/{user}").status_code == 404
        assert server.client.get(f"/v1/users/{last}").status_code == 200


@pytest.mark.slow
def test_import_that_was_broken_off_goes_on_at_the_next_start(own_run: Path, tmp_path: Path) -> None:
    with serving(tmp_path, own_run, "--import-histories", "no") as server:
        assert server.client.get("/v1/users").json()["users"] == []
        server.add({"event_id": "x", "user_id": "someone", "item_id": "i00", "timestamp": 1})
    (tmp_path / "events.db.importing").touch()
    with serving(tmp_path, own_run) as server:
        assert server.said[0].startswith("Imported")
        assert not (tmp_path / "events.db.importing").exists()


def test_rows_of_a_run_are_those_of_its_log(run_folder: Path, shop: Simulation) -> None:
    rows = list(run_rows(run_folder))
    of_log = [
        (one["user_id"], one["item_id"], int(one["timestamp"].timestamp()) * 1_000_000, one["event"])
        for one in shop.events().to_pylist()
    ]
    assert sorted(row[:4] for row in rows) == sorted(of_log)
    users = [row[0] for row in rows]
    assert users == sorted(users)


def test_folder_that_is_no_run_is_one_message(tmp_path: Path) -> None:
    refuse("no finished run or export", "serve", tmp_path)


def test_damaged_run_cannot_be_exported_and_the_reason_is_shown(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(run_folder, folder)
    (folder / "weights.safetensors").write_bytes(b"\x00" * 64)
    assert "damaged" in refuse("could not be exported", "serve", folder).err
