"""What users of recommender libraries report as faults again and again, as tests of this package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from tests.terminal.invoke import refuse
from variseq.estimator import VariationalAttention, load
from variseq.evaluation import evaluate as evaluation
from variseq.evaluation.evaluate import evaluate
from variseq.evaluation.splits import leave_one_out
from variseq.log import Log, LogPart, read
from variseq.ranking import mixture
from variseq.ranking.softmax import Columns, Softmaxes
from variseq.sequences.batches import training_windows
from variseq.sequences.histories import Histories

ROOT = Path(__file__).parent.parent
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
Parts = tuple[LogPart, LogPart, LogPart]


# Installing


WITHOUT_EXTRAS = """
import sys
for name in ("matplotlib", "sklearn", "jinja2", "tensorboard", "polars"):
    sys.modules[name] = None
from tests.terminal.invoke import succeed, variseq
succeed("recommend", sys.argv[1], "--user", "u001", "-k", 2)
succeed("evaluate", sys.argv[1])
print(variseq("report", sys.argv[1]).err)
"""


@pytest.mark.slow
def test_everything_but_pictures_runs_without_the_extras(run_folder: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_EXTRAS, str(run_folder)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=ONE_THREAD)
    assert finished.returncode == 0, finished.stderr
    assert "pip install 'variseq[report]'" in finished.stdout


def test_base_install_asks_for_no_compiler_no_conda_and_no_gpu_library() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    needs = {re.split(r"[><=~!\[;]", line)[0] for line in re.findall(r'"([^"]+)"', block)}
    assert needs == {
        "numpy", "duckdb", "pyarrow", "pandas", "narwhals", "pydantic", "pyyaml", "typer", "rich",
        "safetensors", "jaxtyping", "threadpoolctl",
    }  # fmt: skip
    assert not re.search(r"<|==|~=", block), "a cap keeps users from updating"
    assert "ext_modules" not in text


# Memory


class Counting:
    """Random scores, and a note of how many histories were asked for at once."""

    name = "counting"
    gives_probabilities = True

    def __init__(self, num_items: int) -> None:
        self.table = torch.randn(7, num_items, generator=torch.Generator().manual_seed(0))
        self.batches: list[int] = []

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        self.batches.append(len(histories))
        return self.table[torch.from_numpy(histories.lengths) % 7]


def test_no_block_of_scores_grows_with_users_or_items(
    fitted: VariationalAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells: list[int] = []
    plain = Softmaxes.__init__

    def counting(self: Softmaxes, columns: Columns, preference: Float[np.ndarray, "a b c"], *left_out: object) -> None:
        cells.append(preference.shape[0] * preference.shape[1] * columns.num_columns)
        plain(self, columns, preference, *left_out)

    monkeypatch.setattr(Softmaxes, "__init__", counting)
    monkeypatch.setattr(mixture, "CELLS_AT_ONCE", 2000)
    assert len(fitted.recommend(fitted.vocabulary.users.to_pylist(), k=2)) == 300
    assert max(cells) <= 2000
    monkeypatch.setattr(evaluation, "CELLS_AT_ONCE", 20_000)
    for num_items, most in ((50, 128), (1000, 20)):
        recommender = Counting(num_items)
        *_, test = leave_one_out(Histories.of_items([[0, 1, 2]] * 300), num_items)
        evaluate(recommender, test)
        assert max(recommender.batches) == most, "blocks are as large as they may be"


def test_windows_of_training_grow_with_events_not_with_prefixes() -> None:
    generator = np.random.default_rng(0)

    def measure(num_events: int) -> tuple[int, int]:
        histories = Histories.of_items([[0] * num_events])
        tracemalloc.start()
        windows = training_windows(histories, 50, generator)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return int(windows.lengths.sum()), peak

    (few, small), (many, large) = measure(10_000), measure(40_000)
    assert (few, many) == (10_000, 40_000)
    assert large < 6 * small


def test_history_in_memory_costs_few_bytes_an_event(shop_log: Log) -> None:
    histories = shop_log.histories
    held = sum(array.nbytes for array in (histories.item, histories.behavior, histories.timestamp, histories.value))
    assert held / histories.num_events <= 24


# Speed


# New users


def test_network_has_no_table_of_users(fitted: VariationalAttention) -> None:
    num_users = fitted.vocabulary.num_users
    for name, parameter in fitted.checkpoint.network.named_parameters():
        assert num_users not in parameter.shape, name


# Silently wrong


def test_order_of_columns_and_rows_changes_nothing(shop: Any) -> None:
    events = shop.events()
    turned = events.select(list(reversed(events.column_names))).take(pa.array(np.arange(len(events))[::-1].copy()))
    first, second = read(events), read(turned)
    assert first.vocabulary.item_ids(range(40)) == second.vocabulary.item_ids(range(40))
    assert np.array_equal(first.histories.timestamp, second.histories.timestamp)


# Saving and loading


def test_run_folder_can_be_moved(run_folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(run_folder, tmp_path / "somewhere else"))
    assert not [path for path in moved.rglob("*") if path.is_file() and str(run_folder).encode() in path.read_bytes()]
    assert len(load(moved).recommend(users=["u001"], k=3).to_pandas()) == 3


# Evaluation


def test_evaluating_twice_gives_the_same_numbers_and_names_its_protocol(fitted: VariationalAttention) -> None:
    results = fitted.evaluate()
    assert results.table == fitted.evaluate().table
    assert results.row("popular")["ndcg@10"] > 0, "popularity stands beside it"
    assert results.row("variseq")["catalog_coverage@10"] > 0.2, "lists differ between users"
    protocol = results.table["protocol"]
    assert (protocol["candidates"], protocol["ties"]) == ("full catalog", "against the model")
    assert {"split_hash", "k", "targets", "exclude_seen"} <= protocol.keys()


# Own data


def test_first_fault_is_named_by_row_column_and_value(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,ts\na,x,soon\nb,y,later\n")
    refuse("first: row 1: ts = 'soon'", "check", tmp_path / "log.csv")
