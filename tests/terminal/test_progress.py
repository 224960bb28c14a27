"""What a person sees while a model trains."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from variseq.output.progress import ProgressPrinter


def record(**changes: Any) -> dict[str, Any]:
    values = {"epoch": 0, "nll": 3.21, "kl": 12.3, "beta": 1e-4, "noise": 1.0, "validation_ndcg": 0.1234}
    values |= {"validation_nll": 4.5, "health": {"swap_gap": 0.77}, "tokens_per_second": 1e4, "seconds_left": 65.0}
    return {**values, "alarms": [], "is_best": True, **changes}


def printed(
    *records: dict[str, Any], verbose: int = 1, is_terminal: bool = False, is_finished: bool = True
) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=200, force_terminal=is_terminal, quiet=verbose == 0)
    printer = ProgressPrinter(verbose, console)
    printer.on_begin(num_epochs=5)
    printer.on_batch(0, 0.5, 12_345.0, 125.0)
    for one in records:
        printer.on_epoch(one)
    printer.on_end(is_finished)
    return stream.getvalue().splitlines()


def test_epoch_is_one_line_with_validation_metrics_and_time_left() -> None:
    line, kept = printed(record())
    assert all(text in line for text in ("epoch 1/5", "NDCG@10 0.1234", "NLL 4.500", "1:05 left"))
    assert not any(text in line for text in ("KL", "β", "noise", "swap gap", "tokens/s"))
    assert "epoch 1" in kept


@pytest.mark.parametrize(
    ("ndcg", "nll", "improved"),
    [(0.2, 4.0, "NDCG@10, NLL"), (0.2, 5.0, "NDCG@10"), (0.1, 4.0, "NLL"), (0.1234, 4.5, "nothing")],
)
def test_line_names_what_improved_on_the_best_so_far(ndcg: float, nll: float, improved: str) -> None:
    between = record(epoch=1, validation_ndcg=0.0, validation_nll=9.0, is_best=False)
    after = record(epoch=2, validation_ndcg=ndcg, validation_nll=nll)
    assert f"improved: {improved}  " in printed(record(), between, after)[2]


def test_verbose_adds_the_numbers_of_the_latent_and_quiet_prints_nothing() -> None:
    line = printed(record(), verbose=2)[0]
    assert all(text in line for text in ("KL 12.3", "β 1.0e-04", "noise 1.0", "swap gap 0.77", "10,000 tokens/s"))
    assert printed(record(), verbose=0) == []


def test_kept_epoch_is_not_shown_for_a_run_that_was_interrupted() -> None:
    assert len(printed(record(), is_finished=False)) == 1


def test_alarm_is_shown_as_a_warning() -> None:
    assert "WARNING" in printed(record(alarms=["nothing is read"]))[1]


def test_refit_is_numbered_where_there_are_several() -> None:
    stream = io.StringIO()
    printer = ProgressPrinter(console=Console(file=stream, width=200))
    printer.on_refit(1, 2)
    printer.on_begin(5)
    printer.on_epoch({name: value for name, value in record().items() if "validation" not in name})
    assert stream.getvalue().startswith("refit 2 of 2, epoch 1/5  training NLL 3.210")


def test_bar_on_a_terminal_shows_the_epoch_and_the_time_left() -> None:
    shown = "".join(printed(record(), is_terminal=True))
    assert "epoch 1/5" in shown
    assert "2:05 left" in shown
