"""Nothing but a network connection into the whole journey on real data: read, fit, evaluate, recommend, report."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rich.console import Console

from variseq.errors import MissingDependencyError
from variseq.estimator import VariationalAttention
from variseq.events.datasets import movielens_100k
from variseq.events.options import ReadOptions
from variseq.log import read
from variseq.output.printable import printable
from variseq.reports.report import write_report
from variseq.terminal.tables import recommendations_table
from variseq.training.display import Display

USERS_SHOWN = 4
EPOCHS = 30
"""Fewer than `fit` would take by itself, so that the whole journey stays within minutes."""


def run_demo(out: Path | None, seed: int, console: Console) -> Path:
    """MovieLens-100K (simulated shoppers where it cannot be had, and says so) through every step; the run folder."""
    folder = out or Path("runs") / datetime.now().strftime("demo-%Y%m%d-%H%M%S")
    files = movielens_100k()
    style = "bold" if files.is_real else "bold yellow"
    console.print(f"Data: {files.source}", style=style)
    if not files.is_real:
        console.print(
            "SIMULATED DATA: the real data could not be had, the numbers below say nothing about it.", style=style
        )
    rejects = folder.with_name(folder.name + "-rejected.csv")
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = read(files.events, items=files.items, options=ReadOptions(rejects=rejects))
    console.rule("1 · the log")
    console.print(log.check())
    console.print(_rejected(log.report.rejected, rejects), soft_wrap=True)
    console.rule("2 · training")
    train, valid, _ = log.split("leave-one-out")
    model = VariationalAttention(size="small", seed=seed, training={"max_epochs": EPOCHS}).fit(
        train, valid, folder=folder, display=Display(console=console)
    )
    console.rule("3 · evaluation: each user's last event, ranked among all items")
    results = model.evaluate()
    results.to_json(folder / "evaluation.json")
    console.print(str(results), soft_wrap=True)
    console.rule("4 · recommendations")
    users = log.vocabulary.user_ids(range(min(USERS_SHOWN, log.vocabulary.num_users)))
    console.print(recommendations_table(model.recommend(users=users, k=5)))
    console.rule("5 · report")
    try:
        console.print(f"Report: {printable(write_report(model, folder))}", soft_wrap=True)
    except MissingDependencyError as missing:
        console.print(f"No report: {missing}", style="yellow")
    console.print(f"Run:    {printable(folder)}", soft_wrap=True)
    return folder


def _rejected(rejected: dict[str, int], path: Path) -> str:
    if not rejected:
        return "Rejected: no row."
    counts = ", ".join(f"{count:,} × {reason}" for reason, count in rejected.items())
    return f"Rejected: {counts}. The rows are in {printable(path)}."
