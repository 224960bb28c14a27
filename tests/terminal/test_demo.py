from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.terminal.invoke import succeed
from variseq.events.datasets import DatasetFiles
from variseq.events.simulate import SimulationOptions, simulate
from variseq.terminal import demo

pytestmark = pytest.mark.slow


def test_demo_ends_with_recommendations_and_commands_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = simulate(SimulationOptions(num_users=60, num_items=30))
    pq.write_table(shop.events(), tmp_path / "events.parquet")
    pq.write_table(shop.items(), tmp_path / "items.parquet")
    files = DatasetFiles(tmp_path / "events.parquet", tmp_path / "items.parquet", "a shop", is_real=False)
    monkeypatch.setattr(demo, "movielens_100k", lambda: files)
    monkeypatch.setattr(demo, "write_report", lambda _, folder: folder / "report.html")
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.chdir(tmp_path)
    shown = succeed("demo", "--out", "run").out
    assert "SIMULATED DATA" in shown
    assert max(map(len, shown.splitlines())) < 300
    commands = [line.split()[1:] for line in shown.split("Next:")[1].splitlines() if line.strip()]
    assert [words[0] for words in commands] == ["recommend", "serve", "check"]
    succeed(*commands[0])
    assert (Path(commands[1][1]) / "manifest.json").is_file(), "a run that can be served"
