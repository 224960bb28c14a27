"""The run of the shop as an engine, whose lists are logged and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from variseq.ranking.engine import Engine


@pytest.fixture(scope="module")
def engine(run_folder: Path) -> Engine:
    from variseq.artifacts.checkpoint import load_checkpoint
    from variseq.recommend.network_model import engine_of

    return engine_of(load_checkpoint(run_folder))
