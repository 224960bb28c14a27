"""Runs of MovieLens-1M with and without request time into what knowing the time is worth, also where it is exact.

    python benchmarks/request_time.py DATA --with RUN ... --without RUN ...
    python benchmarks/request_time.py DATA --table      # only writes the table of the last result

DATA holds `interactions.parquet`; the runs are those of `recipes/movielens_1m.py` (without) and of its variant
`with_request_time` (with), as many of one as of the other, of the same seeds. Both have one split and the same test
questions, so they are paired by user; a user's value is the mean over seeds. Of the first 2,999 users every time is the
logged one; of the others most are interpolated between a few that are. The two tracks are not to be ranked in one
table of models: what is shown here is what the time is worth.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from marked_file import write_between_markers
from provenance import provenance
from record_file import write_record

from variseq.errors import InputError
from variseq.estimator import load
from variseq.evaluation.bootstrap import mean_interval

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "request_time.json"
DOCUMENT = ROOT / "docs" / "ablations.md"
MARKERS = ("<!-- request-time:begin -->", "<!-- request-time:end -->")
METRICS = ("ndcg", "recall", "nll")
GROUPS = ("all", "every time exact", "times interpolated")
Values = dict[str, np.ndarray]


def users_of_exact_times(interactions: Path) -> set[int]:
    """The users all of whose events have their logged time."""
    table = pa.parquet.read_table(interactions, columns=["user", "timestamp"])
    user, unknown = table["user"].to_numpy(), table["timestamp"].is_null().to_numpy()
    return set(np.unique(user).tolist()) - set(np.unique(user[unknown]).tolist())


def values_of(folder: Path) -> tuple[list[Any], str, int, Values]:
    """User ids in the order of the test questions, the hash of the split, the seed, and each metric by question."""
    model = load(folder)
    evaluation = model.evaluate()["variseq"]
    values = {metric: np.asarray(evaluation.metric(metric)) for metric in METRICS}
    return model.vocabulary.user_ids(evaluation.user), evaluation.protocol["split_hash"], model.seed, values


def mean_over_runs(folders: Sequence[Path]) -> tuple[list[Any], str, list[int], Values]:
    """The same of several runs of one split, values averaged. Raises InputError for different splits."""
    found = [values_of(folder) for folder in folders]
    if len({split for _, split, _, _ in found}) != 1:
        raise InputError("The runs were not made with one split. Give runs of recipes/movielens_1m.py.")
    mean = {metric: np.mean([values[metric] for _, _, _, values in found], axis=0) for metric in METRICS}
    return found[0][0], found[0][1], sorted(seed for _, _, seed, _ in found), mean


def measure(interactions: Path, with_time: Sequence[Path], without: Sequence[Path]) -> dict[str, Any]:
    """Both tracks by group, and their paired difference. Raises InputError where they cannot be paired."""
    users, split, seeds, told = mean_over_runs(with_time)
    others, other_split, other_seeds, untold = mean_over_runs(without)
    if (users, split, seeds) != (others, other_split, other_seeds):
        raise InputError("Runs with and without request time need the same split and the same seeds.")
    exact = users_of_exact_times(interactions)
    is_exact = np.array([user in exact for user in users])
    chosen = dict(zip(GROUPS, (np.ones(len(users), dtype=bool), is_exact, ~is_exact), strict=True))
    rows = [_row(name, inside, told, untold) for name, inside in chosen.items() if inside.any()]
    return {"split_hash": split, "seeds": seeds, "groups": rows}


def _row(name: str, inside: np.ndarray, told: Values, untold: Values) -> dict[str, Any]:
    row: dict[str, Any] = {"group": name, "num_users": int(inside.sum())}
    users = np.arange(int(inside.sum()))
    for metric in METRICS:
        one, other = told[metric][inside], untold[metric][inside]
        row[metric] = {
            "with": float(one.mean()),
            "without": float(other.mean()),
            "difference": float((one - other).mean()),
            "interval": mean_interval(users, one - other),
        }
    return row


def table(record: dict[str, Any]) -> str:
    """The record as the Markdown that stands in the documentation."""
    lines = [
        "| users | | NDCG@10 without | with | difference | Recall@10 with | NLL without | with |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in record["groups"]:
        ndcg, (low, high) = row["ndcg"], row["ndcg"]["interval"]
        lines.append(
            f"| {row['group']} | {row['num_users']:,} | {ndcg['without']:.4f} | {ndcg['with']:.4f} | "
            f"{ndcg['difference']:+.4f} [{low:+.4f} to {high:+.4f}] | {row['recall']['with']:.4f} | "
            f"{row['nll']['without']:.3f} | {row['nll']['with']:.3f} |"
        )
    seeds = ", ".join(map(str, record["seeds"]))
    dirty = " with uncommitted changes" if record["dirty"] else ""
    facts = f"Seeds {seeds}; 95 % interval over users. Commit `{str(record['commit'])[:10]}`{dirty}"
    return "\n".join([*lines, "", f"<sub>{facts}, {record['date'][:10]}; `benchmarks/request_time.py`.</sub>"]) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    """Judge the runs, write the record and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--with", dest="told", type=Path, nargs="+", default=[], metavar="RUN")
    parser.add_argument("--without", dest="untold", type=Path, nargs="+", default=[], metavar="RUN")
    parser.add_argument("--result", type=Path, default=RESULT, help="file of the record")
    parser.add_argument("--table", action="store_true", help="measure nothing; write the table of the record")
    options = parser.parse_args(words)
    if not options.table:
        if not options.told or not options.untold:
            parser.error("runs are needed: --with RUN ... --without RUN ...")
        record = {**provenance(), **measure(options.data / "interactions.parquet", options.told, options.untold)}
        write_record(options.result, record)
    text = table(json.loads(options.result.read_text(encoding="utf-8")))
    print(text)
    if options.result == RESULT:
        write_between_markers(DOCUMENT, MARKERS, text)


if __name__ == "__main__":
    main()
