"""Other libraries and this one on the same data, split and candidates, one core each in turn: one record a system.

    python -m benchmarks.competitors.run ml-100k amazon-beauty --data DATA --cpu-minutes 60
    python -m benchmarks.competitors.run ml-1m --data DATA --only-cost     # a few batches of each: cost, no quality
    python -m benchmarks.competitors.run --data DATA --quick               # half an hour

DATA holds ml-100k/u.data, amazon-beauty/Beauty.txt and ml-1m/sequences_5core_items.txt. Records go to
.competitors/competitors.jsonl. What stands there with the same settings and data is not run again, so an interrupted
benchmark goes on; remove the file to measure anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.competitors.process import Job, K, Lists, Sequences, Settings
from benchmarks.competitors.turns import Environment, Work, python_of, take_turns
from measurement.datasets import dataset_spec, load_dataset
from measurement.records import (
    ONE_THREAD,
    ROOT,
    Record,
    append_records,
    command_parser,
    exit_code,
    read_records,
    record_of,
)
from variseq.errors import InputError
from variseq.evaluation.metrics import ndcg, recall
from variseq.evaluation.significance import mean_interval

HERE = Path(__file__).parent
WORK_FOLDER = ROOT / ".competitors"
QUICK_CPU_MINUTES = 3.0
FEWEST_EVENTS = 3
TORCH = ("setuptools", "torch==2.13.0")
RECTOOLS = Environment("rectools", TORCH, ("rectools[torch]==0.19.0", "torch==2.13.0"))
REPLAY = Environment("replay", TORCH, ("replay-rec[torch]==0.22.0", "torch==2.13.0"))
# Without the three bounds it installs, and fails when it is imported.
RECBOLE = Environment("recbole", TORCH, ("recbole==1.2.1", "setuptools<81", "numpy<2", "pandas<3", "torch==2.13.0"))
IMPLICIT = Environment("implicit", (), ("implicit==0.7.3",))


@dataclass(frozen=True)
class System:
    """A row of the table: its script and variant. `environment` is None for the project's own."""

    script: str
    variant: str
    environment: Environment | None = None
    rows_are_prefixes: bool = False
    has_epochs: bool = True


SYSTEMS = {
    "variseq": System("variseq_system.py", "small"),
    "rectools-sasrec": System("rectools_system.py", "sasrec", RECTOOLS),
    "rectools-esasrec": System("rectools_system.py", "esasrec", RECTOOLS),
    "replay-sasrec": System("replay_system.py", "sasrec", REPLAY),
    "recbole-sasrec": System("recbole_system.py", "sasrec", RECBOLE, rows_are_prefixes=True),
    "implicit-als": System("implicit_system.py", "als", IMPLICIT, has_epochs=False),
    "implicit-bm25": System("implicit_system.py", "bm25", IMPLICIT, has_epochs=False),
}
DATA_SETS = ("ml-100k", "amazon-beauty", "ml-1m")
MAX_SEQ_LEN = {"ml-1m": 200}
DROPOUT = {"amazon-beauty": 0.5}
"""0.2 elsewhere: default of RecTools and RePlay, advised for MovieLens by RecBole's authors; 0.5: SASRec on Amazon."""
USERS_PER_BATCH = {"ml-100k": 32}
"""128 is usual; the 943 users of MovieLens-100K would then make 8 steps an epoch."""
PREFIXES_PER_BATCH = {"ml-1m": 128}
"""512 elsewhere; with rows four times as long that would hold 9 GB."""


@dataclass(frozen=True)
class Plan:
    """Which systems to run, how long, and where the data and the records are."""

    systems: tuple[str, ...]
    cpu_minutes: float
    only_cost: bool
    seed: int
    turn_seconds: float
    data: Path
    out: Path
    work_folder: Path


def settings_of(system: System, data: str, plan: Plan) -> Settings:
    """Size, layers and learning rate are the same for all; dropout is what the literature settled on."""
    batch = PREFIXES_PER_BATCH.get(data, 512) if system.rows_are_prefixes else USERS_PER_BATCH.get(data, 128)
    return Settings(
        variant=system.variant, max_seq_len=MAX_SEQ_LEN.get(data, 50), dropout=DROPOUT.get(data, 0.2),
        batch_rows=batch, cpu_minutes=plan.cpu_minutes, only_cost=plan.only_cost, seed=plan.seed,
    )  # fmt: skip


def write_sequences(name: str, plan: Plan) -> tuple[Path, dict[str, Any]]:
    """The data set as lines "user item item ...", oldest first, and its description. Raises InputError."""
    folder = plan.data / name
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist. Give with --data the folder that holds a folder {name}.")
    histories, vocabulary = (log := load_dataset(name, folder).log).histories, log.vocabulary
    if (histories.lengths < FEWEST_EVENTS).any():
        raise InputError(f"{name} has users with fewer than {FEWEST_EVENTS} events. Give the 5-core file.")
    path = plan.work_folder / "data" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row, user in enumerate(vocabulary.user_ids(range(vocabulary.num_users))):
            items = vocabulary.item_ids(histories.history(row).item)
            file.write(" ".join(map(str, [user, *items])) + "\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    counts = {"num_users": len(histories), "num_items": vocabulary.num_items, "num_events": histories.num_events}
    return path, {"name": name, "title": dataset_spec(name).title, "sha256": digest, **counts}


def run_data_set(plan: Plan, name: str) -> list[str]:
    """Append the record of each system that has none yet; the names of those that failed."""
    path, data = write_sequences(name, plan)
    finished, failed = read_records(plan.out), []
    pending: dict[str, Settings] = {}
    for system in plan.systems:
        settings = settings_of(SYSTEMS[system], name, plan)
        is_wanted = SYSTEMS[system].has_epochs or not plan.only_cost
        if is_wanted and not is_finished(finished, system, data, settings):
            pending[system] = settings
    print(f"{name}: {', '.join(pending) or 'all systems are in the records already'}", flush=True)
    works = [work_of(plan, name, system, path, settings) for system, settings in pending.items()]

    def on_finish(work: Work, code: int) -> None:
        answer = work.log.with_name("answer.json")
        if code or not answer.exists():
            failed.append(work.name)
            print(f"{name}: {work.name} FAILED with exit code {code}; see {work.log}", flush=True)
            return
        found = records_of(work.name, data, pending[work.name], json.loads(answer.read_text("utf-8")), path)
        append_records(plan.out, found)
        for record in found:
            print(f"{name}: {record['case']['system']}, NDCG@10 {record['metrics'].get('ndcg@10')}", flush=True)

    take_turns(works, plan.turn_seconds, on_finish)
    return failed


def is_finished(records: list[Record], system: str, data: dict[str, Any], settings: Settings) -> bool:
    """Whether a record has these settings and data; the commit is not compared, so that a benchmark can go on."""
    wanted = (system, data["sha256"], asdict(settings))
    return any(
        (one["case"]["system"], one["data"]["sha256"], {key: one["settings"].get(key) for key in wanted[2]}) == wanted
        for one in records
    )


def work_of(plan: Plan, data: str, name: str, path: Path, settings: Settings) -> Work:
    """The process of a system, with a folder for its job, its answer and what it prints."""
    folder = plan.work_folder / "work" / f"{data}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    Job(path, answer, settings).write(folder / "job.json")
    python = python_of(SYSTEMS[name].environment, plan.work_folder)
    command = [str(python), "-W", "ignore", str(HERE / SYSTEMS[name].script), str(folder / "job.json")]
    own = {"PYTHONPATH": str(ROOT)} if SYSTEMS[name].environment is None else {}
    return Work(name, command, folder / "output.txt", ONE_THREAD | {"PYTHONHASHSEED": "0"} | own)


def records_of(name: str, data: dict[str, Any], settings: Settings, answer: dict[str, Any], path: Path) -> list[Record]:
    """What a system measured of itself, and how good its lists are; baselines that it evaluated are records too."""
    facts = dict(answer["facts"])
    facts_of_settings = ("curve", "versions", "own_settings", "stop_reason", "was_improving", "calibration")
    own = asdict(settings) | {key: facts.pop(key) for key in facts_of_settings if key in facts}
    baselines = facts.pop("baselines", {})
    if not settings.only_cost:
        facts |= evaluate_lists({int(user): items for user, items in answer["lists"].items()}, Sequences.read(path))
    # A run that its budget stopped is fit for a table about cost alone.
    own["is_converged"] = own.get("stop_reason") in ("patience", "schedule", "one fit")
    records = []
    for system, metrics, stated in [
        (name, facts, own),
        *((one, row, asdict(settings)) for one, row in baselines.items()),
    ]:
        kept = stated if system == name else stated | {"is_converged": True, "stop_reason": "one fit"}
        case = {"data": data["name"], "system": system, "only_cost": settings.only_cost}
        seed = settings.seed if system == name else None
        records.append(record_of("competitors", case, metrics, seed=seed, settings=kept, data=data, threads=1))
    return records


def evaluate_lists(lists: Lists, sequences: Sequences) -> dict[str, Any]:
    """Test NDCG@10 and hit rate with 95 % intervals, and how many lists held seen items or were short.

    Items of the user's own history are no candidates: they are removed and what stands below moves up. A target that
    never occurs in training is a miss, as in `variseq.evaluation`; so is a user without a list.
    """
    trained = {item for history in sequences.train.values() for item in history}
    users = np.array(list(sequences.test))
    rank = np.full(len(users), np.inf)
    num_with_seen = num_short = 0
    for row, user in enumerate(sequences.test):
        given, seen, target = lists.get(user, []), set(sequences.before_test[user]), sequences.test[user]
        kept = [item for item in dict.fromkeys(given) if item not in seen][:K]
        num_with_seen += any(item in seen for item in given)
        num_short += len(kept) < K
        if target in kept and target in trained:
            rank[row] = kept.index(target) + 1
    result: dict[str, Any] = {"num_queries": len(users), "lists_with_seen": num_with_seen, "lists_short": num_short}
    for name, values in ((f"ndcg@{K}", ndcg(rank, K)), (f"hit_rate@{K}", recall(rank, K))):
        result |= {name: float(values.mean()), f"{name}_interval": list(mean_interval(users, values))}
    return result


def main(words: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "competitors")
    parser.set_defaults(out=WORK_FOLDER / "competitors.jsonl")
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"data sets (default: all): {', '.join(DATA_SETS)}")
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each data set")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="names with commas between (default: all)")
    parser.add_argument("--cpu-minutes", type=float, help="of training, for each system (default: 60; quick: 3)")
    parser.add_argument("--only-cost", action="store_true", help="time a few batches only")
    parser.add_argument("--quick", action="store_true", help="ml-100k, and the cost on amazon-beauty")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turn", type=float, default=30.0, help="seconds that a system runs before the next one does")
    parser.add_argument("--work-folder", type=Path, default=WORK_FOLDER, help="environments and files under way")
    given = parser.parse_args(words)
    failed: list[str] = []

    def work() -> None:
        jobs = [(name, given.only_cost) for name in given.sets or (DATA_SETS[:1] if given.quick else DATA_SETS)]
        for name, only_cost in [*jobs, *([("amazon-beauty", True)] if given.quick else [])]:
            failed.extend(run_data_set(_plan(given, only_cost), name))

    return exit_code(work) or (1 if failed else 0)


def _plan(given: argparse.Namespace, only_cost: bool) -> Plan:
    systems = tuple(name.strip() for name in given.systems.split(","))
    if unknown := [name for name in systems if name not in SYSTEMS]:
        raise InputError(f"There is no system {unknown[0]!r}. There are: {', '.join(SYSTEMS)}.")
    minutes = given.cpu_minutes or (QUICK_CPU_MINUTES if given.quick else 60.0)
    places = (given.data.resolve(), given.out.resolve(), given.work_folder.resolve())
    return Plan(systems, minutes, only_cost, given.seed, given.turn, *places)


if __name__ == "__main__":
    sys.exit(main())
