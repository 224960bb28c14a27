"""What was claimed of posteriors on each data set, and what was found, into the table of docs/posteriors.md.

python benchmarks/posteriors_page.py      # from the latest record of each data set in results/posteriors.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marked_file import write_between_markers

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "posteriors.jsonl"
DOCUMENT = ROOT / "docs" / "posteriors.md"
MARKERS = ("<!-- targets:begin -->", "<!-- targets:end -->")
TITLES = {"beauty": "Beauty", "ml-1m": "MovieLens-1M"}
Record = dict[str, Any]


def table(lines: str) -> str:
    """A row for each claim, a column for each data set; **missed** where it does not hold."""
    latest: dict[str, list[Record]] = {}
    for line in lines.splitlines():
        record = json.loads(line)
        latest[record["data"]] = record["targets"]
    of_data = [(title, latest[name]) for name, title in TITLES.items() if name in latest]
    head = ["aimed at", *(title for title, _ in of_data)]
    rows = [
        [rows[0]["claim"], *(row["found"] if row["is_met"] else f"**missed**: {row['found']}" for row in rows)]
        for rows in zip(*(targets for _, targets in of_data), strict=True)
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    write_between_markers(DOCUMENT, MARKERS, table(RESULT.read_text(encoding="utf-8")))
