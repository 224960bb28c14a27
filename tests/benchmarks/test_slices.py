"""Small commands that write what they do into one file: that they take turns, finish, and leave nothing behind."""

from __future__ import annotations

import os
import sys
from itertools import groupby
from pathlib import Path

import pytest

from tests.benchmarks import peers_path  # noqa: F401

from slices import Work, run_in_slices  # isort: skip

WRITE_NAMES = """
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for _ in range(40):
    os.write(file, (sys.argv[2] + "\\n").encode())
    time.sleep(0.01)
"""
WRITE_PID_AND_WAIT = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"


def work(name: str, code: str, *words: str, folder: Path) -> Work:
    return Work(name, [sys.executable, "-I", "-c", code, *words], folder / f"{name}.txt")


def test_one_process_runs_at_a_time_and_all_finish(tmp_path: Path) -> None:
    written = tmp_path / "names"
    works = [work(name, WRITE_NAMES, str(written), name, folder=tmp_path) for name in "abc"]
    finished: list[tuple[str, int]] = []
    run_in_slices(works, 0.2, lambda work, code: finished.append((work.name, code)))
    names = written.read_text().split()
    turns = [name for name, _ in groupby(names)]
    assert sorted(finished) == [("a", 0), ("b", 0), ("c", 0)]
    assert len(names) == 3 * 40
    # Side by side they would change places at nearly every line.
    assert 3 < len(turns) < 40


def test_process_that_fails_is_told_of_and_the_others_go_on(tmp_path: Path) -> None:
    works = [work("bad", "import sys; print('why'); sys.exit(3)", folder=tmp_path), work("good", "", folder=tmp_path)]
    finished: dict[str, int] = {}
    run_in_slices(works, 5.0, lambda work, code: finished.update({work.name: code}))
    assert finished == {"bad": 3, "good": 0}
    assert (tmp_path / "bad.txt").read_text() == "why\n"


def test_nothing_is_left_behind_when_the_bench_is_interrupted(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    works = [work("long", WRITE_PID_AND_WAIT, str(pid), folder=tmp_path), work("short", "", folder=tmp_path)]

    def interrupt(_work: Work, _code: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_slices(works, 1.0, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
