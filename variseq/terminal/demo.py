"""The demo: MovieLens-100K is read, counted, fitted, evaluated and recommended from, with a report at the end."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from variseq.errors import MissingDependencyError
from variseq.estimator import VariationalAttention
from variseq.evaluation.baselines import LastItemTransitions, Popular
from variseq.evaluation.recommender import Recommender
from variseq.events.datasets import movielens_100k
from variseq.events.options import ReadOptions
from variseq.log import Log, read
from variseq.output.printable import printable
from variseq.output.progress import ProgressPrinter
from variseq.reports.report import write_report
from variseq.terminal.recommend import recommendations_table

NUM_USERS = 3
NUM_ITEMS = 5
EPOCHS = 30
"""Fewer than the default of `fit`, so that the demo takes minutes."""


def run_demo(out: Path | None, seed: int, console: Console) -> Path:
    """Run the demo and return its run folder.

    Args:
        out: The run folder; `runs/demo-<time>` by default.
        seed: The seed of training.
        console: Where to print.
    """
    folder = out or Path("runs") / datetime.now().strftime("demo-%Y%m%d-%H%M%S")
    files = movielens_100k()
    console.print(f"Data: {files.source}", style="bold" if files.is_real else "bold yellow")
    if not files.is_real:
        console.print(
            "SIMULATED DATA: MovieLens-100K could not be obtained. The numbers below do not describe it.",
            style="bold yellow",
        )
    rejects = folder.with_name(folder.name + "-rejected.csv")
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = read(files.events, items=files.items, options=ReadOptions(rejects=rejects))
    users = list(range(min(NUM_USERS, log.vocabulary.num_users)))

    console.print("1 · The log", style="bold")
    console.print(log.check())
    if log.report.rejected:
        console.print(f"The rejected rows are in {printable(rejects)}.", soft_wrap=True)

    console.print("2 · A first answer, from counting", style="bold")
    console.print(_counted_table(log, users))

    console.print("3 · Training (minutes)", style="bold")
    train, valid, _ = log.split("leave-one-out")
    model = VariationalAttention(size="small", seed=seed, training={"max_epochs": EPOCHS})
    model.fit(train, valid, folder=folder, callback=ProgressPrinter(console=console))

    console.print("4 · Evaluation: the last event of each user, ranked among all items", style="bold")
    results = model.evaluate()
    results.to_json(folder / "evaluation.json")
    console.print(str(results), soft_wrap=True)

    console.print("5 · Report", style="bold")
    try:
        console.print(f"Report: {printable(write_report(model, folder))}", soft_wrap=True)
    except MissingDependencyError as missing:
        console.print(f"No report: {missing}", style="yellow")

    console.print("6 · Recommendations", style="bold")
    user_ids = log.vocabulary.user_ids(users)
    console.print(recommendations_table(model.recommend(users=user_ids, k=NUM_ITEMS).to_dicts()))
    console.print("Next:", style="bold")
    for command in (
        f"recommend {printable(folder)} --user {user_ids[0]}",
        f"serve {printable(folder)}",
        "check YOUR-LOG.csv",
    ):
        console.print(f"  variseq {command}", soft_wrap=True)
    return folder


def _counted_table(log: Log, users: list[int]) -> Table:
    """For each user the most popular items and those that most often followed the last one, without seen items."""
    num_items, histories = log.vocabulary.num_items, log.histories
    columns: dict[str, Recommender] = {
        "most popular": Popular(num_items).fit(histories),
        "often next after the last item": LastItemTransitions(num_items).fit(histories),
    }
    table = Table(title="recommendations")
    for heading in ("user", *columns):
        table.add_column(heading, overflow="fold")
    for user, user_id in zip(users, log.vocabulary.user_ids(users), strict=True):
        history, lists = histories.history(user), []
        for baseline in columns.values():
            scores = baseline.scores(history)[0].numpy().copy()
            scores[history.item] = -np.inf
            lists.append(_names(log, np.argsort(-scores, kind="stable")[:NUM_ITEMS].tolist()))
        table.add_section()
        for rank, names in enumerate(zip(*lists, strict=True)):
            table.add_row("" if rank else printable(user_id), *names)
    return table


def _names(log: Log, items: list[int]) -> list[str]:
    """The titles of items, or their ids."""
    titles = [None] * len(items) if log.items is None else log.items.titles(items)
    pairs = zip(titles, log.vocabulary.item_ids(items), strict=True)
    return [printable(item_id if title is None else title) for title, item_id in pairs]
