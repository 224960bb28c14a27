"""A disk without room: one message, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal.invoke import assert_one_message
from tests.terminal.shop import quick_fit

ROOT = Path(__file__).parent.parent.parent
COMMANDS_ON_A_SMALL_DISK = """
import json, resource, sys
from pathlib import Path
from tests.terminal.invoke import variseq
disk, way, commands = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
ends = []
for words in commands:
    if way == "limit":
        # The database that reads a log needs a file of its own; the state of the training is larger than it.
        most = 1_000_000 if words[0] == "fit" else 8_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    finished = variseq(*words)
    ends.append({"code": finished.code, "err": finished.err, "left": sorted(path.name for path in disk.iterdir())})
print(json.dumps(ends))
"""


def small_disk_can_be_mounted() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", "/mnt"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def ends_on_a_small_disk(disk: Path, commands: list[list[object]]) -> list[dict[str, object]]:
    """How each command ends when what it writes to `disk` does not fit: a small file system, or a limit on files."""
    way = "mount" if small_disk_can_be_mounted() else "limit"
    words = [[str(word) for word in command] for command in commands]
    command = [sys.executable, "-c", COMMANDS_ON_A_SMALL_DISK, str(disk), way, json.dumps(words)]
    if way == "mount":
        mounted = 'mount -t tmpfs -o size=8k tmpfs "$0" && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", mounted, str(disk), *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert finished.returncode == 0, finished.stderr
    ends: list[dict[str, object]] = json.loads(finished.stdout.splitlines()[-1])
    return ends


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.mark.slow
def test_full_disk_is_one_message_and_leaves_nothing(run: Path, shop_file: Path, disk: Path) -> None:
    large = ["--set", "model.hidden_size=128", "--set", "training.max_epochs=1", "--quiet"]
    many = ["--users", 500, "--seed", 1]
    commands: list[list[object]] = [
        [*quick_fit(shop_file, disk / "run"), *large],
        ["recommend", run, "--all-users", "--out", disk / "all.csv", "-k", 30, "--include-seen"],
        ["recommend", run, "--all-users", "--out", disk / "all.parquet", "-k", 30, "--include-seen"],
        ["evaluate", run, "--json", disk / "evaluation.json"],
        ["simulate", "--out", disk / "shop.csv", *many],
        ["simulate", "--out", disk / "shop.parquet", *many],
    ]
    for words, end in zip(commands, ends_on_a_small_disk(disk, commands), strict=True):
        assert end["code"] == 2, (words, end)
        assert_one_message(str(end["err"]))
        assert end["left"] == [], (words, end)
