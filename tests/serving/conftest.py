"""One server that many tests look at; those that change how it is started start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import export_as, made_once, small_model
from tests.serving.server_process import LocalServer, serving_here
from variseq.events.simulate import Simulation
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
def numbered_run(shop: Simulation, exported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose ids are whole numbers above 2^53."""

    def make(folder: Path) -> None:
        events, items = (numbered_ids(table.to_pandas()) for table in (shop.events(), shop.items()))
        train, valid, _ = read(events, items=items).split("leave-one-out")
        small_model(max_epochs=1).fit(train, valid, folder=folder, verbose=0)
        export_as(exported_run, folder)

    return made_once(tmp_path_factory, "numbered", make)


@pytest.fixture(scope="session")
def numbered(numbered_run: Path) -> Iterator[LocalServer]:
    """A server of that run, which starts with its histories."""
    with serving_here(numbered_run) as started:
        import_run(started.application.services.store, numbered_run, "yes")
        yield started
