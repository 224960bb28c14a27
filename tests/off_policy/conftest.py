"""The run of the shop as an engine, whose lists are logged and evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from variseq.artifacts.checkpoint import load_checkpoint
from variseq.ranking.engine import Engine
from variseq.recommend.network_model import engine_of


@pytest.fixture(scope="module")
def engine(run_folder: Path) -> Engine:
    return engine_of(load_checkpoint(run_folder))
