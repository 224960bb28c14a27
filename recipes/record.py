"""A split log and settings into a finished run, its evaluation, and one record of all that the numbers depend on."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from data_files import sha256_of

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.evaluation.results import Results
from variseq.log import NO_TEST, Log, LogPart
from variseq.model.checkpoint import refuse_existing
from variseq.output.console import console as new_console
from variseq.terminal.run_config import RunConfig, run_config
from variseq.training.display import Display

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from provenance import commit, hardware, peak_megabytes
from record_file import append_records, rounded

Parts = tuple[LogPart, LogPart, LogPart]
Record = dict[str, Any]
CODE = ("variseq", "recipes")
"""What decides the results."""


@dataclass(frozen=True)
class Request:
    """What a recipe is asked for: the folder of the run, a seed, settings to change, and the file of results."""

    out: Path
    seed: int = 0
    changes: tuple[str, ...] = ()
    result: Path | None = None
    quiet: bool = False
    resume: bool = False

    def settings(self, of_recipe: Mapping[str, Any]) -> RunConfig:
        """The recipe's own settings (dotted names), then the seed, then the changes. Raises InputError."""
        return run_config(None, {**of_recipe, "seed": self.seed}, self.changes)


@dataclass(frozen=True)
class Experiment:
    """What is published: the name of the recipe and of its data, the files, the settings, the targets that are judged.

    `notes` says what a reader of the numbers has to know, for example what was left out and how much. `request_time`
    says that the events tell the model when the answer is wanted: a track of its own.
    """

    recipe: str
    data_name: str
    files: list[Path]
    settings: RunConfig
    targets: str = "last"
    notes: list[str] = field(default_factory=list)
    request_time: bool = False


def split(log: Log, settings: RunConfig) -> Parts:
    """The parts that the settings ask for. Raises InputError for a split without a test part: a recipe is judged."""
    if settings.split.test == NO_TEST:
        raise InputError("split.test=none leaves nothing to judge a recipe on. Leave it out.")
    return log.split(settings.split.by, settings.split.test, settings.split.valid, settings.split.targets_of)


def run(experiment: Experiment, log: Log, parts: Parts, request: Request) -> Record:
    """Fit, evaluate beside the baselines, write the run and its evaluation, print the table, append a summary.

    Raises InputError before anything is trained when the run or the record cannot be written.
    """
    refuse_existing(request.out)
    _check_result_file(request.result)
    console = new_console(quiet=request.quiet)
    console.print(log.check())
    for note in experiment.notes:
        console.print(f"note: {note}")
    settings = experiment.settings
    model = VariationalAttention(settings.size, settings.seed, settings.device, settings.model, settings.training)
    train, valid, test = parts
    model.fit(train, valid, request.out, request.resume, Display(quiet=request.quiet))
    begun = time.monotonic()
    results = model.evaluate(test, targets=experiment.targets)
    track = {"request_time": experiment.request_time}
    results.evaluations = [replace(one, protocol=one.protocol | track) for one in results.evaluations]
    table = results.table  # its intervals are drawn here, so they are part of the time
    evaluation_seconds = time.monotonic() - begun
    results.to_json(request.out / "evaluation.json")
    console.print(str(results), soft_wrap=True)
    record = _record(experiment, model, results) | {
        "evaluation_seconds": round(evaluation_seconds, 1),
        "peak_megabytes": round(peak_megabytes()),
        "rows": table["rows"],
    }
    console.print(f"Run: {request.out}", soft_wrap=True)
    if request.result is not None:
        append_records(request.result, [summary(record)])
    return record


def summary(record: Record) -> Record:
    """What is kept of a record: of its rows what tables of results show, and no more figures than they do.

    The whole evaluation with its groups is in the folder of the run.
    """
    k = record["protocol"]["k"]
    names = ("model", f"ndcg@{k}", f"ndcg@{k}_interval", f"recall@{k}", "mrr", "nll", f"ece_top{k}")
    queries = ("num_queries", "seen_targets", "cold_targets")
    rows = [{name: row[name] for name in names} for row in record["rows"]]
    # The queries are the same for all models.
    rows[0] |= {name: record["rows"][0][name] for name in queries}
    kept: Record = rounded(record | {"rows": rows})
    return kept


def _record(experiment: Experiment, model: VariationalAttention, results: Results) -> Record:
    checkpoint = model.checkpoint
    assert checkpoint is not None
    settings, log = experiment.settings, checkpoint.manifest["log"]
    # Paths say nothing about the result, and a good deal about somebody's machine.
    read = settings.read.model_dump(mode="json", exclude={"rejects", "temporary_folder"}, exclude_defaults=True)
    counted = ("num_rows", "num_events", "num_users", "num_items", "rejected", "filtered")
    return {
        "recipe": experiment.recipe,
        **commit(CODE),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "name": experiment.data_name,
            "sha256": {path.name: sha256_of(path) for path in experiment.files},
            **{name: log[name] for name in counted},
            "notes": experiment.notes,
        },
        "protocol": results.table["protocol"],
        "seed": settings.seed,
        "settings": {
            "size": settings.size,
            "read": read,
            "split": settings.split.model_dump(),
            "model": checkpoint.config["model"],
            "training": checkpoint.config["training"],
        },
        "hardware": hardware() | {"device": _device(model.device)},
        "versions": checkpoint.manifest["versions"] | {"python": platform.python_version()},
        "training_seconds": checkpoint.manifest["seconds"],
        "posterior": _posterior(checkpoint.metrics),
    }


def _posterior(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The health of the epoch that was chosen: the last that was the best so far."""
    chosen = next((epoch for epoch in reversed(metrics) if epoch["is_best"]), metrics[-1])
    health = chosen["health"]
    return {
        "epoch": chosen["epoch"],
        "num_epochs": len(metrics),
        "rate": health["rate"],
        "active_share": health["active_share"],
        "swap_gap": health["swap_gap"],
        "alarms": chosen["alarms"],
    }


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _check_result_file(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix != ".jsonl":
        raise InputError(f"--result {path}: records are lines of JSON. Give a file whose name ends in .jsonl.")
    if not path.parent.is_dir() or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"--result {path} cannot be written. Give a file in an existing folder that can be written.")
