"""Finished runs into all that is claimed of their posteriors, one JSON line a data set.

    python benchmarks/posteriors.py --data beauty --variational RUN [RUN ...] --twin RUN [RUN ...]
        [--variational-before-refit RUN [RUN ...] --twin-before-refit RUN [RUN ...]] [--out FILE.jsonl] [--users 1000]
    python benchmarks/posteriors.py --simulated

Runs are named in the order of their seeds. A twin is the same network trained with training.deterministic_fraction=1.
Everything is measured on the test part, on the last event of each user, by each run's own calibrated forecast.
MC-dropout and an ensemble of three twins need a calibration of their own, fitted on validation events that their
networks have not learned from: they are made of runs with training.refit_fraction=0, and held against the variational
runs made so. `--simulated` trains in shops whose true probabilities are known, a minute each.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from posteriors_answers import NUM_USERS, set_sizes, uncertainty_by_length
from posteriors_measures import (
    SHARES,
    comparison,
    conformal,
    mean_rows,
    reliability_curve,
    risk_curve,
    scores,
    selective,
)
from posteriors_runs import (
    POPULAR,
    TWIN,
    UNCALIBRATED,
    VARIATIONAL,
    Judged,
    Models,
    Run,
    judge_controls,
    judge_runs,
    load_runs,
)
from posteriors_simulated import Shops, measure
from posteriors_tables import print_simulated, print_tables
from posteriors_targets import targets_of
from provenance import ROOT, peak_megabytes, provenance
from record_file import append_records, rounded
from rich.console import Console

from variseq.errors import InputError, VariseqError

OUT = ROOT / "benchmarks" / "results" / "posteriors.jsonl"
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
METRICS = ("nll", "ndcg")
WIDTH = 150
"""Characters of a line in a file or a pipe."""
Record = dict[str, Any]


def record_of(data: str, variational: Sequence[Run], twin: Sequence[Run], before_refit: Record | None) -> Record:
    """What is written down of the runs of a data set."""
    models = judge_runs(variational, twin)
    ours = models[VARIATIONAL].evaluations
    sets = conformal(ours, [run.learned.thresholds for run in variational])
    sizes = [set_sizes(run) for run in variational]
    sets["set_size"] = {name: sum(size[name] for size in sizes) / len(sizes) for name in sizes[0]}
    record = {
        "data": data,
        "split_hash": ours[0].protocol["split_hash"],
        "protocol": ours[0].protocol,
        "k": ours[0].k,
        "num_users": len(ours[0].rank),
        **_compared(variational, twin, models),
        "conformal": sets,
        "selective": {
            name: [selective(models[name].evaluations, share) for share in SHARES] for name in (VARIATIONAL, TWIN)
        },
        "uncertainty": mean_rows([uncertainty_by_length(run) for run in variational]),
        "uncertainty_users": min(NUM_USERS, len(ours[0].rank)),
        "curves": _curves(models, ours[0].k),
        "before_refit": before_refit,
    }
    return record | {"targets": targets_of(record)}


def record_before_refit(variational: Sequence[Run], twin: Sequence[Run]) -> Record:
    """Model, twin and controls like with like: all of networks that have learned from the training part alone."""
    controls = judge_controls(twin)
    models = judge_runs(variational, twin)
    # The thresholds were fitted with these very networks: what a refit does to coverage is seen beside it.
    sets = conformal(models[VARIATIONAL].evaluations, [run.learned.thresholds for run in variational])
    return _compared(variational, twin, models | controls) | {"conformal": sets}


def _compared(variational: Sequence[Run], twin: Sequence[Run], models: Models) -> Record:
    """The scores of all models, and the variational one against each of the others."""
    others = [name for name in models if name != VARIATIONAL]
    seeds = [run.model.seed for run in variational]
    summaries = {name: [evaluation.summary() for evaluation in one.evaluations] for name, one in models.items()}
    return {
        "seeds": seeds,
        "runs": {VARIATIONAL: [run.described() for run in variational], TWIN: [run.described() for run in twin]},
        "models": {
            name: scores(summaries[name], one.evaluations[0].k) | {"cpu_seconds": round(one.cpu_seconds, 2)}
            for name, one in models.items()
        },
        "groups": {
            kind: {
                name: mean_rows([summary[f"by_{kind}"] for summary in of_model]) for name, of_model in summaries.items()
            }
            for kind in ("history_length", "item_popularity")
        },
        "comparisons": {
            f"{VARIATIONAL} / {name}": _against(models[VARIATIONAL], models[name], seeds) for name in others
        },
    }


def _against(first: Judged, second: Judged, seeds: Sequence[int]) -> Record:
    """Each metric over seeds and, where there are runs of the same seeds, seed by seed."""
    found: Record = {}
    for metric in METRICS:
        found[metric] = {"over_seeds": comparison(first.evaluations, second.evaluations, metric)}
        if second.has_runs:
            pairs = zip(seeds, first.evaluations, second.evaluations, strict=True)
            found[metric]["by_seed"] = {seed: comparison([one], [other], metric) for seed, one, other in pairs}
    return found


def _curves(models: Models, k: int) -> Record:
    return {
        "reliability": {
            f"top{depth}": {
                name: reliability_curve(models[name].evaluations, depth) for name in (VARIATIONAL, TWIN, UNCALIBRATED)
            }
            for depth in (1, k)
        },
        "risk_coverage": {name: risk_curve(models[name].evaluations) for name in (VARIATIONAL, TWIN)},
    }


def measure_runs(asked: argparse.Namespace) -> Record:
    """The record of the runs that were asked for. Raises InputError for runs that cannot be measured together."""
    if not (asked.data and asked.variational and asked.twin):
        raise InputError("Give --data, --variational and --twin, or --simulated.")
    if not NAME.fullmatch(asked.data):
        raise InputError(f"--data {asked.data!r} is part of a file name. Allowed: small letters, digits and hyphens.")
    if bool(asked.variational_before_refit) != bool(asked.twin_before_refit):
        raise InputError("Give both of --variational-before-refit and --twin-before-refit, or neither.")
    # The lists are checked before anything that takes minutes.
    runs = load_runs(asked.variational, asked.twin, asked.users)
    controls = load_runs(asked.variational_before_refit, asked.twin_before_refit, asked.users)
    for run in [*controls[0], *controls[1]]:
        run.validation()
    before_refit = record_before_refit(*controls) if controls[0] else None
    return record_of(asked.data, *runs, before_refit)


def summary(record: Record) -> Record:
    """What is kept of a record: the groups that pictures show; six figures of all that no picture draws."""
    if "groups" not in record:
        return rounded(record)
    columns = ("group", "num_queries", "nll", "nll_interval", "entropy", "entropy_interval",
               f"ndcg@{record['k']}", f"ece_top{record['k']}")  # fmt: skip
    lengths = record["groups"]["history_length"]
    drawn = {name: [{of: row[of] for of in columns} for row in lengths[name]] for name in (VARIATIONAL, TWIN, POPULAR)}
    before = record["before_refit"] and {
        name: part for name, part in record["before_refit"].items() if name != "groups"
    }
    as_they_are = {name: record[name] for name in ("curves", "conformal")}
    return rounded(record | {"before_refit": before}) | as_they_are | {"groups": {"history_length": drawn}}


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="name of the data set, as pictures are named after it")
    for role in ("variational", "twin", "variational-before-refit", "twin-before-refit"):
        parser.add_argument(f"--{role}", type=Path, nargs="+", default=[], metavar="RUN")
    parser.add_argument("--simulated", action="store_true", help="train in simulated shops in place of judging runs")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--users", type=int, help="ask a random sample of users only, to try things out")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, append; 1 where something is wrong with what was asked."""
    asked, console = arguments(words), Console()
    if not console.is_terminal:
        console.width = WIDTH
    torch.set_num_threads(1)
    begun = time.process_time()
    try:
        if asked.simulated:
            shops = Shops()
            found = {"data": "simulated", "shops": asdict(shops), **measure(shops)}
        else:
            found = measure_runs(asked)
    except VariseqError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 1
    cost = {"cpu_seconds": round(time.process_time() - begun, 1), "peak_megabytes": round(peak_megabytes())}
    record = {"data": found["data"], **provenance(), **cost, **found}
    append_records(asked.out, [summary(record)])
    (print_simulated if asked.simulated else print_tables)(record, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
