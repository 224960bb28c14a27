"""Data sets into one record a system: trained, timed and judged side by side on one core.

    python benchmarks/peers/run.py ml-100k amazon-beauty --data DATA --cpu-minutes 60
    python benchmarks/peers/run.py ml-1m --data DATA --only-cost      # a few batches of each: cost, no quality
    python benchmarks/peers/run.py --data DATA --quick                # under 30 minutes, into .peers/quick.jsonl

DATA holds a folder for each data set: ml-100k/u.data, amazon-beauty/Beauty.txt, ml-1m/sequences_5core_items.txt.
Records go to .peers/peers.jsonl, and what stands there is not run again, so that a bench that was broken off goes on;
without that file everything is measured anew. `table.py --add` takes them in among the published ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_sets import DATA_SETS, SequenceFile, write_sequences
from environments import python_of
from measure import Job, Settings
from records import ROOT, append_records, is_finished, now, read_records, record_of
from slices import Work, run_in_slices
from systems import SYSTEMS, SystemEntry

from variseq.errors import InputError, VariseqError

HERE = Path(__file__).parent
QUICK_CPU_MINUTES = 3.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


@dataclass(frozen=True)
class Plan:
    """What is asked for: the systems, how, in what slices, where everything lies and where the records go."""

    systems: tuple[SystemEntry, ...]
    cpu_minutes: float
    only_cost: bool
    seed: int
    slice_seconds: float
    data: Path
    out: Path
    workplace: Path


def run_data_set(plan: Plan, name: str) -> list[str]:
    """Append the record of each system that has none yet; the names of those that failed."""
    file = write_sequences(name, plan.data, plan.workplace / "data")
    finished, begun, failed = read_records(plan.out), now(), []
    asked = {
        entry.name: (entry, entry.settings(name, plan.cpu_minutes, plan.only_cost, plan.seed))
        for entry in plan.systems
        if entry.has_epochs or not plan.only_cost
    }
    asked = {
        system: (entry, settings)
        for system, (entry, settings) in asked.items()
        if not is_finished(finished, system, file, settings)
    }
    print(f"{name}: {', '.join(asked) or 'all systems are in the results already'}", flush=True)
    works = [work_of(plan, entry, settings, file) for entry, settings in asked.values()]

    def on_finish(work: Work, code: int) -> None:
        answer = work.log.with_name("answer.json")
        if code or not answer.exists():
            failed.append(work.name)
            print(f"{name}: {work.name} FAILED with exit code {code}; see {work.log}", flush=True)
            return
        given = json.loads(answer.read_text(encoding="utf-8"))
        record = record_of(work.name, file, asked[work.name][1], given) | {"bench_begun": begun}
        append_records(plan.out, [record])
        ndcg = "" if record["test"] is None else f", test NDCG@10 {record['test']['ndcg']:.4f}"
        speed = record["positions_per_second"]
        print(f"{name}: {work.name} done{f', {speed:,.0f} positions/CPU s' if speed else ''}{ndcg}", flush=True)

    run_in_slices(works, plan.slice_seconds, on_finish)
    return failed


def work_of(plan: Plan, entry: SystemEntry, settings: Settings, file: SequenceFile) -> Work:
    """The process of a system, with a folder for its question, its answer and what it prints."""
    folder = plan.workplace / "work" / f"{file.data.name}-{entry.name}"
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    Job(file.path, answer, settings).write(folder / "job.json")
    python = python_of(entry.environment, plan.workplace)
    command = [str(python), "-W", "ignore", str(HERE / entry.script), str(folder / "job.json")]
    return Work(entry.name, command, folder / "output.txt", ONE_THREAD)


def main(words: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    try:
        plan = _plan(arguments, arguments.only_cost)
        names = arguments.sets or (["ml-100k"] if arguments.quick else list(DATA_SETS))
        failed = [system for name in names for system in run_data_set(plan, name)]
        if arguments.quick:
            failed += run_data_set(_plan(arguments, only_cost=True), "amazon-beauty")
    except VariseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; what was finished is in {plan.out}. The same command goes on.", file=sys.stderr)
        return 130
    return 1 if failed else 0


def _plan(arguments: argparse.Namespace, only_cost: bool) -> Plan:
    workplace = arguments.workplace.resolve()
    minutes = arguments.cpu_minutes or (QUICK_CPU_MINUTES if arguments.quick else 60.0)
    out = arguments.out or workplace / ("quick.jsonl" if arguments.quick else "peers.jsonl")
    systems = _systems(arguments.systems)
    return Plan(
        systems, minutes, only_cost, arguments.seed, arguments.slice, arguments.data.resolve(), out.resolve(), workplace
    )


def _systems(text: str | None) -> tuple[SystemEntry, ...]:
    if text is None:
        return SYSTEMS
    by_name = {entry.name: entry for entry in SYSTEMS}
    wanted = [name.strip() for name in text.split(",")]
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise InputError(f"There is no system {unknown[0]!r}. There are: {', '.join(by_name)}.")
    return tuple(by_name[name] for name in wanted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"data sets (default: all): {', '.join(DATA_SETS)}")
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each data set")
    parser.add_argument("--systems", help="names with commas between (default: all)")
    parser.add_argument("--cpu-minutes", type=float, help="of training, for each system (default: 60; quick: 3)")
    parser.add_argument("--only-cost", action="store_true", help="time a few batches only")
    parser.add_argument("--quick", action="store_true", help="ml-100k, and the cost on amazon-beauty")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slice", type=float, default=30.0, help="seconds that a system runs before the next one does")
    parser.add_argument("--out", type=Path, help="file of the records (default: peers.jsonl in the workplace)")
    parser.add_argument("--workplace", type=Path, default=ROOT / ".peers", help="environments and files under way")
    return parser


if __name__ == "__main__":
    sys.exit(main())
