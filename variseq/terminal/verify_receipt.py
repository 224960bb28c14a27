"""Checks a receipt of an erasure, and a run against it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import typer

from variseq.artifacts.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from variseq.artifacts.lineage import earlier_run
from variseq.erasure import fit_again
from variseq.errors import InputError
from variseq.output.printable import printable
from variseq.output.progress import ProgressPrinter
from variseq.privacy.receipts import read_key, verify_receipt
from variseq.terminal.erase_people import state_of, tree_of
from variseq.training.run import RunContext, choose_device


def verify_run(receipt: Path, run: Path | None, refit_again: bool) -> None:
    """Check a receipt and those before it; the data and weights of a run; and the weights of a fit that is made again.

    Raises InputError for the first that is wrong.
    """
    if refit_again and run is None:
        raise InputError("--refit-again needs the run whose histories are fitted. Give it with --run.")
    content = verify_receipt(receipt)
    proved = f" None of its runs has the {len(content['erased']):,} erased ids." if content["erased"] else ""
    line = f"Receipt {content['number']} of {content['time']} and all before it are as they were written.{proved}"
    typer.echo(printable(line))
    if run is None:
        return
    checkpoint = load_checkpoint(run)
    entry = _entry(content, run, checkpoint, read_key(receipt.parent))
    typer.echo(printable(f"{run} has the data and the weights of the receipt."))
    if refit_again:
        _compare(entry, checkpoint, earlier_run(checkpoint.manifest, [run.resolve().parent]))
        typer.echo("A fit that was made again gives the same weights.")


def _entry(content: dict[str, Any], run: Path, checkpoint: Checkpoint, key: bytes) -> dict[str, Any]:
    """What the receipt says of a run. Raises InputError where the run is not as it says."""
    if checkpoint.histories is None:
        raise InputError(f"{run} was saved without histories, so it cannot be compared with a receipt.")
    root = tree_of(checkpoint, key).root.hex()
    found = [one for one in content["runs"] if one["after"]["root"] == root]
    if not found:
        raise InputError(f"The data of {run} are not those of this receipt. A later receipt may be of them.")
    same: list[dict[str, Any]] = [one for one in found if state_of(run).items() <= one["after"].items()]
    if not same:
        raise InputError(f"The weights or counts of {run} are not those of this receipt; a later one may be of them.")
    return same[0]


def _compare(entry: dict[str, Any], checkpoint: Checkpoint, earlier: Checkpoint | None) -> None:
    if entry["needs_refit"]:
        raise InputError(
            "The weights of this receipt have learned from people who were erased, so no fit gives them again. Run: "
            "variseq erase --refit"
        )
    fitted = fit_again(checkpoint, RunContext(choose_device("auto"), ProgressPrinter(verbose=1)), earlier)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(fitted, Path(folder) / "run")
        weights = state_of(Path(folder) / "run")["weights"]
    expected = entry["after"]["weights"]
    if weights != expected:
        raise InputError(
            f"A fit that was made again has the weights {weights[:12]}…, and the receipt {expected[:12]}…. Compare the "
            "versions and the machine in the receipt (code) with these, and use the same device and threads."
        )
