"""Prints the progress of a training run: a bar with the time left, and a line for each finished epoch."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from variseq.output.console import console as new_console

SECONDS_BETWEEN_DRAWINGS = 0.2


class ProgressPrinter:
    """Prints a training run; it has the methods of `variseq.training.trainer.TrainingCallback`.

    Args:
        verbose: 0 prints nothing. 1 prints, for each epoch, validation NDCG@10 and NLL, what improved and the time
            left. 2 adds training NLL, KL, β, noise, swap gap and throughput.
        console: Where to print; standard output by default. Without a terminal there is no bar.
    """

    def __init__(self, verbose: int = 1, console: Console | None = None) -> None:
        self.verbose = verbose
        self.console = console or new_console(quiet=verbose == 0)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[state]}"))
        # Redrawn by hand: a refreshing thread would take time from the cores that train.
        self.bar = Progress(*columns, console=self.console, transient=True, auto_refresh=False)
        self.task: TaskID | None = None
        self.drawn = 0.0
        self.stage = ""
        self.num_epochs = 0
        self.best: dict[str, float] = {}
        self.chosen: dict[str, Any] | None = None

    def on_refit(self, number: int, num_refits: int) -> None:
        """Name the refit on the lines that follow."""
        self.stage = f"refit {number + 1} of {num_refits}, " if num_refits > 1 else "refit, "
        if number == 0:
            self.console.print("Refit: training goes on with the validation events added.", soft_wrap=True)

    def on_begin(self, num_epochs: int) -> None:
        """Show the bar."""
        self.num_epochs = num_epochs
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        if self.console.is_terminal:
            self.bar.start()

    def on_end(self, is_finished: bool) -> None:
        """Remove the bar; after the epochs with validation, print which of them was kept."""
        if self.console.is_terminal:
            self.bar.stop()
        if is_finished and self.chosen is not None:
            self.console.print(
                f"Kept epoch {self.chosen['epoch'] + 1}: validation NDCG@10 {self.chosen['validation_ndcg']:.4f}, "
                f"NLL {self.chosen['validation_nll']:.3f}.",
                soft_wrap=True,
            )
            self.chosen = None

    def on_batch(self, epoch: int, done: float, tokens_per_second: float, seconds_left: float) -> None:
        """Redraw the bar, at most five times a second."""
        if not self.console.is_terminal or time.monotonic() - self.drawn < SECONDS_BETWEEN_DRAWINGS:
            return
        self.drawn = time.monotonic()
        if self.task is None:
            self.task = self.bar.add_task("", total=1.0, state="")
        speed = f"{tokens_per_second:,.0f} tokens/s, " if self.verbose > 1 else ""
        self.bar.update(
            self.task,
            completed=(epoch + done) / self.num_epochs,
            description=f"{self.stage}epoch {epoch + 1}/{self.num_epochs}",
            state=f"{speed}about {clock(seconds_left)} left",
            refresh=True,
        )

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Print a line for a finished epoch; one without validation is of a refit."""
        shown = self._validation(record) if "validation_ndcg" in record else f"training NLL {record['nll']:.3f}"
        self.console.print(
            f"{self.stage}epoch {record['epoch'] + 1:>{len(str(self.num_epochs))}}/{self.num_epochs}  {shown}"
            f"{details(record) if self.verbose > 1 else ''}  about {clock(record['seconds_left'])} left",
            soft_wrap=True,
        )
        for alarm in record.get("alarms", []):
            self.console.print(f"  WARNING: possible posterior collapse: {alarm}", style="bold red", soft_wrap=True)

    def _validation(self, record: dict[str, Any]) -> str:
        """NDCG@10 and NLL, and which of them are the best so far."""
        value = {"NDCG@10": record["validation_ndcg"], "NLL": record["validation_nll"]}
        is_first, best = not self.best, self.best or value
        improved = [name for name, sign in (("NDCG@10", 1), ("NLL", -1)) if sign * (value[name] - best[name]) > 0]
        self.best = best | {name: value[name] for name in improved}
        if record["is_best"]:
            self.chosen = record
        change = "" if is_first else f"  improved: {', '.join(improved) or 'nothing'}"
        return f"validation NDCG@10 {value['NDCG@10']:.4f}  NLL {value['NLL']:.3f}{change}"


def details(record: dict[str, Any]) -> str:
    """Training loss, KL, β, noise, swap gap and throughput of an epoch."""
    swap_gap = f"  swap gap {record['health']['swap_gap']:.2f}" if "health" in record else ""
    return (
        f"  │ training NLL {record['nll']:.3f}  KL {record['kl']:.1f}  β {record['beta']:.1e}  "
        f"noise {record['noise']:.1f}{swap_gap}  {record['tokens_per_second']:,.0f} tokens/s │"
    )


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds.

    >>> clock(75.2)
    '1:15'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
