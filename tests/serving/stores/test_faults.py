"""The scripts of faults, a few times each: the store keeps its promises, and a broken one is found out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serving.stores.faults_path import FAULTS
from tests.serving.stores.some_redis import needs_redis

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def run_script(script: str, folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the outcome of a script."""
    out = folder / "outcome.json"
    command = [sys.executable, str(FAULTS / script), "--out", str(out), *words]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert out.exists(), done.stderr
    return done.returncode, json.loads(out.read_text())


def assert_kept(code: int, outcome: dict[str, Any]) -> None:
    assert outcome["acknowledged"] > 0
    assert (outcome["lost"], outcome["doubled"]) == (0, 0)
    assert outcome["is_good"]
    assert code == 0


@pytest.mark.parametrize("durability", ["durable", "fast"])
def test_killed_server_loses_and_doubles_nothing(tmp_path: Path, durability: str) -> None:
    code, outcome = run_script("kill_minus_nine.py", tmp_path, "--times", "2", "--durability", durability)
    assert outcome["kills"] == 2
    assert_kept(code, outcome)


def test_server_that_acknowledges_too_early_is_found_out(tmp_path: Path) -> None:
    code, outcome = run_script("kill_minus_nine.py", tmp_path, "--times", "8", "--break")
    assert outcome["lost"] > 0
    assert not outcome["is_good"]
    assert code == 1


@pytest.mark.parametrize("way", [[], ["--way", "limit"]], ids=["found out", "limit"])
def test_full_disk_is_told_and_recovered_from(tmp_path: Path, way: list[str]) -> None:
    code, outcome = run_script("full_disk.py", tmp_path, "--times", "2", *way)
    assert outcome["times_full"] == outcome["times_told_by_check"] == outcome["times_recovered"] == 2
    assert_kept(code, outcome)


def test_locked_store_is_told_and_recovered_from(tmp_path: Path) -> None:
    code, outcome = run_script("locked_store.py", tmp_path, "--times", "2")
    assert outcome["calls_refused"] > 0
    assert outcome["reads_while_locked"] > 0
    assert_kept(code, outcome)


@needs_redis
def test_redis_that_comes_back_empty_misses_nothing(tmp_path: Path) -> None:
    code, outcome = run_script("redis_gone.py", tmp_path, "--times", "2")
    assert outcome["calls_refused"] > 0
    assert_kept(code, outcome)


@needs_redis
def test_redis_that_comes_back_empty_behind_servers_misses_nothing(tmp_path: Path) -> None:
    code, outcome = run_script("server_redis_gone.py", tmp_path, "--times", "2", "--folder", str(tmp_path))
    assert outcome["refused"] > 0
    assert outcome["wrong_next_answers"] == 0
    assert_kept(code, outcome)


@needs_strace
def test_loss_of_power_takes_nothing_acknowledged_and_damages_nothing(tmp_path: Path) -> None:
    code, outcome = run_script("power_loss.py", tmp_path, "--moments", "40", "--seconds", "2")
    assert outcome["fast_lost"] > 0
    assert_kept(code, outcome)


@needs_strace
def test_disk_that_lies_about_its_syncs_is_found_out(tmp_path: Path) -> None:
    code, outcome = run_script("power_loss.py", tmp_path, "--moments", "20", "--seconds", "2", "--disk-lies")
    assert outcome["lost"] > 0
    assert not outcome["is_good"]
    assert code == 1
