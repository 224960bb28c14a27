"""Models swapped, and damaged ones offered, while requests go on: no request fails, and each answer is of one model.

    python benchmarks/faults/swapping.py [--swaps 50] [--clients 16] [--folder .peers]

Two models of one catalog answer differently; an answer has to be that of the model it names. After every swap a
damaged folder is offered, which has to be refused and change nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from report import finish

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serving"))
from process import LiveServer, live_server, model_of  # noqa: E402

NUM_ITEMS = 300
QUESTION = {"history": ["i1", "i2", "i3"], "k": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / ".peers")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        two_models_and_a_damaged_one(model_of(arguments.folder / "serving", NUM_ITEMS), models)
        with live_server(models / "first", ["--models", folder, "--no-log-requests"]) as server:
            outcome = swapped(server, arguments.swaps, arguments.clients)
            outcome["stack_traces"] = server.errors().count("Traceback")
    is_good = (
        not outcome["failed"]
        and not outcome["answers_of_no_model"]
        and outcome["damaged_refused"] == outcome["swaps"] == arguments.swaps
        and outcome["models_that_answered"] == 2
    )
    finish(__file__, arguments.out, outcome, is_good)


def two_models_and_a_damaged_one(model: Path, models: Path) -> None:
    """`first` as it is, `second` with another temperature, `damaged` with a changed byte."""
    for name in ("first", "second", "damaged"):
        shutil.copytree(model, models / name)
    manifest = json.loads((models / "second" / "manifest.json").read_text())
    calibration = manifest["forecast"]["calibration"]
    calibration["temperatures"] = [2.0 * one for one in calibration["temperatures"]]
    (models / "second" / "manifest.json").write_text(json.dumps(manifest))
    path = models / "damaged" / "tables.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swapped(server: LiveServer, num_swaps: int, num_clients: int) -> dict[str, Any]:
    """What clients saw while models were swapped."""
    statuses: Counter[int] = Counter()
    answers: Counter[tuple[str, str]] = Counter()
    is_over, lock = threading.Event(), threading.Lock()

    def ask() -> None:
        with httpx.Client(base_url=server.address, timeout=30) as client:
            while not is_over.is_set():
                response = client.post("/v1/recommend", json=QUESTION)
                with lock:
                    statuses[response.status_code] += 1
                    if response.status_code == 200:
                        body = response.json()
                        answers[body["model"], json.dumps(body["recommendations"])] += 1

    threads = [threading.Thread(target=ask) for _ in range(num_clients)]
    for thread in threads:
        thread.start()
    done: Counter[str] = Counter()
    with httpx.Client(base_url=server.address, timeout=60) as client:
        for number in range(num_swaps):
            name = ("second", "first")[number % 2]
            done["swaps"] += client.post("/v1/admin/model", json={"model": name}).status_code == 200
            done["damaged_refused"] += client.post("/v1/admin/model", json={"model": "damaged"}).status_code == 409
    is_over.set()
    for thread in threads:
        thread.join()
    models = {model for model, _ in answers}
    return {
        "swaps": done["swaps"],
        "damaged_refused": done["damaged_refused"],
        "requests": sum(statuses.values()),
        "failed": sum(count for status, count in statuses.items() if status != 200),
        "models_that_answered": len(models),
        # One question has one answer a model, up to rounding that depends on what is asked along.
        "answers_of_no_model": sum(not near_one(answers, model) for model in models),
    }


def near_one(answers: Counter[tuple[str, str]], model: str) -> bool:
    """Whether all answers of a model name the same items with the same probabilities."""
    lists = [json.loads(text) for of, text in answers if of == model]
    first = lists[0]
    return all(
        [one["item_id"] for one in other] == [one["item_id"] for one in first]
        and all(abs(a["probability"] / b["probability"] - 1) < 1e-3 for a, b in zip(first, other, strict=True))
        for other in lists
    )


if __name__ == "__main__":
    main()
