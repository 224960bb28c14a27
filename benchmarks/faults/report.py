"""The outcome of a fault script into its JSON file, one printed line, and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from provenance import provenance
from record_file import write_record

RESULTS = Path(__file__).parents[1] / "results"


def finish(script: str, out: Path | None, outcome: dict[str, Any], is_good: bool) -> None:
    """Write, print, and end the process: 0 where the store kept its promises, 1 where it broke one."""
    target = out or RESULTS / f"faults_{Path(script).stem}.json"
    record = {**provenance(), "is_good": is_good, **outcome}
    write_record(target, record)
    shown = ", ".join(f"{name} {value}" for name, value in outcome.items() if not isinstance(value, dict | list))
    print(f"{'kept' if is_good else 'BROKEN'}: {shown}\nwritten to {target}")
    sys.exit(0 if is_good else 1)
