"""The records of the bench into the table of rivals in README.md and a chart for each data set.

    python benchmarks/peers/table.py                           # writes both
    python benchmarks/peers/table.py --add .peers/peers.jsonl  # takes in the records of a run of the bench before that
    python benchmarks/peers/table.py --check                   # exit code 1 when the table is not that of the records

Of each data set and system the latest record counts. Behind a number, "12×" says how many times dearer it is than ours.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from chart import write_charts
from records import ROOT, Record, append_records, read_records
from systems import OURS, SYSTEMS

from variseq.errors import InputError, VariseqError

# isort: split
# In the folder above, which `records` has put on the path.
from marked_file import is_between_markers, write_between_markers

MARKERS = ("<!-- peers:begin -->", "<!-- peers:end -->")
NOTHING = "–"
HEADER = (
    "system",
    "NDCG@10",
    "HR@10",
    "positions / s",
    "s to its best",
    "peak, MB",
    "all users, s",
    "one history, ms",
)
COST_HEADER = ("system", "positions / s", "an epoch, s", "peak, MB")
ORDER = {entry.name: place for place, entry in enumerate(SYSTEMS)}
Rows = dict[str, Record]


def latest(records: Iterable[Record]) -> dict[str, tuple[Rows, Rows]]:
    """Data set to its latest records by system: of whole runs, and of systems of which only the cost was measured.

    Raises InputError when records of one data set were made of different files.
    """
    chosen: dict[str, tuple[Rows, Rows]] = {}
    for record in sorted(records, key=lambda record: str(record["date"])):
        name = record["data"]["name"]
        chosen.setdefault(name, ({}, {}))[record["settings"]["only_cost"]][record["system"]] = record
    for name, (whole, cost) in chosen.items():
        if len({record["data"]["sha256"] for record in [*whole.values(), *cost.values()]}) > 1:
            raise InputError(f"The records of {name} were made of different files. Remove those of the other file.")
        for system in whole:
            cost.pop(system, None)
    return {name: (_ordered(whole), _ordered(cost)) for name, (whole, cost) in sorted(chosen.items())}


def not_yet_in(known: Sequence[Record], file: Path) -> list[Record]:
    """The records of a run of the bench that are not among the known ones. Raises InputError without such a file."""
    if not file.is_file():
        raise InputError(f"There are no records at {file}. Run the bench first: make peers DATA=folder.")
    new: list[Record] = []
    for record in read_records(file):
        if record not in known and record not in new:
            new.append(record)
    return new


def _ordered(rows: Rows) -> Rows:
    return dict(sorted(rows.items(), key=lambda row: (ORDER.get(row[0], len(ORDER)), row[0])))


def peers_text(chosen: dict[str, tuple[Rows, Rows]], pictures: str) -> str:
    """All tables as Markdown; `pictures` is the folder of the charts as the README names it."""
    if not chosen:
        return "No rival has been measured yet.\n"
    return "\n".join(_section(whole, cost, pictures) for whole, cost in chosen.values())


def _section(whole: Rows, cost: Rows, pictures: str) -> str:
    data = next(iter({**whole, **cost}.values()))["data"]
    counts = f"{data['num_users']:,} users, {data['num_items']:,} items, {data['num_events']:,} events"
    lines = [f"**{data['title']}** ({counts})", ""]
    if whole:
        lines += _table(HEADER, [_row(record, whole.get(OURS)) for record in whole.values()])
        lines += [f"![Validation NDCG@10 against CPU seconds of training]({pictures}/peers_{data['name']}.svg)", ""]
    if cost:
        ours = cost.get(OURS) or whole.get(OURS)
        lines += ["Cost alone, from a few batches:", ""] if whole else ["Cost of training, from a few batches:", ""]
        lines += _table(COST_HEADER, [_cost_row(record, ours) for record in cost.values()])
    return "\n".join([*lines, f"<sub>{'. '.join(_facts([*whole.values(), *cost.values()]))}.</sub>", ""])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    head = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return [*head, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _row(record: Record, ours: Record | None) -> list[str]:
    low, high = record["test"]["ndcg_interval"]
    return [
        _name(record),
        f"{record['test']['ndcg']:.4f} [{low:.4f}–{high:.4f}]",
        f"{record['test']['hit_rate']:.4f}",
        _speed(record, ours),
        _to_best(record, ours),
        _with_ratio(record, ours, "peak_megabytes"),
        _with_ratio(record, ours, "recommend_all_seconds"),
        _with_ratio(record, ours, "latency_p50_milliseconds"),
    ]


def _cost_row(record: Record, ours: Record | None) -> list[str]:
    return [
        _name(record),
        _speed(record, ours),
        f"{number(record['epoch_seconds'])}",
        _with_ratio(record, ours, "training_peak_megabytes"),
    ]


def _name(record: Record) -> str:
    name = f"**{OURS}**" if record["system"] == OURS else record["system"]
    return name + " *" * (record.get("stop_reason") == "budget")


def _speed(record: Record, ours: Record | None) -> str:
    speed = speed_of(record)
    if speed is None:
        return NOTHING
    if ours is None or record["system"] == OURS:
        return f"{speed:,.0f}"
    return f"{speed:,.0f} ({ratio((speed_of(ours) or 0.0) / speed)})"


def speed_of(record: Record) -> float | None:
    """Positions per CPU second: of all epochs of a whole run, of the batches that were timed otherwise."""
    if record["positions_per_second"] is None or record["settings"]["only_cost"]:
        return record["positions_per_second"]
    return record["targets_per_epoch"] * record["num_epochs"] / record["training_seconds"]


def _to_best(record: Record, ours: Record | None) -> str:
    """CPU seconds of training to the rival's best validation NDCG@10, beside what we need to get there."""
    seconds = record["seconds_to_best"]
    if record["system"] == OURS or ours is None or record["positions_per_second"] is None:
        return number(seconds)
    reached = seconds_to_reach(ours["curve"], record["best_validation_ndcg"])
    return f"{number(seconds)} ({'not reached' if reached is None else ratio(seconds / reached)})"


def seconds_to_reach(curve: Sequence[Sequence[float]], ndcg: float) -> float | None:
    """CPU seconds until the curve is first at or above a value.

    >>> seconds_to_reach([(5.0, 1, 0.02), (10.0, 2, 0.05)], 0.03)
    10.0
    """
    return next((seconds for seconds, _, reached in curve if reached >= ndcg), None)


def _with_ratio(record: Record, ours: Record | None, name: str) -> str:
    value = record[name]
    if ours is None or record["system"] == OURS:
        return number(value)
    return f"{number(value)} ({ratio(value / ours[name])})"


def number(value: float) -> str:
    """Three digits, or all before the point.

    >>> number(1234.5), number(3.456), number(0.04)
    ('1,234', '3.46', '0.04')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(value: float) -> str:
    """
    >>> ratio(12.34), ratio(0.257)
    ('12×', '0.26×')
    """
    return f"{value:,.0f}×" if value >= 10 else f"{value:.2g}×"


def _facts(records: Sequence[Record]) -> list[str]:
    """What a reader has to know of the numbers."""
    settings = [record["settings"] for record in records]
    trained = [record for record in records if not record["settings"]["only_cost"]]
    at_budget = [record["system"] for record in trained if record.get("stop_reason") == "budget"]
    improving = [
        record["system"] for record in trained if record.get("was_improving") and record["system"] in at_budget
    ]
    facts = ["[95 % interval over users]"] if trained else []
    facts.append("(n×: n times ours; for positions, ours is n times as many)")
    facts.append("Seconds and milliseconds are CPU time; training without validation")
    if at_budget:
        facts.append(
            f"* stopped at the budget of {'/'.join(_unique(number(s['cpu_minutes']) for s in settings))} CPU minutes"
            + (f", still improving: {', '.join(improving)}" if improving else "")
        )
    machines = [f"{record['hardware']['cpu']}, one thread" for record in records]
    commits = ["unknown" if r["commit"] is None else f"`{r['commit'][:10]}`" + _changed(r) for r in records]
    dates = sorted(str(record["date"])[:10] for record in records)
    benches = len({record.get("bench_begun") for record in records})
    return [
        *facts,
        f"seed {', '.join(_unique(str(s['seed']) for s in settings))}, width {settings[0]['width']}, "
        f"{settings[0]['num_layers']} blocks, the last {settings[0]['max_seq_len']} events",
        f"versions: {', '.join(_versions(records))}",
        f"commit {', '.join(_unique(commits))}",
        "; ".join(_unique(machines)),
        " to ".join(_unique([dates[0], dates[-1]])) + ("" if benches == 1 else f", in {benches} runs of the bench"),
    ]


def _changed(record: Record) -> str:
    return " with uncommitted changes" if record["dirty"] else ""


def _versions(records: Sequence[Record]) -> list[str]:
    named: dict[str, Any] = {}
    for record in records:
        named |= record["versions"]
    return [f"{name} {version}" for name, version in sorted(named.items()) if name not in ("python", "platform")]


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the table is not current")
    parser.add_argument("--add", type=Path, metavar="FILE", help="records to take in among the results first")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "peers.jsonl")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="file with the two markers")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "pictures", help="folder for the charts")
    arguments = parser.parse_args(words)
    if arguments.check and arguments.add is not None:
        parser.error("--check writes nothing, so there is nothing to --add. Leave one of them out.")
    try:
        known = read_records(arguments.results)
        new = [] if arguments.add is None else not_yet_in(known, arguments.add)
        chosen = latest([*known, *new])
        pictures = os.path.relpath(arguments.pictures, arguments.readme.parent).replace(os.sep, "/")
        text = peers_text(chosen, pictures)
        is_current = is_between_markers(arguments.readme, MARKERS, text)
        # The results first: a README must not show a row that no file has.
        if new:
            append_records(arguments.results, new)
        if not arguments.check:
            write_between_markers(arguments.readme, MARKERS, text)
            write_charts({name: whole for name, (whole, _) in chosen.items() if whole}, arguments.pictures)
    except VariseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.check and not is_current:
        print(f"{arguments.readme} does not show the records. Run: python benchmarks/peers/table.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
