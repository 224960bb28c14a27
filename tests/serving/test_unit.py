"""The server as a systemd unit, with the unit of docs/serving.md as it stands there."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tests.serving.documented import block

ANALYZE = shutil.which("systemd-analyze")
PROGRAM = "/opt/variseq/bin/variseq"


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(block("ini", {}))
    return found


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "variseq"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "variseq-documented.service"
    file.write_text(block("ini", {PROGRAM: str(program)}))
    done = subprocess.run([str(ANALYZE), "verify", str(file)], check=False, capture_output=True, text=True)
    # It tells of other units of this machine too.
    assert file.name not in done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_does_find_a_wrong_word(tmp_path: Path) -> None:
    file = tmp_path / "variseq-documented.service"
    file.write_text(block("ini", {"KillMode=mixed": "KillMode=gently"}))
    done = subprocess.run([str(ANALYZE), "verify", str(file)], check=False, capture_output=True, text=True)
    assert "gently" in done.stdout + done.stderr


def test_its_command_starts_and_its_signal_drains(bundle_folder: Path, tmp_path: Path) -> None:
    """The command as it is written, in a folder as it is written, with the signal of KillMode=mixed."""
    service = unit()["Service"]
    words = shlex.split(service["ExecStart"])
    assert words[0] == PROGRAM
    (tmp_path / "runs").mkdir()
    shutil.copytree(bundle_folder, tmp_path / "runs" / "first")
    ours = [sys.executable, "-c", "from variseq.cli import main; main()"]
    own = {**os.environ, "OMP_NUM_THREADS": "1", "VARISEQ_SERVE_PORT": "0"}
    made = [*ours, "keys", "create", "--name", "shop", "--role", "read", "--file", "keys.yaml"]
    key = subprocess.run(made, check=True, capture_output=True, text=True, cwd=tmp_path, env=own).stdout.split()[-1]
    with subprocess.Popen([*ours, *words[1:]], cwd=tmp_path, env=own, stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(90, process.kill)
        timer.start()
        assert process.stdout is not None
        address = next(line.split(" at ")[1].split()[0] for line in process.stdout if " at http://" in line)
        assert httpx.get(f"{address}/ready", timeout=30).status_code == 200
        allowed = httpx.get(f"{address}/v1/model", headers={"Authorization": f"Bearer {key}"}, timeout=30)
        assert allowed.status_code == 200
        assert httpx.get(f"{address}/v1/model", timeout=30).status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(int(service["TimeoutStopSec"])) == 0
        timer.cancel()
    assert (tmp_path / "events.db").exists()
