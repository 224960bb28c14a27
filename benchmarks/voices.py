"""Finished runs without a refit into what each voice of the forecast is worth: one network, a voice silenced at a time.

    python benchmarks/voices.py RUN ...        # adds them to the results; the table stands in docs/ablations.md

A silenced voice says that all items are alike, as the voice "anything" does. For each row temperatures and gate are
fitted anew on validation; then the forecast is asked on the test part, and held against that of all voices, paired by
user. Runs with a refit have learned from validation, so nothing can be fitted there: an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from marked_file import signed, write_between_markers
from posteriors_runs import Run
from provenance import provenance, short_commit
from record_file import exit_code, write_record

from variseq.evaluation.bootstrap import mean_interval
from variseq.evaluation.evaluate import evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.ranking.calibration import Calibration
from variseq.recommend.baselines import LastItemTransitions, Popular
from variseq.recommend.calibrate import calibrate
from variseq.recommend.forecast import Forecast
from variseq.recommend.memory import Memory

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "voices.json"
DOCUMENT = ROOT / "docs" / "ablations.md"
MARKERS = ("<!-- voices:begin -->", "<!-- voices:end -->")
ALL = "all voices"
Row = dict[str, Any]


def memories(run: Run) -> dict[str, Memory]:
    """Each row's memory, counted in the training part."""
    known, num_items = run.model._split()[0].known(), run.test.num_items
    uniform = torch.full((num_items,), -float(torch.tensor(num_items).log()))

    def counted() -> Memory:
        return Memory(num_items).fit(known)

    rows = {name: counted() for name in (ALL, "no transitions", "no trend", "popularity in place of the trend")}
    rows["no transitions"].transitions = LastItemTransitions(num_items)
    rows["no trend"].trend.log_share = uniform
    rows["popularity in place of the trend"].trend.log_share = Popular(num_items).fit(known).log_share
    rows["the network and anything"] = Memory(num_items)
    return rows


def judged(run: Run, memory: Memory) -> tuple[Row, Evaluation]:
    """The forecast with this memory: what it comes to on validation and on test."""
    part, options = run.validation()
    num_samples = run.model._learned().calibration.num_samples
    learned = calibrate(Forecast(run.network, memory, Calibration(num_samples)), part, options)
    tuned = Forecast(run.network, memory, learned.calibration)
    evaluation = evaluate(tuned, run.test, run.options)
    test = {name: round(float(evaluation.metric(name).mean()), 5) for name in ("ndcg", "nll")}
    validation = {name: round(value, 5) for name, value in learned.found.items()}
    return {"validation": validation, "test": test, "gate": learned.calibration.to_json()["gate"]}, evaluation


def rows_of(run: Run) -> dict[str, Row]:
    """All rows of a run, with what they differ by from the first."""
    rows: dict[str, Row] = {}
    first: Evaluation | None = None
    for name, memory in memories(run).items():
        rows[name], evaluation = judged(run, memory)
        first = first or evaluation
        for metric in ("ndcg", "nll"):
            low_high = mean_interval(evaluation.user, evaluation.metric(metric) - first.metric(metric))
            rows[name][f"{metric}_against_all"] = [round(float(value), 5) for value in low_high]
        found = rows[name]
        print(
            f"{name}: validation {found['validation']['ndcg']:.4f}, {found['validation']['nll']:.3f}; test "
            f"{found['test']['ndcg']:.4f} {found['ndcg_against_all']}, {found['test']['nll']:.3f} "
            f"{found['nll_against_all']}",
            flush=True,
        )
    return rows


def table(runs: dict[str, Any]) -> str:
    """The results in Markdown, a row for each run and silenced voice; intervals are of what differs from all voices."""
    lines = [
        "| run | voices | validation: NDCG@10 | NLL | test: NDCG@10 | against all | NLL | against all |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for run, found in runs.items():
        for name, row in found["rows"].items():
            cells = [f"{row['validation']['ndcg']:.4f}", f"{row['validation']['nll']:.3f}"]
            for metric, digits in (("ndcg", 4), ("nll", 3)):
                low, high = (signed(value, digits) for value in row[f"{metric}_against_all"])
                cells += [f"{row['test'][metric]:.{digits}f}", "–" if name == ALL else f"{low} to {high}"]
            lines.append(f"| {run} | {name} | {' | '.join(cells)} |")
    commits = ", ".join(sorted({short_commit(found) for found in runs.values()}))
    seeds = ", ".join(sorted({str(found["seed"]) for found in runs.values()}))
    note = f"<sub>Seed {seeds}, no refit; 95 % intervals over users. Commit {commits}; `benchmarks/voices.py`.</sub>"
    return "\n".join([*lines, "", note, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folders of runs with training.refit_fraction=0"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}

    def work() -> None:
        for folder in arguments.runs:
            run = Run.of(folder, num_users=None)
            known[folder.name] = {**run.described(), **provenance(), "rows": rows_of(run)}
        write_record(RESULT, known)
        write_between_markers(DOCUMENT, MARKERS, table(known))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
