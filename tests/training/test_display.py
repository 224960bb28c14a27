from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from variseq.training.display import Display


def record(**changes: Any) -> dict[str, Any]:
    told = {"epoch": 4, "nll": 3.21, "kl": 12.3, "beta": 1e-4, "noise": 1.0, "validation_ndcg": 0.1234}
    told |= {"validation_nll": 4.5, "health": {"swap_gap": 0.77}, "positions_per_second": 1e4, "seconds_left": 65.0}
    return {**told, "alarms": [], "is_best": True, **changes}


def printed(**changes: Any) -> str:
    stream = io.StringIO()
    with Display(console=Console(file=stream, width=200)) as display:
        display.advance(4, 0.5, 1e4, 65.0)
        display.epoch(record(**changes))
    return stream.getvalue()


def test_epoch_is_one_line_with_quality_speed_and_time_left() -> None:
    line = printed()
    assert line.count("\n") == 1
    for told in ("epoch   5", "0.1234", "10,000 positions/s", "1:05 left", "*"):
        assert told in line


def test_alarm_is_shown_as_one() -> None:
    assert "ALARM posterior collapse: nothing is read" in printed(alarms=["nothing is read"])


def test_bar_on_a_terminal_shows_throughput_and_time_left() -> None:
    stream = io.StringIO()
    with Display(console=Console(file=stream, width=200, force_terminal=True)) as display:
        display.advance(0, 0.5, 12_345.0, 125.0)
    assert "12,345 positions/s" in stream.getvalue()
    assert "2:05 left" in stream.getvalue()
