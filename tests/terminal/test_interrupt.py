"""Ctrl-C in the middle of `variseq fit`, and the same command again with --resume: equal bits are tested in Python."""

from __future__ import annotations

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


@pytest.mark.slow
def test_interrupted_run_is_one_message_and_resumed(shop_file: Path, tmp_path: Path) -> None:
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
