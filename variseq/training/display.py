"""A running training into lines and a progress bar on the terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from variseq.output.console import console as new_console


class Display:
    """A bar with throughput and time left inside an epoch, and one line for each finished epoch.

    `quiet` prints nothing. On something that is not a terminal only the lines are printed.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or new_console(quiet=quiet)
        bar = (TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[state]}"))
        # Redrawn by hand: a refreshing thread would take time from the two cores that train.
        self.progress = Progress(*bar, console=self.console, transient=True, auto_refresh=False)
        self.task: TaskID | None = None
        self.drawn = 0.0

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Without a terminal there is no bar, and stopping it would print an empty line.
        if self.console.is_terminal:
            self.progress.stop()

    def advance(self, epoch: int, done: float, positions_per_second: float, seconds_left: float) -> None:
        """Redraw the bar, at most five times a second; `done` is the share of the epoch."""
        if not self.console.is_terminal or time.monotonic() - self.drawn < 0.2:
            return
        self.drawn = time.monotonic()
        if self.task is None:
            self.task = self.progress.add_task("", total=1.0, state="")
        state = f"{positions_per_second:,.0f} positions/s, about {clock(seconds_left)} left"
        self.progress.update(self.task, completed=done, description=f"epoch {epoch + 1}", state=state, refresh=True)

    def refit(self, number: int, num_refits: int) -> None:
        """Say which of several refits the lines that follow are of."""
        if num_refits > 1:
            self.console.print(f"refit {number + 1} of {num_refits}")

    def epoch(self, record: dict[str, Any]) -> None:
        """One line for a finished epoch; one without validation belongs to the refit."""
        is_refit = "validation_ndcg" not in record
        judged = "" if is_refit else (
            f"  │ validation ndcg@10 {record['validation_ndcg']:.4f}  nll {record['validation_nll']:.3f}  │ "
            f"swap gap {record['health']['swap_gap']:.2f}"
        )  # fmt: skip
        self.console.print(
            f"{'refit' if is_refit else 'epoch'} {record['epoch'] + 1:>3}  loss {record['nll']:.3f}  "
            f"KL {record['kl']:6.1f}  β {record['beta']:.1e}  noise {record['noise']:.1f}{judged}  "
            f"{record['positions_per_second']:,.0f} positions/s  about {clock(record['seconds_left'])} left"
            f"{' *' if record.get('is_best') else ''}",
            soft_wrap=True,
        )
        for alarm in record.get("alarms", []):
            self.console.print(f"  ALARM posterior collapse: {alarm}", style="bold red", soft_wrap=True)


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds.

    >>> clock(75.2)
    '1:15'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
