"""The command `exposures check`: what came in exposures, and what can be concluded from them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from variseq.errors import InputError
from variseq.output.printable import printable
from variseq.terminal.read_options import read_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.table import Table

    from variseq.exposures.report import ExposureReport
    from variseq.exposures.rewards import Reward
    from variseq.exposures.support import Support
    from variseq.exposures.table import Exposures

Columns = Annotated[str | None, typer.Option(help="Names in a table: item_id=sku,reward=sold,propensity=p,...")]
RewardOption = Annotated[
    list[str] | None,
    typer.Option(help="What a behavior is worth: purchase=1,click=0.2,play=value; each is worth 1 otherwise."),
]
Window = Annotated[str, typer.Option(help="An event without exposure_id belongs to a list so long before it.")]
OnlyShown = Annotated[bool, typer.Option("--only-shown", help="Leave out what was not confirmed by /v1/shown.")]
ReturnWithin = Annotated[
    str | None, typer.Option(help="Reward lists after which people came back within 7d, in place of behaviors.")
]
DwellWithin = Annotated[
    str | None, typer.Option(help="Reward lists by the minutes that people stayed, up to 1h, in place of behaviors.")
]
WINDOW = "24h"
"""These options are those of all commands that read exposures."""
commands = typer.Typer(help="Lists that were given to people.", no_args_is_help=True, rich_markup_mode=None)
SHOWN_POLICIES = 5


@commands.callback()
def _group() -> None:
    """Lists that were given to people."""


@commands.command()
def check(
    source: Annotated[
        Path, typer.Argument(help="Folder of `serve --exposures`, or a table with a row for each item that was shown.")
    ],
    columns: Columns = None,
    reward: RewardOption = None,
    window: Window = WINDOW,
    only_shown: OnlyShown = False,
    return_within: ReturnWithin = None,
    dwell_within: DwellWithin = None,
) -> None:
    """What came, and what can be concluded from it. The exit code is 2 where a propensity is impossible."""
    from variseq.exposures.read import read_exposures
    from variseq.exposures.rewards import RewardOptions
    from variseq.exposures.support import conclusions, support
    from variseq.output.console import console

    options = RewardOptions(rewards_of(reward), window, only_shown, return_within, dwell_within)
    is_default = reward is None and options == RewardOptions()
    exposures, report = read_exposures(
        source, read_columns(columns), None if is_default else options, allow_impossible=True
    )
    found = support(exposures)
    shown = console()
    shown.print(_table(exposures, report, found))
    print_notes(report)
    report.refuse_impossible()
    for sentence in conclusions(exposures, found):
        shown.print(sentence, soft_wrap=True)


def print_notes(report: ExposureReport) -> None:
    """What was noted on how exposures were read."""
    from variseq.output.console import console

    for note in report.notes:
        console().print(f"Note: {printable(note)}", soft_wrap=True)


def rewards_of(given: list[str] | None) -> Mapping[str, Reward] | None:
    """Rewards by behavior: a number, or "value" for that of each event. Raises InputError for another one.

    >>> rewards_of(["purchase=1,cart=0.2", "play=value"])
    {'purchase': 1.0, 'cart': 0.2, 'play': 'value'}
    """
    if given is None:
        return None
    pairs = [one.strip().rpartition("=") for text in given for one in text.split(",")]
    try:
        return {behavior: _reward(behavior, number) for behavior, _, number in pairs}
    except ValueError as error:
        raise InputError(
            f"Rewards {','.join(given)!r} cannot be read. Write purchase=1,cart=0.2, or play=value."
        ) from error


def _reward(behavior: str, text: str) -> Reward:
    if not behavior:
        raise ValueError("no behavior")
    return "value" if text == "value" else float(text)


def _table(exposures: Exposures, report: ExposureReport, found: Support) -> Table:
    from rich.table import Table

    table = Table(show_header=False)
    for name, text in _rows(exposures, report, found):
        table.add_row(name, printable(text))
    return table


def _rows(exposures: Exposures, report: ExposureReport, found: Support) -> Iterator[tuple[str, str]]:
    from variseq.exposures.folder import iso_time

    if report.columns:
        yield "columns", ", ".join(f"{name}={of_table}" for name, of_table in report.columns.items())
    yield "lines", _counted(report.lines)
    if report.first_fault:
        yield "first unreadable line", report.first_fault
    yield "lists", _counted(report.exposures)
    for name, outcomes in (("confirmations", report.shown), ("events", report.events), ("behaviors", report.behaviors)):
        if outcomes:
            yield name, _counted(outcomes)
    users = {user for user in exposures.user if user is not None}
    yield "rows", f"{len(exposures):,} of {len(users):,} users and {len(exposures.item_ids):,} items"
    if not len(exposures):
        return
    lengths = exposures.lengths
    yield "ranks", f"{exposures.rank.min()} to {exposures.rank.max()}; {lengths.min()} to {lengths.max()} rows a list"
    if exposures.time.any():
        yield "times", f"{iso_time(int(exposures.time.min()))} to {iso_time(int(exposures.time.max()))}"
    if exposures.context is not None:
        policies = Counter(
            " ".join(f"{name}={value}" for name, value in one["policy"].items() if name != "seed")
            for one in exposures.context
        )
        most = policies.most_common(SHOWN_POLICIES)
        rest = f", and {len(policies) - len(most)} more" if len(policies) > len(most) else ""
        yield "policies", "; ".join(f"{num:,} × {name}" for name, num in most) + rest
        yield "models", _counted(Counter(one["model"] for one in exposures.context))
    of_lists = exposures.reward.sum() / exposures.num_exposures
    num_rewarded = int((exposures.reward != 0).sum())
    yield "rewards", f"{num_rewarded:,} not 0, {exposures.reward.sum():,.6g} in all, {of_lists:.4g} a list"
    yield "pinned", f"{int(exposures.is_pinned.sum()):,} rows"
    yield (
        "propensities",
        (
            f"{found.num_known:,} of {found.num_rows:,} rows, the smallest {found.smallest:.3g}; "
            f"{report.num_not_positive:,} of 0 or less, {report.num_above_one:,} above 1"
        ),
    )
    if found.num_known and report.first_impossible is None:
        yield (
            "weights of a uniform policy",
            f"mean {found.uniform_weight:.3g} ± {found.standard_error:.2g}, "
            f"effective sample {found.effective_sample:,.0f}",
        )


def _counted(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{num:,} {name}" for name, num in outcomes.items() if num) or "none"
