"""What was aimed at in accuracy and cost, and what the latest records say of it, into the table of docs/targets.md.

    python benchmarks/targets.py      # reads results/, measures nothing

The targets and the figures of others are those of docs/targets.md, which names their sources. Costs are ratios within
one run of the bench against rivals. What was aimed at for posteriors is judged in docs/posteriors.md.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marked_file import write_between_markers
from record_file import exit_code, read_records
from results_table import latest_by_seed
from results_table import read_records as records_of_recipes
from training_share import AIM

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks" / "peers"))
from table import latest, seconds_to_reach, speed_of  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "targets.md"
MARKERS = ("<!-- targets:begin -->", "<!-- targets:end -->")
OURS, RECTOOLS, REPLAY, RECBOLE = "variseq", "rectools-sasrec", "replay-sasrec", "recbole-sasrec"
Record = dict[str, Any]
Rows = dict[str, Record]


@dataclass(frozen=True)
class Verdict:
    """What was aimed at, what was found, and whether that is enough."""

    aim: str
    found: str
    is_met: bool


def accuracy(folder: Path) -> Iterator[Verdict]:
    """NDCG@10 on test, means over seeds, of the rows of the README."""
    aims = (
        ("movielens_1m", "MovieLens-1M", 0.186, 0.203),
        ("amazon_beauty", "Amazon Beauty", 0.0611, 0.066),
        ("movielens_1m_with_request_time", "MovieLens-1M with the time of the request", None, 0.2164),
    )
    runs = latest_by_seed(records_of_recipes(folder))
    for recipe, title, needed, hoped in aims:
        values = [record["rows"][0]["ndcg@10"] for record in runs[recipe].records]
        seeds = "1 seed" if len(values) == 1 else f"{len(values)} seeds"
        mean = statistics.fmean(values)
        if needed is not None:
            yield Verdict(f"{title}: NDCG@10 at least {_short(needed)}", f"{_short(mean)} ({seeds})", mean >= needed)
        yield Verdict(f"{title}: NDCG@10 above {_short(hoped)}", f"{_short(mean)} ({seeds})", mean > hoped)


def cost(folder: Path) -> Iterator[Verdict]:
    """Beside rivals, each data set in one run of the bench."""
    of_data = latest(read_records(folder / "peers.jsonl"))
    beauty, _ = of_data["amazon-beauty"]
    ours = beauty[OURS]
    for rival in (RECTOOLS, REPLAY, RECBOLE):
        yield _at_least(f"Beauty: positions a second, at least 20 × {rival}", _faster(ours, beauty[rival]), 20)
    cost_of_movies = of_data["ml-1m"][1]
    faster = _faster(cost_of_movies[OURS], cost_of_movies[RECTOOLS])
    yield _at_least(f"MovieLens-1M: positions a second, at least 4 × {RECTOOLS}", faster, 4)
    for rival, times in ((RECTOOLS, 10), (RECBOLE, 40)):
        yield seconds_to_best(ours, beauty[rival], times)
    for name, title, field in (
        ("amazon-beauty", "Beauty", "peak_megabytes"),
        ("ml-100k", "MovieLens-100K", "peak_megabytes"),
        ("ml-1m", "MovieLens-1M", "training_peak_megabytes"),
    ):
        whole, alone = of_data[name]
        yield memory(whole or alone, title, field)
    times = beauty[RECTOOLS]["recommend_all_seconds"] / ours["recommend_all_seconds"]
    yield _at_least(f"Beauty: lists for everybody, at least 5 × as fast as {RECTOOLS}", times, 5)


def _faster(ours: Record, rival: Record) -> float:
    return (speed_of(ours) or 0.0) / (speed_of(rival) or float("inf"))


def seconds_to_best(ours: Record, rival: Record, times: int) -> Verdict:
    reached = seconds_to_reach(ours["curve"], rival["best_validation_ndcg"])
    aim = f"Beauty: the best validation NDCG of {rival['system']} in at most 1/{times} of its seconds"
    if reached is None:
        return Verdict(aim, "not reached", False)
    ratio = rival["seconds_to_best"] / reached
    still = ", still improving when its time was up" if rival["was_improving"] else ""
    return Verdict(
        aim, f"1/{ratio:,.0f}: {reached:,.0f} s and {rival['seconds_to_best']:,.0f} s{still}", ratio >= times
    )


def memory(rows: Rows, title: str, field: str) -> Verdict:
    rivals = {name: rows[name][field] for name in (RECTOOLS, REPLAY, RECBOLE) if name in rows}
    leanest = min(rivals, key=lambda name: rivals[name])
    share = rows[OURS][field] / rivals[leanest]
    found = f"{share:.2f}: {rows[OURS][field]:,.0f} MB and {rivals[leanest]:,.0f} MB ({leanest})"
    return Verdict(f"{title}: at most half of the memory of the leanest of the three", found, share <= 0.5)


def _at_least(aim: str, times: float, needed: float) -> Verdict:
    return Verdict(aim, f"{times:.2f} ×", times >= needed)


def machine(folder: Path) -> Iterator[Verdict]:
    """What needs no rival."""
    for shape in _json(folder / "training_share.json")["shapes"]:
        share = shape["share_of_peak"]
        aim = f"{shape['name']}: at least {100 * AIM:.0f} % of the peak of a matrix product in training"
        yield Verdict(aim, f"{100 * share:.0f} %", share >= AIM)
    rows = {row["what"]: row for row in _json(folder / "kernels.json")["rows"]}
    for width, sizes in ((16, "tiny and small"), (32, "medium")):
        over = rows[f"additive attention, 20 histories x 200 events, hidden width {width}"]["chunked_over_dot"]
        aim = f"additive attention at 200 events, {width} hidden units ({sizes}): at most 3 × the dot product"
        yield Verdict(aim, f"{over:.1f} ×", over <= 3)
    long = rows["attention over one history of 2000 events, hidden width 16"]["additive_peak_megabytes"]
    yield Verdict("attention over 2,000 events within 4,096 MB", f"{long:,.0f} MB", long <= 4096)
    starts = {row["job"]: row["seconds"] for row in _json(folder / "start_time.json")["rows"]}
    for job, most in (("import variseq", 0.3), ("variseq --help", 0.5)):
        yield Verdict(f"`{job}` in less than {most} s", f"{starts[job]:.2f} s", starts[job] < most)


def _json(path: Path) -> Record:
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def _short(value: float) -> str:
    return f"{value:.4f}".rstrip("0").removeprefix("0")


def table(folder: Path) -> str:
    """A row for each target; **missed** where it is not reached."""
    parts = {"accuracy": accuracy, "cost": cost, "machine": machine}
    verdicts = [verdict for part in parts.values() for verdict in part(folder)]
    rows = [(one.aim, one.found if one.is_met else f"**missed**: {one.found}") for one in verdicts]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (("aimed at", "found"), ("---", "---"), *rows))


def main() -> int:
    return exit_code(lambda: write_between_markers(DOCUMENT, MARKERS, table(RESULTS)))


if __name__ == "__main__":
    sys.exit(main())
