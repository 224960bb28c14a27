"""One thing of the model changed at a time, on Amazon Beauty, judged on validation: what each is worth.

    python benchmarks/ablations.py DATA [--seeds 0,1] [--changes 0,3,7]    # resumable: what is there is not run again
    python benchmarks/ablations.py --table       # only writes the table of the results into docs/ablations.md

DATA is the folder of the data set (see recipes/amazon_beauty.py). Leave-one-out, size small, categories, no refit: the
test part is never asked. A run takes two to ten minutes on one core. NDCG@10 and NLL are those of the calibrated
forecast on 10,000 validation users; about ten numbers of it were fitted on 2,065 of them, alike for all rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from ablation_changes import CHANGES, Change
from marked_file import signed, write_between_markers
from provenance import provenance, short_commit
from record_file import Record, append_records, changed_settings, exit_code, read_records

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.log import LogPart
from variseq.terminal.run_config import run_config
from variseq.training.symptoms import flat_settings

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "recipes"))
from amazon_beauty import FILES, LEAVE_ONE_OUT, log_in_order  # noqa: E402
from data_files import find_files, sha256_of  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "ablations.jsonl"
DOCUMENT = ROOT / "docs" / "ablations.md"
MARKERS = ("<!-- ablations:begin -->", "<!-- ablations:end -->")
WITHOUT_REFIT = {"training.refit_fraction": 0.0}
DECIDE = ("change", "settings", "sha256")
"""What a record must have in common with a row so that the row need not be run again; the seed is a setting."""


def model_of(change: Change, seed: int) -> VariationalAttention:
    """What is trained for a row."""
    settings = run_config(None, {**LEAVE_ONE_OUT, **WITHOUT_REFIT, **change.settings, "seed": seed}, ())
    return VariationalAttention(settings.size, seed, "cpu", settings.model, settings.training)


def resolved(change: Change, train: LogPart, seed: int) -> dict[str, Any]:
    """All settings of a row, those that follow from the log among them."""
    settings = model_of(change, seed)._settings(train)
    return flat_settings(settings.network.model_dump(), settings.training.model_dump())


def judged(change: Change, parts: tuple[LogPart, LogPart], seed: int) -> Record:
    """A run with a change, and what it comes to on validation."""
    model = model_of(change, seed)
    begun = time.process_time()
    with change.patch():
        model.fit(*parts)
    checkpoint = model.checkpoint
    assert checkpoint is not None
    chosen = next(epoch for epoch in reversed(checkpoint.metrics) if epoch["is_best"])
    return {
        "change": change.name,
        "seed": seed,
        **{name: round(value, 5) for name, value in checkpoint.manifest["forecast"]["found"].items()},
        "network_nll": round(chosen["validation_nll"], 5),
        "epoch": chosen["epoch"] + 1,
        "num_epochs": len(checkpoint.metrics),
        "rate": round(chosen["health"]["rate"], 2),
        "cpu_seconds": round(time.process_time() - begun, 1),
        **provenance(),
    }


def run_all(data: Path, seeds: Sequence[int], changes: Sequence[Change], out: Path) -> None:
    """What is not in the file yet, one record a line as they come."""
    files = find_files(data, *FILES)
    log = log_in_order(files, run_config(None, LEAVE_ONE_OUT, ()).read)
    parts = log.split("leave-one-out")[:2]
    hashes = {file.name: sha256_of(file) for file in files}
    done = [{name: record[name] for name in DECIDE} for record in read_records(out)]
    for seed in seeds:
        for change in changes:
            asked = {"change": change.name, "settings": resolved(change, parts[0], seed), "sha256": hashes}
            if asked in done:
                continue
            print(f"seed {seed}: {change.name}", flush=True)
            record = judged(change, parts, seed) | asked
            append_records(out, [record])
            print(f"    NDCG@10 {record['ndcg']:.4f}, {record['nll']:.3f} nats, {record['cpu_seconds']:.0f} s")


def table(records: Iterable[Record]) -> str:
    """The table in Markdown: a row for each change, in their order, means over seeds beside the row it is held against.

    The rows without noise are held against the first of them, those with noise against the default's. Records of other
    defaults than those of the latest first row are left out.
    """
    of_change: dict[str, dict[int, Record]] = {}
    for record in _of_today(list(records)):
        of_change.setdefault(record["change"], {})[record["seed"]] = record
    lines = [
        "| change | seeds | NDCG@10 | | NLL | | NLL, network alone | best epoch | CPU, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for change in CHANGES:
        if change.name in of_change:
            base = of_change.get(CHANGES[0].name, {}) if _is_without_noise(change) else of_change.get(WITH_NOISE, {})
            lines.append(_line(change, of_change[change.name], base))
    every = [record for runs in of_change.values() for record in runs.values()]
    commits = ", ".join(sorted({short_commit(record) for record in every}))
    cpus = ", ".join(sorted({record["hardware"]["cpu"] for record in every}))
    note = f"{cpus}, one thread. Commit {commits}; `benchmarks/ablations.py`."
    return "\n".join([*lines, "", f"<sub>{note}</sub>", ""])


def _of_today(records: list[Record]) -> list[Record]:
    """The records whose settings are those of the latest first row, but for what their change is about."""
    base = next((record["settings"] for record in reversed(records) if record["change"] == CHANGES[0].name), {})
    own = {change.name: {*change.settings, *CHANGES[0].settings, "training.seed"} for change in CHANGES}
    return [
        record for record in records if own[record["change"]].issuperset(changed_settings(record["settings"], base))
    ]


WITH_NOISE = next(change.name for change in CHANGES if not change.settings)


def _is_without_noise(change: Change) -> bool:
    return change.settings.get("training.deterministic_fraction") == 1.0


def _line(change: Change, runs: dict[int, Record], base: dict[int, Record]) -> str:
    def mean(name: str) -> float:
        return statistics.fmean(record[name] for record in runs.values())

    shared = sorted(runs.keys() & base.keys())
    ndcg = nll = "–"
    if shared and change.name not in (CHANGES[0].name, WITH_NOISE):
        by = statistics.fmean(runs[seed]["ndcg"] / base[seed]["ndcg"] - 1 for seed in shared)
        ndcg = f"{signed(100 * by, 1)} %"
        nll = signed(statistics.fmean(runs[seed]["nll"] - base[seed]["nll"] for seed in shared), 3)
    name = f"**{change.name}**" if change.name in (CHANGES[0].name, WITH_NOISE) else change.name
    epochs = ", ".join(str(runs[seed]["epoch"]) for seed in sorted(runs))
    figures = f"{mean('ndcg'):.4f} | {ndcg} | {mean('nll'):.3f} | {nll} | {mean('network_nll'):.3f}"
    return f"| {name} | {len(runs)} | {figures} | {epochs} | {mean('cpu_seconds'):.0f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA", help="folder of the data set")
    parser.add_argument("--seeds", default="0", help="seeds, with commas between them")
    parser.add_argument("--changes", default="", help="numbers of rows, from 0, with commas; all by default")
    parser.add_argument("--out", type=Path, default=RESULT, help="a .jsonl file to which records are appended")
    parser.add_argument("--table", action="store_true", help="only write the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def work() -> None:
        if not arguments.table:
            if arguments.data is None:
                raise InputError("Name the folder of the data set, or ask for --table.")
            rows = [CHANGES[int(number)] for number in arguments.changes.split(",") if number] or CHANGES
            run_all(arguments.data, [int(seed) for seed in arguments.seeds.split(",")], rows, arguments.out)
        write_between_markers(DOCUMENT, MARKERS, table(read_records(arguments.out)))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
