"""Two processes that train one network, against one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.terminal.invoke import refuse, succeed
from tests.training.two_processes import CASES, computed
from variseq.estimator import load
from variseq.events.simulate import SimulationOptions, simulate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "training.max_epochs": "2",
    "training.refit_fraction": "0",
    "training.deterministic_fraction": "1",
    "training.full_softmax_max_items": "10",
    "training.num_negatives": "20",
    "training.batch_tokens": "128",
    "model.dropout": "0",
}


def started(*words: str) -> subprocess.Popen[str]:
    """Two processes of a module with its arguments, by `torchrun`."""
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    command = [sys.executable, "-m", *launch, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    path = tmp_path_factory.mktemp("processes") / "found.pt"
    finish(started("tests.training.two_processes", str(path)))
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_statistics_of_two_processes_add_up_to_those_of_one(
    of_two: dict[str, torch.Tensor], case: str
) -> None:
    expected = computed(case)
    assert len(expected) > 20
    for name, tensor in expected.items():
        torch.testing.assert_close(of_two[f"{case}/{name}"], tensor, rtol=1e-4, atol=1e-6, msg=name)


def fit_words(log: Path, out: Path, *more: str) -> list[str]:
    chosen = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    return ["variseq", "fit", str(log), "--size", "tiny", "--out", str(out), *chosen, *more]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    options = SimulationOptions(num_users=250, num_items=60, num_categories=4, mean_events=15)
    pq.write_table(simulate(options).events(), path)
    return path


def vectors_of(run: Path) -> np.ndarray:
    return load(run, "cpu").checkpoint.network.item_vectors.detach().numpy()


def test_run_of_two_processes_is_that_of_one_up_to_rounding_also_after_ctrl_c(log: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    succeed(*fit_words(log, one)[1:])
    running = started(*fit_words(log, two))
    state = tmp_path / "two.unfinished" / "metrics.jsonl"
    while not (state.exists() and state.stat().st_size) and running.poll() is None:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    out, error = running.communicate(timeout=200)
    if not two.exists():
        assert "--resume goes on" in out + error
        refuse("--nproc-per-node 2", *fit_words(log, two, "--resume")[1:])
        finish(started(*fit_words(log, two, "--resume")))
    np.testing.assert_allclose(vectors_of(two), vectors_of(one), atol=1e-4)
