"""How many threads compute and how they wait, and what a forked process can still do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal.invoke import variseq
from variseq.threads import QUIET_SAMPLES, Load, available_cores

OF_OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
FORKED = """
import multiprocessing
context = multiprocessing.get_context("fork")
{loaded}
def in_a_child():
    queue = context.Queue()
    process = context.Process(target=lambda: queue.put({asked}))
    process.start()
    try:
        return queue.get(timeout=60)
    finally:
        process.kill()
        process.join()
loaded, own, has_answered = in_a_child(), {asked}, in_a_child()
print(loaded == own == has_answered, len(own))
"""
MODEL = "import torch; torch.set_num_threads(2); import variseq; model = variseq.load({folder!r})"
RECOMMENDED = "model.recommend(history=['i01', 'i02'], k=3).to_pandas().item_id.tolist()"
ENGINE = """
from pathlib import Path
from variseq.inference.engine import load_engine
from variseq.ranking.engine import Request
from variseq.ranking.options import RecommendOptions
engine = load_engine(Path({folder!r}))
"""
ANSWERED = (
    "engine.answer([(engine.given(['i01', 'i02']), Request(RecommendOptions(k=3)))])[0].recommendations.to_dicts()"
)


def in_a_process(program: str, **variables: str) -> str:
    """What a program prints in a process of its own, with only these of OpenMP's variables set."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_OPENMP} | variables
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=100, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks on this system")
@pytest.mark.parametrize(
    ("loaded", "asked", "folder"), [(MODEL, RECOMMENDED, "run"), (ENGINE, ANSWERED, "bundle")], ids=["model", "engine"]
)
def test_forked_process_answers_with_what_its_parent_has_loaded_and_asked(
    request: pytest.FixtureRequest, loaded: str, asked: str, folder: str
) -> None:
    loaded = loaded.format(folder=str(request.getfixturevalue(f"{folder}_folder")))
    assert in_a_process(FORKED.format(loaded=loaded, asked=asked)) == "True 3"


NUM_THREADS = """
import os, time, torch
from variseq.threads import IdleTeam
count = lambda: len(os.listdir("/proc/self/task"))
torch.set_num_threads(2)
torch.ones(1_000_000).mul_(2)
before = count()
team = IdleTeam.started()
while team is not None and count() < before + 1 + len(os.sched_getaffinity(0)):
    pass
during = count()
if team is not None:
    team.stop()
patience = time.monotonic() + 20
while count() > before and time.monotonic() < patience:
    pass
print(team is None or during > len(os.sched_getaffinity(0)), count() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="libgomp and its threads are those of Linux")
def test_idle_team_makes_more_threads_than_cores_and_ends_them() -> None:
    assert in_a_process(NUM_THREADS) == "True 0"


def test_machine_is_busy_at_once_and_quiet_after_a_while() -> None:
    load = Load()
    assert not load.is_busy(0.05)
    assert load.is_busy(0.5)
    assert all(load.is_busy(0.05) for _ in range(100))
    quiet = [load.is_busy(0.0) for _ in range(QUIET_SAMPLES)]
    assert quiet == [True] * (QUIET_SAMPLES - 1) + [False]
    assert not load.is_busy(0.05)


WATCHED = """
import threading
from variseq.threads import short_waits_when_busy
with short_waits_when_busy():
    print(any(thread.name == "variseq-threads" for thread in threading.enumerate()))
assert all(thread.name != "variseq-threads" for thread in threading.enumerate())
"""


@pytest.mark.parametrize("variable", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_waits_that_the_user_has_set_are_left_alone(variable: str) -> None:
    assert in_a_process(WATCHED, **{variable: "1" if variable == "GOMP_SPINCOUNT" else "ACTIVE"}) == "False"


@pytest.mark.skipif(available_cores() < 2 or not list(Path("/proc/self/task").glob("*/schedstat")), reason="no counts")
def test_waits_are_watched_for_as_long_as_the_work_lasts() -> None:
    assert in_a_process(WATCHED) == "True"


@pytest.mark.slow
def test_number_of_threads_is_that_asked_for_before_and_after_torch_is_imported() -> None:
    before = "use_threads(1); import torch; print(torch.get_num_threads())"
    after = "torch.set_num_threads(2); use_threads(1); print(torch.get_num_threads())"
    program = f"from variseq.threads import use_threads; {before}; {after}"
    assert in_a_process(program, OMP_NUM_THREADS="2").split() == ["1", "1"]


@pytest.mark.parametrize("number", ["0", "-2", "many"])
def test_less_than_one_thread_is_refused(number: str) -> None:
    finished = variseq("recommend", "run", "--user", "u1", "--threads", number)
    assert finished.code == 2
    assert "--threads" in finished.err


FILES = {
    "second version": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
    "part of a core": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
    "group above": ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1),
    "smallest of all": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
            "sys/fs/cgroup/a/b/cpu.max": "9900000 100000\n",
        },
        1,
    ),
    "first version": (
        {
            "proc/self/cgroup": "3:memory:/x\n2:cpu,cpuacct:/docker/x\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "without a limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
    "first version without a limit": (
        {
            "proc/self/cgroup": "2:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        None,
    ),
    "broken": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "much\n"}, None),
    "other system": ({}, None),
}


@pytest.mark.parametrize("case", FILES)
def test_quota_of_a_container_limits_the_cores(tmp_path: Path, case: str) -> None:
    files, cores = FILES[case]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert available_cores(tmp_path) == (cores or allowed)
