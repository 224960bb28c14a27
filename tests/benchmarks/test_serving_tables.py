from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.benchmarks.serving_path import SERVING  # isort: skip
from tables import PAGE, RESULTS, with_tables


def test_guide_to_serving_shows_what_the_files_say() -> None:
    assert SERVING.is_dir()
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page, RESULTS) == page


def test_fault_that_broke_a_promise_is_marked(tmp_path: Path) -> None:
    for path in RESULTS.glob("*serving*.json"):
        shutil.copy(path, tmp_path)
    (tmp_path / "faults_soak.json").write_text(json.dumps({"is_good": False, "minutes": 30.0, "failed": 2}))
    page = with_tables(PAGE.read_text(encoding="utf-8"), tmp_path)
    assert "| `soak.py` | steady load | 30 minutes, 2 failed (**not as it should be**) |" in page
    assert "kill_server.py" not in page
