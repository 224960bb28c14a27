"""Runs and their twins without noise into what the noise buys and costs on each data set, paired by user.

    python benchmarks/twins.py --title "MIND" RUN TWIN      # a run of a recipe and its twin; appended to the results
    python benchmarks/twins.py --table                      # only writes the table of the results into
    docs/posteriors.md

The twin is the same recipe and seed with `--set training.deterministic_fraction=1`. Of one title and seed the latest
record counts. Several seeds together, and more than these two questions, are the work of posteriors.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from marked_file import signed, write_between_markers
from provenance import provenance, short_commit
from record_file import Record, append_records, exit_code, read_records

from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "twins.jsonl"
DOCUMENT = ROOT / "docs" / "posteriors.md"
MARKERS = ("<!-- twins:begin -->", "<!-- twins:end -->")
DIGITS = {"nll": 3, "ndcg@10": 4}


def record_of(title: str, run: Path, twin: Path) -> Record:
    """What the two have, and what they differ by. Raises InputError for runs that are no such pair."""
    model, beside = load(run), load(twin)
    if not _noise_free_share(model) < 1 <= _noise_free_share(beside) or model.seed != beside.seed:
        raise InputError(f"{run} and {twin} are no run with noise and one without of the same seed. Give such two.")
    results = model.evaluate(k=10, beside={"twin": beside})
    rows = {name: results.row(name) for name in ("variseq", "twin")}
    compared = {one["metric"]: one for one in results.table["comparisons"] if one["beside"] == "twin"}
    return {
        "title": title,
        "seed": model.seed,
        "num_users": compared["nll"]["num_users"],
        "metrics": {
            metric: {
                **{name: round(row[metric], 5) for name, row in rows.items()},
                "difference": round(compared[metric]["difference"], 5),
                "interval": [round(bound, 5) for bound in compared[metric]["interval"]],
                "p_value": round(compared[metric]["p_value"], 5),
            }
            for metric in DIGITS
        },
        **provenance(),
    }


def _noise_free_share(model: VariationalAttention) -> float:
    assert model.checkpoint is not None
    share: float = model.checkpoint.config["training"]["deterministic_fraction"]
    return share


def table(records: Sequence[Record]) -> str:
    """A row for each data set and seed, in the order in which they came, in Markdown."""
    latest = {(one["title"], one["seed"]): one for one in records}
    lines = [
        "| data, seed | test users | NLL: ours, twin | difference | NDCG@10: ours, twin | difference |",
        "|---|---:|---|---|---|---|",
    ]
    for (title, seed), one in latest.items():
        cells = [f"{title}, {seed}", f"{one['num_users']:,}"]
        for metric, digits in DIGITS.items():
            found = one["metrics"][metric]
            cells.append(f"{found['variseq']:.{digits}f}, {found['twin']:.{digits}f}")
            low, high = (signed(bound, digits + 1) for bound in found["interval"])
            cells.append(f"{signed(found['difference'], digits + 1)} [{low}, {high}], p = {found['p_value']:.4f}")
        lines.append(f"| {' | '.join(cells)} |")
    commits = ", ".join(sorted({short_commit(one) for one in latest.values()}))
    note = f"95 % intervals over users; p by a paired test, each alone. Commit {commits}; `benchmarks/twins.py`."
    return "\n".join([*lines, "", f"<sub>{note}</sub>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN TWIN")
    parser.add_argument("--title", help="the data set, as the table names it")
    parser.add_argument("--out", type=Path, default=RESULT, help="a .jsonl file to which the record is appended")
    parser.add_argument("--table", action="store_true", help="only write the table")
    asked = parser.parse_args()
    torch.set_num_threads(1)

    def work() -> None:
        if not asked.table:
            if len(asked.runs) != 2 or not asked.title:
                raise InputError("Give a run, its twin and --title, or ask for --table.")
            append_records(asked.out, [record_of(asked.title, *asked.runs)])
        write_between_markers(DOCUMENT, MARKERS, table(read_records(asked.out)))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
