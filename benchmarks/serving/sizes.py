"""How large a machine: memory and time of a call by the size of the catalog, and room on disk by events.

    python benchmarks/serving/sizes.py [--items 1000 10000 100000 1000000] [--folder .peers/serving]

Models are untrained, of width 64; histories have 50 events. Writes benchmarks/results/serving_sizes.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))
from process import model_of, on_core  # noqa: E402
from provenance import provenance  # noqa: E402
from record_file import write_record  # noqa: E402
from server_speed import SERVER_CORE  # noqa: E402

from variseq.serving.stores.importing import import_histories  # noqa: E402
from variseq.serving.stores.opening import open_store  # noqa: E402

SECONDS = 4.0
USERS, EVENTS = 2000, 50
FIRST_TIME = 1_700_000_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=ROOT / ".peers" / "serving")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "serving_sizes.json")
    arguments = parser.parse_args()
    rows = []
    for num_items in arguments.items:
        rows.append(of_catalog(model_of(arguments.folder, num_items), num_items))
        print(json.dumps(rows[-1]), flush=True)
        facts = {"bytes_an_event_on_disk": bytes_an_event(), "hidden_size": 64, "events_of_a_history": EVENTS}
        write_record(arguments.out, {**provenance(), **facts, "rows": rows})


def of_catalog(model: Path, num_items: int) -> dict[str, Any]:
    """One row: the exported folder, the memory of a process that answers, and its time for one call."""
    flags = [str(model), "1", str(SECONDS)]
    found = {
        because: json.loads(on_core(SERVER_CORE, [str(HERE / "limit.py"), *flags, *words]))
        for because, words in (("with", []), ("without", ["--no-because"]))
    }
    return {
        "items": num_items,
        "folder_megabytes": round(sum(path.stat().st_size for path in model.rglob("*")) / 1e6, 1),
        "memory_megabytes": found["with"]["memory_megabytes"],
        "p50_ms_with_reasons": found["with"]["p50_ms"],
        "p50_ms_without_reasons": found["without"]["p50_ms"],
    }


def bytes_an_event() -> float:
    """The size of an SQLite store over the events in it, with ids of a dozen letters."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/events.db")
        rows = (
            (
                f"user-{user:07d}",
                f"item-{(user * 31 + place * 17) % 9973:06d}",
                1_700_000_000_000_000 + place,
                None,
                None,
            )
            for user in range(USERS)
            for place in range(EVENTS)
        )
        import_histories(store, rows)
        store.close()
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return round(size / (USERS * EVENTS), 1)


if __name__ == "__main__":
    main()
