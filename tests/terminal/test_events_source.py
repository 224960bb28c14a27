from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.terminal.invoke import refuse, succeed
from variseq.events.simulate import SimulationOptions, simulate
from variseq.serving.stores import open_store
from variseq.serving.stores.transfer import import_histories

FAST = ["--set", "training.max_epochs=1", "--size", "tiny", "--quiet"]


@pytest.fixture
def store_address(tmp_path: Path) -> str:
    """A store with the events of simulated shoppers."""
    events = simulate(SimulationOptions(num_users=60, num_items=20, mean_events=12, seed=1)).events().to_pylist()
    address = f"sqlite:///{tmp_path}/events.db"
    store = open_store(address)
    rows = [(e["user_id"], e["item_id"], int(e["timestamp"].timestamp() * 1e6), None, None) for e in events]
    import_histories(store, rows)
    store.close()
    return address


@pytest.mark.slow
def test_model_is_fitted_again_on_what_a_server_took_in_without_those_erased(
    store_address: str, tmp_path: Path
) -> None:
    store = open_store(store_address)
    gone = store.users("", 1)[0]
    assert store.erase(gone) > 0
    num_users = store.counts().users
    store.close()
    succeed("fit", store_address, "--out", tmp_path / "second", *FAST)
    manifest = json.loads((tmp_path / "second" / "manifest.json").read_text())
    assert manifest["protocol"]["num_users"] == num_users == 59
    assert "fallback: unknown user" in succeed("recommend", tmp_path / "second", "--user", gone).out


def test_store_can_be_checked_like_a_file(store_address: str) -> None:
    assert "60" in succeed("check", store_address).out


@pytest.mark.parametrize(
    ("source", "says"),
    [(["sqlite:///nowhere.db"], "There is no store at"), (["sqlite:///a.db", "b.csv"], "A store is read alone")],
)
def test_store_that_cannot_be_read_is_one_error(source: list[str], says: str, tmp_path: Path) -> None:
    refuse(says, "fit", *source, "--out", tmp_path / "run", *FAST)


def test_backup_is_a_store_with_the_same_events(store_address: str, tmp_path: Path) -> None:
    succeed("backup", store_address, tmp_path / "copy.db")
    store, copy = open_store(store_address), open_store(f"sqlite:///{tmp_path}/copy.db")
    assert copy.counts() == store.counts()
    user = store.users("", 5)[4]
    assert copy.history(user) == store.history(user)
    refuse("is the store itself", "backup", store_address, store_address.removeprefix("sqlite:///"))
    refuse("There is no store at", "backup", "sqlite:///nowhere.db", tmp_path / "other.db")
