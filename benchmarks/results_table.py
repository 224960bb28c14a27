"""The records that recipes wrote (benchmarks/results/) into the table of results in README.md.

    python benchmarks/results_table.py            # writes the table between the two markers
    python benchmarks/results_table.py --check    # exit code 1 when the table there is not that of the records

Of each recipe and seed the latest record counts. Seeds of one recipe stand in one row: mean, smallest and largest. Runs
without noise (training.deterministic_share=1) are the twins of the others and have a row of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marked_file import is_between_markers, write_between_markers
from provenance import short_commit

from variseq.errors import InputError, VariseqError

Record = dict[str, Any]
ROOT = Path(__file__).parent.parent
MARKERS = ("<!-- results:begin -->", "<!-- results:end -->")
NOTHING = "–"
TWIN = "twin without noise"
OF_NOISE = ("deterministic_share", "anneal_share", "num_samples", "target_rate")


def read_records(folder: Path) -> list[Record]:
    """The records of recipes in all .json and .jsonl files; other results, which name no recipe, are passed over.

    Raises InputError for a file that is no JSON.
    """
    records: list[Record] = []
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.jsonl")]):
        text = path.read_text(encoding="utf-8")
        try:
            found = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        except ValueError as error:
            raise InputError(
                f"{path} is damaged ({error}). Remove what is no JSON, or run the recipe again."
            ) from error
        entries = found if isinstance(found, list) else [found]
        records += [entry for entry in entries if isinstance(entry, dict) and "recipe" in entry]
    return records


@dataclass(frozen=True)
class Runs:
    """The latest record of each seed of a recipe, by seed, and those of the same without noise."""

    records: list[Record]
    twins: list[Record]


def latest_by_seed(records: Iterable[Record]) -> dict[str, Runs]:
    """Recipe to its latest records. Raises InputError when they are not of one experiment."""
    latest: dict[str, dict[bool, dict[int, Record]]] = {}
    for record in sorted(records, key=lambda record: str(record["date"])):
        kinds = latest.setdefault(record["recipe"], {False: {}, True: {}})
        kinds[record["settings"]["training"]["deterministic_share"] >= 1][record["seed"]] = record
    chosen = {}
    for name, kinds in sorted(latest.items()):
        by_seed, twins = ([kinds[kind][seed] for seed in sorted(kinds[kind])] for kind in (False, True))
        if not by_seed:
            raise InputError(f"The records of {name} are all of runs without noise. Run it with noise too.")
        _check_comparable(name, by_seed, _settings)
        _check_comparable(name, [by_seed[0], *twins], _settings_but_noise)
        chosen[name] = Runs(by_seed, twins)
    return chosen


def _check_comparable(name: str, records: Sequence[Record], settings_of: Callable[[Record], Any]) -> None:
    """Seeds are put into one row only when nothing but the seed differs, and twins below it when the noise does too."""
    for part, of_record in (("data", _data), ("split and targets", _protocol), ("settings", settings_of)):
        different = [record for record in records if of_record(record) != of_record(records[0])]
        if different:
            raise InputError(
                f"The records of {name} with seed {records[0]['seed']} and seed {different[0]['seed']} differ in their "
                f"{part}, so they cannot stand in one table. Run the older ones again, or remove them."
            )


def _data(record: Record) -> Any:
    return record["data"]["sha256"]


def _protocol(record: Record) -> Any:
    return record["protocol"]


def _settings(record: Record) -> Any:
    settings = record["settings"]
    training = {name: value for name, value in settings["training"].items() if name != "seed"}
    return settings | {"training": training}


def _settings_but_noise(record: Record) -> Any:
    """When noise comes and how it is trained says nothing of a twin, which has none."""
    settings = _settings(record)
    return settings | {"training": settings["training"] | dict.fromkeys(OF_NOISE)}


def results_text(recipes: dict[str, Runs]) -> str:
    """All tables as Markdown, one a recipe. Recipes with request time are left out: no public call takes it."""
    shown = [runs for runs in recipes.values() if not runs.records[0]["protocol"].get("request_time")]
    if not shown:
        return "No result has been recorded yet.\n"
    return "\n".join(map(_section, shown))


def _section(runs: Runs) -> str:
    records, first = runs.records, runs.records[0]
    baselines = range(1, len(first["rows"]))
    protocol, data = first["protocol"], first["data"]
    k = protocol["k"]
    header = ["model", f"NDCG@{k}", f"Recall@{k}", "NLL", f"ECE, top {k}", "training, s", "peak, MB"]
    lines = [
        f"**{data['name']}** ({data['num_users']:,} users, {data['num_items']:,} items, {data['num_events']:,} events; "
        f"{protocol['method']})",
        "",
        "| " + " | ".join(header) + " |",
        "|---|" + "---:|" * (len(header) - 1),
        _row(records, 0, f"**{first['rows'][0]['model']}**"),
        *([_row(runs.twins, 0, TWIN)] if runs.twins else []),
        *(_row(records, place, first["rows"][place]["model"]) for place in baselines),
        "",
        *_footnote(runs),
        "",
    ]
    return "\n".join(lines)


def _row(records: Sequence[Record], place: int, name: str) -> str:
    """One model. What is trained is given over all seeds; a baseline, which has none, from the first record."""
    first = records[0]["rows"][place]
    k = records[0]["protocol"]["k"]
    is_trained = first["model"] == "variseq"
    rows = [record["rows"][place] for record in records] if is_trained else [first]
    metrics = (f"ndcg@{k}", f"recall@{k}", "nll", f"ece_top{k}")
    cells = [_metric(rows, metric, with_interval=metric.startswith("ndcg")) for metric in metrics]
    cost = ("training_seconds", "peak_megabytes")
    cells += [_range([record[fact] for record in records], 0) if is_trained else NOTHING for fact in cost]
    return "| " + " | ".join([name, *cells]) + " |"


def _metric(rows: Sequence[dict[str, Any]], name: str, with_interval: bool) -> str:
    values = [row[name] for row in rows]
    if any(value is None for value in values):
        return NOTHING
    digits = 2 if name == "nll" else 4
    text = _range(values, digits)
    if with_interval and len(rows) == 1:
        low, high = rows[0][f"{name}_interval"]
        text += f" [{low:.{digits}f}–{high:.{digits}f}]"
    return text


def _range(values: Sequence[float], digits: int) -> str:
    """One number, or the mean of several with the smallest and the largest.

    >>> _range([0.1, 0.3], 2)
    '0.20 (0.10–0.30)'
    """
    mean = f"{sum(values) / len(values):,.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def _footnote(runs: Runs) -> list[str]:
    records, first = runs.records, runs.records[0]
    protocol, model = first["protocol"], first["rows"][0]
    hardware = [record["hardware"] for record in records]
    seeds = ", ".join(str(record["seed"]) for record in records)
    several = len(records) > 1
    twins = ", ".join(str(record["seed"]) for record in runs.twins)
    brackets = "(smallest–largest over seeds) beside the mean; " if several else ""
    machines = [f"{used['cpu']}, {used['threads']} of {used['cores']} threads, {used['device']}" for used in hardware]
    dates = sorted(str(record["date"])[:10] for record in records)
    facts = [
        f"{brackets}[95 % interval over users{' of a single run' if several else ''}]",
        f"recipe `{first['recipe']}`, size {first['settings']['size']}, seed{'s' * several} {seeds}",
        f"{protocol['method']} split `{protocol['split_hash'][:12]}`, target: {protocol['targets']}, "
        f"{model['num_queries']:,} queries, of which {model['seen_targets']:,} ask for an item of the user's own "
        f"history and {model['cold_targets']:,} for one unseen in training",
        f"posterior of the chosen epoch: {'; '.join(_posterior(record['posterior']) for record in records)}",
        *([f"the twin is the same with training.deterministic_share=1, seeds {twins}"] if twins else []),
        f"commit {', '.join(_unique(short_commit(record) for record in [*records, *runs.twins]))}",
        "; ".join(_unique(machines)),
        " to ".join(_unique([dates[0], dates[-1]])),
    ]
    notes = [note.rstrip(". ") for note in first["data"]["notes"]]
    return [f"<sub>{'. '.join([*facts, *notes])}.</sub>"]


def _posterior(health: dict[str, Any]) -> str:
    """
    >>> _posterior({"rate": 40.2, "active_share": 1.0, "swap_gap": 3.21, "alarms": []})
    '40.2 nats per position, 100 % active, swap gap 3.21 nats, no alarm'
    """
    alarms = "no alarm" if not health["alarms"] else "ALARM: " + ", ".join(health["alarms"])
    return (
        f"{health['rate']:.1f} nats per position, {100 * health['active_share']:.0f} % active, "
        f"swap gap {health['swap_gap']:.2f} nats, {alarms}"
    )


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def write_results(results: Path, readme: Path, only_check: bool) -> bool:
    """Whether the table in the README was that of the records; written if not, unless that is only to be checked."""
    text = results_text(latest_by_seed(read_records(results)))
    is_current = is_between_markers(readme, MARKERS, text)
    if not is_current and not only_check:
        write_between_markers(readme, MARKERS, text)
    return is_current


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the table is not current")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the records")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="file with the two markers")
    arguments = parser.parse_args(words)
    try:
        is_current = write_results(arguments.results, arguments.readme, arguments.check)
    except VariseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.check and not is_current:
        print(f"{arguments.readme} does not show the records. Run: python benchmarks/results_table.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
