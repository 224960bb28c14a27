"""What the command line names as events into what is read: files as they are, a store of live events as a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from variseq.errors import InputError

if TYPE_CHECKING:
    from variseq.serving.stores.sqlite import SqliteStore

STORE = "sqlite:"


@contextmanager
def events_source(source: str | list[str]) -> Iterator[str | list[str]]:
    """The source; for the address of a store, all its events in a file that is there as long as they are read.

    So a model is fitted again on what a server has taken in, and without those who were erased, by one command:
    `variseq fit sqlite:///events.db --out runs/second`.
    """
    if isinstance(source, list):
        if any(one.startswith(STORE) for one in source):
            raise InputError("A store is read alone. Give its address and no files beside it.")
        yield source
        return
    if not source.startswith(STORE):
        yield source
        return
    from variseq.serving.stores.transfer import export_events

    store = open_file_store(source)
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "events.parquet"
            if export_events(store, target) == 0:
                raise InputError(f"The store at {source} holds no events yet.")
            yield str(target)
    finally:
        store.close()


def open_file_store(address: str) -> SqliteStore:
    """The store of an address, which must be there. Raises InputError and StoreUnavailable."""
    from variseq.serving.stores import open_store
    from variseq.serving.stores.sqlite import SqliteStore

    path = Path(address.removeprefix("sqlite:///").partition("?")[0])
    if not address.startswith(STORE) or not path.is_file():
        raise InputError(f"There is no store at {address}: {path} is no file. Write sqlite:///events.db")
    store = open_store(address)
    assert isinstance(store, SqliteStore)
    return store
