"""A run is served as it is: exported by a child process, its histories taken into an empty store."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.serving.server_process import serving
from tests.terminal.invoke import refuse
from variseq.events.simulate import Simulation
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.transfer import import_run, run_rows

WITHOUT_TORCH = """
import asyncio, sys, threading
from pathlib import Path
import httpx
from variseq.serving.app import Application
from variseq.serving.settings import serve_settings

async def main():
    settings = serve_settings({"run": sys.argv[1], "store": "memory://"}, {})
    async with Application(settings).running() as middleware:
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


def test_run_is_exported_by_a_process_of_its_own_which_is_told(first_export: Path) -> None:
    assert (first_export / "run" / "encoder.onnx").is_file()
    first, last = (first_export / "said").read_text().splitlines()
    assert first.startswith("Preparing the model")
    assert last.startswith("The model was prepared in ")


def test_first_start_imports_the_histories(exported_run: Path, shop: Simulation, tmp_path: Path) -> None:
    with serving(tmp_path, exported_run) as server:
        imported, _ = server.said
        assert imported.startswith(f"Imported {shop.events().num_rows:,} events")
        user = shop.events().column("user_id")[0].as_py()
        shown = server.client.get(f"/v1/users/{user}").json()
    mine = sorted(events_of(shop, user), key=lambda row: row["timestamp"])
    assert [one["item_id"] for one in shown["events"]] == [row["item_id"] for row in mine]
    assert [one["event"] for one in shown["events"]] == [row["event"] for row in mine]


def events_of(shop: Simulation, user: str) -> list[dict[str, Any]]:
    return [row for row in shop.events().to_pylist() if row["user_id"] == user]


def test_histories_are_imported_once_and_without_the_erased(run_folder: Path, shop: Simulation, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "events.db")
    said: list[str] = []
    import_run(store, run_folder, "no", said.append)
    assert store.counts().events == 0
    user = shop.events().column("user_id")[0].as_py()
    store.erase(user)
    import_run(store, run_folder, "auto", said.append)
    assert said == [], "a store that knows something is left as it is"
    import_run(store, run_folder, "yes", said.append)
    assert f"{len(events_of(shop, user))} are of erased users" in said[0]
    assert store.history(user) == []
    (tmp_path / "events.db.importing").touch()
    import_run(store, run_folder, "auto", said.append)
    assert said[1].startswith("Imported 0 events"), "an import that was broken off goes on"
    assert not (tmp_path / "events.db.importing").exists()
    store.close()


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
