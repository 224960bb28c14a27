"""What was measured of serving (benchmarks/results/) into the tables of docs/serving.md.

python benchmarks/serving/tables.py            # writes them between their markers
python benchmarks/serving/tables.py --check    # exit code 1 when what stands there is not that of the files
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from variseq.atomic import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "serving.md"
Record = dict[str, Any]

FAULTS = {
    "kill_server": "`kill -9` of the server while events come in over HTTP",
    "kill_minus_nine": "`kill -9` of a process that writes to the store",
    "full_disk": "disk full, and room again",
    "locked_store": "store locked by another process",
    "power_loss": "the power goes at any moment of a recorded process (strace), to a disk that keeps what was synced",
    "redis_gone": "Redis killed under load, back with nothing",
    "server_redis_gone": "the same behind two servers that take events over HTTP",
    "swapping": "models swapped under load, a damaged one offered each time",
    "slow_client": "clients that send a byte now and then",
    "fuzz": "requests nobody meant, from the OpenAPI document",
    "soak": "steady load",
}
TOLD = {
    "swaps": "{} swaps",
    "damaged_refused": "{} damaged ones refused",
    "kills": "{} times",
    "times_full": "{} times",
    "locks": "{} times",
    "moments": "{} moments",
    "acknowledged": "{:,} events acknowledged",
    "lost": "{} lost",
    "doubled": "{} doubled",
    "damaged": "{} damaged",
    "wrong_next_answers": "{} wrong next answers",
    "fast_moments_that_lost": "with `fast` {} moments lost events",
    "fast_damaged": "{} damaged",
    "slow_clients": "{} slow clients",
    "still_connected": "{} still connected",
    "requests": "{:,} requests",
    "answers_of_5xx": "{} answers of 5xx",
    "stack_traces": "{} stack traces",
    "answers_outside_the_document": "{} answers that the document does not have",
    "minutes": "{:g} minutes",
    "failed": "{} failed",
    "slope_megabytes_an_hour": "memory {:+.1f} MB an hour",
    "slope_anonymous_megabytes_an_hour": "{:+.1f} of it not of files",
    "memory_at_the_end_megabytes": "{:.0f} MB at the end",
    "new_events": "then {:,} new events",
    "growth_with_new_events_megabytes": "with which memory grew by {:.1f} MB",
    "plain_failures": "{} failures of others",
    "plain_median_ms": "others' median {:.1f} ms",
    "plain_median_ms_before": "{:.1f} ms before",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    page = PAGE.read_text(encoding="utf-8")
    wanted = with_tables(page, RESULTS)
    if parser.parse_args().check:
        sys.exit(int(page != wanted))
    with atomic_write(PAGE) as unfinished:
        unfinished.write_text(wanted, encoding="utf-8")


def with_tables(page: str, results: Path) -> str:
    """The page with what the files say between its markers."""
    tables = {"sizes": sizes, "serving": speeds, "loss": losses, "faults": faults}
    for name, table in tables.items():
        between = re.compile(f"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        text = table(results)
        page = between.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)
    return page


def sizes(results: Path) -> str:
    record = read(results / "serving_sizes.json")
    rows = [
        f"| {row['items']:,} | {row['folder_megabytes']:,.0f} MB | {row['memory_megabytes']:,.0f} MB | "
        f"{row['p50_ms_with_reasons']:.1f} ms | {row['p50_ms_without_reasons']:.1f} ms |"
        for row in record["rows"]
    ]
    event, width = record["bytes_an_event_on_disk"], record["width"]
    return "\n".join(
        [
            "| items | folder of the model | memory of a process | one call | without reasons |",
            "|---:|---:|---:|---:|---:|",
            *rows,
            "",
            f"Width {width}, histories of {record['events_of_a_history']} events, one core ({where(record)}). An event "
            f"takes about {event:.0f} bytes on disk: a million users with 50 events each {event * 50 / 1000:.1f} GB.",
        ]
    )


def speeds(results: Path) -> str:
    record = read(results / "serving.json")
    lines = [
        "| | connections | requests a second | of the limit | p50 | p99 | p99 over a bare call |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, found in record["summary"].items():
        bare = found["limit_calls_per_second"]
        lines.append(f"| the limit, {kind} | – | {bare:,.0f} | 100 % | {found['limit_p50_ms']:.1f} ms | – | – |")
        for name, row in found.items():
            if not isinstance(row, dict):
                continue
            system, connections = name.split(", ")
            lines.append(
                f"| {system}, {kind} | {connections} | {row['requests_per_second']:,.0f} | "
                f"{row['share_of_limit']:.0%} | {row['p50_ms']:.1f} ms | {row['p99_ms']:.1f} ms | "
                f"{row['p99_over_bare_call']:.1f} × |"
            )
    rounds = len({row["round"] for row in record["rows"]})
    return "\n".join(
        [
            *lines,
            "",
            f"{record['items']:,} items, histories of 50 events from the store, the server on one core and its client",
            f"on the other ({where(record)}); medians of {rounds} rounds in turns",
            "(`benchmarks/serving/server_speed.py`). The limit is the bare model and its top 10 called in a loop on",
            "the server's core, one history a call; what",
            "waits together is answered together, so a server can be above it. LitServe serves the same engine, with",
            "batching, or (with torch) the run as it was trained, by `load(RUN).recommend(history=...)`, which always",
            "gives reasons. It keeps no histories.",
        ]
    )


def losses(results: Path) -> str:
    index, small = read(results / "serving_index.json"), read(results / "serving_small_encoder.json")
    lines = [
        "| run | recall@10 of the index | same first item | median error of log p | its 99th per cent |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['items']:,} items | {row['recall_at_10']:.3f} | {row['same_first_item']:.3f} | "
        f"{row['median_error_of_log_p']:.4f} | {row['99th_error_of_log_p']:.3f} |"
        for row in index["rows"]
    ]
    lines += [
        "",
        "| run | NDCG@10 | with `--small` | difference | same list | size of the encoder |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in small["rows"]:
        mean, error = row["difference"]
        whole, less = row["bytes"]
        lines.append(
            f"| {row['items']:,} items | {row['ndcg_at_10']:.4f} | {row['ndcg_at_10_small']:.4f} | "
            f"{mean:+.4f} ± {error:.4f} | {row['shared_of_the_list']:.1%} | {whole / 1e6:.1f} → {less / 1e6:.1f} MB |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "Runs on Amazon Beauty (12,101 items) and MovieLens-1M (3,416), whose vectors were really trained; the",
            "index has the settings that large catalogs get. Weights of 8 bits save room, not time.",
        ]
    )


def faults(results: Path) -> str:
    lines = ["| script in `benchmarks/faults/` | what | outcome |", "|---|---|---|"]
    for name, about in FAULTS.items():
        path = results / f"faults_{name}.json"
        if not path.exists():
            continue
        record = read(path)
        told = [words.format(record[key]) for key, words in TOLD.items() if key in record]
        outcome = ", ".join(told) + ("" if record["is_good"] else " (**not as it should be**)")
        lines.append(f"| `{name}.py` | {about} | {outcome} |")
    return "\n".join(lines)


def read(path: Path) -> Record:
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def where(record: Record) -> str:
    """The machine and the commit."""
    dirty = ", with changes" if record["dirty"] else ""
    return f"{record['hardware']['cpu']}, commit {str(record['commit'])[:7]}{dirty}"


if __name__ == "__main__":
    main()
