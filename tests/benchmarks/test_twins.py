"""What noise buys and costs, as a table: a row for each data set, the latest record of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import exploration_path  # noqa: F401
from variseq.errors import InputError

import twins  # isort: skip


def record(title: str, difference: float) -> dict[str, Any]:
    metric = {"variseq": 7.5, "twin": 7.6, "difference": difference, "interval": [-0.2, 0.05], "p_value": 0.0123}
    return {
        "title": title,
        "seed": 3,
        "num_users": 1234,
        "metrics": {"nll": metric, "ndcg@10": metric},
        "commit": "c" * 40,
        "dirty": False,
    }


def test_latest_record_of_a_data_set_is_its_row() -> None:
    lines = twins.table([record("Films", -0.5), record("News", -0.1), record("Films", -0.1)]).splitlines()
    assert lines[2] == (
        "| Films, 3 | 1,234 | 7.500, 7.600 | −0.1000 [−0.2000, +0.0500], p = 0.0123 | 7.5000, 7.6000 | "
        "−0.10000 [−0.20000, +0.05000], p = 0.0123 |"
    )
    assert lines[3].startswith("| News, 3 |")
    assert len(lines) == 6


def test_two_runs_with_noise_are_refused(run_folder: Path) -> None:
    with pytest.raises(InputError, match="no run with noise and one without"):
        twins.record_of("Films", run_folder, run_folder)
