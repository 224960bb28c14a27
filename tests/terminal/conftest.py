"""One run of `variseq fit` on a small shop, for all tests of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.terminal.invoke import Finished, succeed
from tests.terminal.shop import quick_fit, write_shop


@pytest.fixture(scope="session")
def shop_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a shop; its items and the settings of a quick run lie beside it."""
    return write_shop(tmp_path_factory.mktemp("shop"))


@dataclass(frozen=True)
class FittedByCommand:
    """What `variseq fit` printed and left."""

    finished: Finished
    folder: Path


@pytest.fixture(scope="session")
def fitted_by_command(shop_file: Path, tmp_path_factory: pytest.TempPathFactory) -> FittedByCommand:
    folder = tmp_path_factory.mktemp("runs") / "shop"
    items = shop_file.with_name("shop-items.csv")
    return FittedByCommand(succeed(*quick_fit(shop_file, folder, "--items", items)), folder)


@pytest.fixture(scope="session")
def run(fitted_by_command: FittedByCommand) -> Path:
    """The folder of a finished run."""
    return fitted_by_command.folder


@pytest.fixture(scope="session")
def integer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a log whose ids are integers, without an items file."""
    folder = tmp_path_factory.mktemp("integers")
    shop = write_shop(folder)
    header, *rows = shop.read_text().splitlines()
    shop.write_text("\n".join([header, *(row.replace('"u', '"1').replace('"i', '"9') for row in rows)]) + "\n")
    succeed(*quick_fit(shop, folder / "run", "--set", "training.max_epochs=1", "--quiet"))
    return folder / "run"
