"""One server that many tests look at; those that change how it is started start their own."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from tests.conftest import made_once, small_model
from tests.serving.server_process import LocalServer, serving_here
from variseq.artifacts.checkpoint import load_checkpoint, save_checkpoint
from variseq.events.simulate import Simulation
from variseq.export import export
from variseq.log import read
from variseq.serving.stores.transfer import import_run


@pytest.fixture(scope="package")
def server(bundle_folder: Path) -> Iterator[LocalServer]:
    """A server without keys, with nothing in its store at the start."""
    with serving_here(bundle_folder, request_timeout_seconds=0.5) as started:
        yield started


LARGE = 9_007_199_254_740_993
"""2^53 + 1: the first whole number that a 64-bit float does not have. Users and items are numbered from here."""


def numbered_ids(table: pd.DataFrame) -> pd.DataFrame:
    """A table of the shop with LARGE + 7 in place of i07 and of u007."""
    columns = [name for name in ("user_id", "item_id") if name in table]
    return table.assign(**{name: LARGE + table[name].str.slice(1).astype("int64") for name in columns})


@pytest.fixture(scope="session")
def numbered_run(shop: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose ids are whole numbers above 2^53."""

    def make(folder: Path) -> None:
        events, items = (numbered_ids(table.to_pandas()) for table in (shop.events(), shop.items()))
        train, valid, _ = read(events, items=items).split("leave-one-out")
        small_model(max_epochs=1).fit(train, valid, folder=folder, verbose=0)
        export(folder)

    return made_once(tmp_path_factory, "numbered", make)


@pytest.fixture(scope="session")
def numbered(numbered_run: Path) -> Iterator[LocalServer]:
    """A server of that run, which starts with its histories."""
    with serving_here(numbered_run) as started:
        import_run(started.application.services.store, numbered_run, "yes")
        yield started


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
"""One red dot."""


@pytest.fixture(scope="session")
def pictured_run(shop: Simulation, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported run of the shop where the table of items names a picture of all items but i09."""

    def make(folder: Path) -> None:
        names = [None if item_id == "i09" else f"sub/{item_id}.png" for item_id in shop.item_ids()]
        items = read(shop.events(), items=shop.items().append_column("poster_path", pa.array(names))).items
        folder.mkdir()
        save_checkpoint(replace(load_checkpoint(run_folder), items=items), folder / "run")
        export(folder / "run", folder / "export")

    return made_once(tmp_path_factory, "pictured", make) / "export"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pictures of i00 to i08."""

    def make(folder: Path) -> None:
        (folder / "sub").mkdir(parents=True)
        for number in range(9):
            (folder / "sub" / f"i{number:02}.png").write_bytes(PNG)

    return made_once(tmp_path_factory, "images", make)
