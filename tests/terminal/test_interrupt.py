"""Ctrl-C in the middle of `variseq fit`, and the same command again with --resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.terminal.invoke import refuse, succeed
from tests.terminal.shop import left_in, quick_fit
from variseq.events.session import open_session

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
LONG = ["--set", "training.max_epochs=8", "--set", "training.patience=8"]


def interrupted(words: list[object]) -> subprocess.CompletedProcess[str]:
    """Start a command in a process of its own and send it Ctrl-C after its second epoch."""
    command = [sys.executable, "-c", "from variseq.cli import main; main()", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD)
    assert process.stdout is not None
    out = ""
    for line in process.stdout:
        out += line
        if line.startswith("epoch 2/8"):
            process.send_signal(signal.SIGINT)
            break
    rest, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out + rest, err)


@pytest.mark.parametrize("error", [RuntimeError("Query interrupted"), duckdb.InterruptException("Interrupted")])
def test_statement_that_is_interrupted_is_ctrl_c(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(KeyboardInterrupt), open_session("100MB", tmp_path):
        raise error
    assert left_in(tmp_path) == []
    with pytest.raises(RuntimeError, match="another"), open_session("100MB", tmp_path):
        raise RuntimeError("another")


def epochs_of(run: Path) -> list[dict[str, object]]:
    """The epoch records without what depends on the clock."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "seconds_left", "tokens_per_second")
    return [{name: value for name, value in record.items() if name not in clock} for record in records]


@pytest.mark.slow
def test_interrupted_run_is_resumed_to_the_same_bits(shop_file: Path, tmp_path: Path) -> None:
    words = quick_fit(shop_file, tmp_path / "stopped", *LONG)
    stopped = interrupted(words)
    assert stopped.returncode == 130, stopped
    assert "--resume" in stopped.stderr
    assert "stopped.unfinished" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "\x1b" not in stopped.stdout + stopped.stderr
    assert left_in(tmp_path) == ["stopped.unfinished"]

    refuse("holds an unfinished run. Go on with --resume", *words)
    refuse("other settings or data.*training.learning_rate", *words, "--resume", "--set", "training.learning_rate=0.5")
    resumed = succeed(*words, "--resume").out
    assert "epoch 1/8" not in resumed
    assert "epoch 8/8" in resumed
    assert left_in(tmp_path) == ["stopped"]

    succeed(*quick_fit(shop_file, tmp_path / "whole", *LONG, "--quiet"))
    for name in ("weights.safetensors", "config.yaml", "histories.parquet"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert epochs_of(tmp_path / "stopped") == epochs_of(tmp_path / "whole")
    manifests = [json.loads((tmp_path / run / "manifest.json").read_text()) for run in ("stopped", "whole")]
    assert manifests[0]["calibration"] == manifests[1]["calibration"]
