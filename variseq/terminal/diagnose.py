"""Prints the diagnosis of a run folder: verdict, tests, groups of positions and changes to make; also as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from variseq.atomic import atomic_write
from variseq.errors import CheckpointError, InputError
from variseq.terminal.evaluate import refuse_unwritable
from variseq.training.diagnosis import Diagnosis, LatentTest, PositionGroup, diagnose, flat_settings

COLORS = {"healthy": "bold green", "deterministic": "bold cyan"}
NOT_MEASURED = "not measured"


def diagnose_run(folder: Path, console: Console, json_file: Path | None = None) -> Diagnosis:
    """Diagnose a run from its records, print the result, and write it to `json_file` where one is given.

    Args:
        folder: A finished run, or one that is still training.
        console: Where to print.
        json_file: A file that is written as a whole, or not at all.

    Returns:
        The diagnosis.

    Raises:
        CheckpointError: The folder is no run, or is damaged.
        InputError: The file cannot be written.
    """
    refuse_unwritable(json_file)
    records, settings = read_records(folder)
    try:
        found = diagnose(records, settings)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, f"its records or settings lack {error}") from error
    if json_file is not None:
        text = json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n"
        try:
            with atomic_write(json_file) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"--json {json_file} cannot be written: {error.strerror or error}.") from error
    print_diagnosis(found, console)
    return found


def read_records(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The epoch records and flat settings of a run, finished or not; neither weights nor histories are read."""
    finished, unfinished = folder / "manifest.json", folder / "settings.json"
    if not finished.exists() and not unfinished.exists():
        there = "is no run: it has no manifest.json" if folder.is_dir() else "does not exist"
        raise CheckpointError(f"{folder} {there}. Give the folder that `variseq fit --out` or `model.save` wrote.")
    try:
        if finished.exists():
            manifest = json.loads(finished.read_text(encoding="utf-8"))
            network = manifest["network"]
            if network is None:
                raise CheckpointError(f"{folder} is a run of counts without a network. Show it with `variseq privacy`.")
            config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            settings = flat_settings(network, config["training"])
        else:
            settings = json.loads(unfinished.read_text(encoding="utf-8"))
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise _damaged(folder, str(error).splitlines()[0]) from error
    if not records:
        raise CheckpointError(f"The run in {folder} has no finished epoch yet, so there is nothing to examine.")
    return records, settings


def print_diagnosis(found: Diagnosis, console: Console) -> None:
    """Print the verdict, the evidence, the tests and the suggested changes."""
    style = COLORS.get(found.kind, "bold red")
    console.print(f"{found.kind.upper()}: {found.verdict}", style=style)
    console.print(f"Seen in epoch {found.epoch}, which was chosen on validation (a refit goes on from it):")
    for sentence in found.evidence:
        console.print(f"  · {sentence}")
    console.print(_tests_table(found.tests))
    console.print(_groups_table(found.groups))
    console.print("What to change, the likeliest first:" if found.changes else "Nothing to change.")
    for change in found.changes:
        console.print(f"  --set {change.assignment()}", style="bold", soft_wrap=True)
        console.print(f"      was {change.current}; {change.reason}")


def _tests_table(tests: tuple[LatentTest, ...]) -> Table:
    table = Table(title="tests")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("healthy is")
    table.add_column("verdict")
    for test in tests:
        verdict = "–" if test.is_healthy is None else "good" if test.is_healthy else "BAD"
        table.add_row(test.name, _value(test), test.healthy, verdict, style="red" if test.is_healthy is False else None)
    return table


def _groups_table(groups: tuple[PositionGroup, ...]) -> Table:
    table = Table(title="by length of the history")
    for name in ("earlier events", "KL, nats", "swap gap, nats", "σ"):
        table.add_column(name, justify="right")
    for group in groups:
        table.add_row(group.events, *(_number(value) for value in (group.kl, group.swap_gap, group.sigma)))
    return table


def _value(test: LatentTest) -> str:
    if test.value is None:
        return NOT_MEASURED
    if test.unit == "share":
        return f"{test.value:.0%}"
    return f"{_number(test.value)} {test.unit}".strip()


def _number(value: float | None) -> str:
    """Two decimals, or two significant digits for small numbers.

    >>> [_number(value) for value in (4.8765, 0.000123, 0.0, None)]
    ['4.88', '0.00012', '0.00', 'not measured']
    """
    if value is None:
        return NOT_MEASURED
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.2f}"


def _damaged(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"The run in {folder} is damaged ({reason}). Restore the folder from a copy, or fit again.")
