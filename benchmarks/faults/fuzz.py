"""Ten thousand requests that nobody meant, made from the server's own OpenAPI document: no 5xx, no stack trace.

    python benchmarks/faults/fuzz.py [--requests 10000] [--folder .peers]

Schemathesis runs in an environment of its own, made the first time, with other seeds until the server has counted so
many requests. What counts is what the server says of itself (/metrics and its log), not what the fuzzer sent.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from report import finish

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serving"))
from process import live_server, model_of  # noqa: E402

PACKAGE = "schemathesis==4.32.5"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
NUM_ITEMS, MOST_ROUNDS = 300, 40
COUNTED = re.compile(r'^variseq_requests_total\{method="(\w+)",route="([^"]*)",status="(\d+)"\} ([\d.e+]+)$', re.M)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / ".peers")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    program = fuzzer(arguments.folder / "schemathesis")
    model = model_of(arguments.folder / "serving", NUM_ITEMS)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as models:
        shutil.copytree(model, Path(models) / "first")
        counts, traces = fuzzed(program, Path(models), arguments.requests, failures)
    by_status: dict[str, int] = {}
    for (_, status), number in counts.items():
        by_status[status] = by_status.get(status, 0) + number
    num_errors = sum(number for status, number in by_status.items() if status.startswith("5"))
    outcome = {
        "requests": sum(counts.values()),
        "answers_of_5xx": num_errors,
        "stack_traces": traces,
        "answers_outside_the_document": len(failures),
        "failures": failures[:20],
        "by_status": by_status,
        "routes": len({route for route, _ in counts}),
    }
    finish(__file__, arguments.out, outcome, sum(counts.values()) >= arguments.requests and not num_errors + traces)


def fuzzed(program: Path, models: Path, wanted: int, failures: list[str]) -> tuple[dict[tuple[str, str], int], int]:
    """Requests by route and status, and stack traces in the log; what the fuzzer found wrong is added to `failures`."""
    counts: dict[tuple[str, str], int] = {}
    with live_server(models / "first", ["--models", str(models)]) as server:
        for seed in range(MOST_ROUNDS):
            if sum(counts.values()) >= wanted:
                break
            failures += one_round(program, server.address, seed)
            counts = counted(server.address)
            print(f"seed {seed}: {sum(counts.values()):,} requests", flush=True)
        return counts, server.errors().count("Traceback")


def fuzzer(home: Path) -> Path:
    """The fuzzer's command, installed the first time."""
    program = home / "bin" / "st"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, PACKAGE], check=True)
    return program


def one_round(program: Path, address: str, seed: int) -> list[str]:
    """Fuzz every operation with one seed; what the fuzzer found wrong."""
    done = subprocess.run(
        [
            *(str(program), "run", f"{address}/openapi.json", "--url", address, "--seed", str(seed)),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "60", "--checks", CHECKS),
            *("--continue-on-failure", "--suppress-health-check", "all", "--no-color", "--warnings", "off"),
        ],
        capture_output=True, text=True, check=False, timeout=540,
    )  # fmt: skip
    if "Test cases" not in done.stdout and "test cases" not in done.stdout:
        raise RuntimeError(f"the fuzzer did not run: {done.stdout[-1500:]} {done.stderr[-500:]}")
    return re.findall(r"^- (.+)$", done.stdout, re.M)


def counted(address: str) -> dict[tuple[str, str], int]:
    """Requests by route and status, as the server counted them."""
    found: dict[tuple[str, str], int] = {}
    for _, route, status, number in COUNTED.findall(httpx.get(f"{address}/metrics").text):
        found[route, status] = found.get((route, status), 0) + int(float(number))
    return found


if __name__ == "__main__":
    main()
