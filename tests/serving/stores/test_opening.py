"""Addresses of stores: what is allowed opens, everything else is one message that names what is allowed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from variseq.errors import InputError, MissingDependencyError
from variseq.serving.stores import open_store
from variseq.serving.stores.protocol import HistoryStore
from variseq.serving.stores.sqlite import SqliteStore
from variseq.serving.stores.sqlite_file import SqliteOptions


def test_sqlite_is_durable_unless_told(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/a%20b%3F.db")
    assert isinstance(store, SqliteStore)
    assert isinstance(store, HistoryStore)
    assert store.options == SqliteOptions("durable", 1000, 5.0)
    assert (tmp_path / "a b?.db").exists()
    store.close()


def test_options_are_taken(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/events.db?durability=fast&history_limit=7&lock_seconds=0.5")
    assert isinstance(store, SqliteStore)
    assert store.options == SqliteOptions("fast", 7, 0.5)
    store.close()


def test_three_slashes_are_a_path_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:///events.db").close()
    assert (tmp_path / "events.db").exists()


def test_memory_needs_no_name() -> None:
    store = open_store("memory://?history_limit=5")
    assert isinstance(store, SqliteStore)
    assert store.options.history_limit == 5
    assert store.path.exists()
    store.close()
    assert not store.path.parent.exists(), "it is lost at the end"


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("mysql://localhost/events", "sqlite:///events.db"),
        ("events.db", "sqlite:///events.db"),
        ("", "sqlite:///events.db"),
        ("sqlite://events.db", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite:///events.db?durability=high", "durable or fast"),
        ("sqlite:///events.db?durabilty=fast", "durability, history_limit, lock_seconds"),
        ("sqlite:///events.db?history_limit=0", "1 to 1,000,000"),
        ("sqlite:///events.db?history_limit=1e3", "1 to 1,000,000"),
        ("sqlite:///events.db?history_limit=5&history_limit=6", "twice"),
        ("sqlite:///events.db?lock_seconds=nan", "lock_seconds"),
        ("sqlite:///events.db?fast", "name=value"),
        ("sqlite:///events#1.db", "%23"),
        ("memory://name", "no name"),
        ("memory://?durability=fast", "history_limit"),
        ("redis://localhost:6379/0", "durable_log=sqlite:///events.db"),
        ("redis://localhost:6379/0?durable_log=memory://", "durable_log=sqlite:///events.db"),
        ("redis://localhost:6379/0?durable_log=sqlite:///e.db&ttl=5", "durable_log, history_limit"),
    ],
)
def test_wrong_address_names_what_is_allowed(
    address: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        open_store(address)
    assert named in str(raised.value)
    assert list(tmp_path.iterdir()) == [], "nothing was made"


def test_redis_without_its_client_names_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("variseq.serving.stores.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingDependencyError, match=r"variseq\[redis\]"):
        open_store(f"redis://127.0.0.1/0?durable_log=sqlite:///{tmp_path}/events.db")
