"""The command `improve`: a run whose lists earn more, learned from exposures, written if it is better for certain."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from variseq.errors import InputError
from variseq.output.printable import printable
from variseq.terminal.exposures import (
    WINDOW,
    DwellWithin,
    OnlyShown,
    ReturnWithin,
    RewardOption,
    Window,
    print_notes,
    rewards_of,
)

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from variseq.off_policy.improvement import Improvement
    from variseq.ranking.catalog import Catalog

commands = typer.Typer(rich_markup_mode=None)
NUM_MOVED = 5
"""How many items that rise and fall most are shown."""


@commands.command()
def improve(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, whose lists are to earn more.")],
    exposures: Annotated[
        Path, typer.Argument(metavar="EXPOSURES", help="Folder of `serve --exposures` with --strategy softmax.")
    ],
    store: Annotated[str, typer.Option(help="URL of the server's store of histories.")],
    out: Annotated[Path, typer.Option(help="Folder for the better run; it does not exist yet.")],
    reward: RewardOption = None,
    window: Window = WINDOW,
    only_shown: OnlyShown = False,
    return_within: ReturnWithin = None,
    dwell_within: DwellWithin = None,
    even_if_uncertain: Annotated[
        bool, typer.Option("--even-if-uncertain", help="Write the run also where it may be no better.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Divides people into those to learn from and those to compare.")] = 0,
) -> None:
    """Learn from rewards which items to rank higher. Exit code 1: it may be no better, and nothing was written."""
    from rich.progress import Progress

    from variseq.artifacts.checkpoint import load_checkpoint, save_checkpoint
    from variseq.artifacts.folder import IMPROVEMENT
    from variseq.atomic import refuse_existing
    from variseq.exposures.read import read_exposures
    from variseq.exposures.rewards import RewardOptions
    from variseq.off_policy.improvement import improve as improved
    from variseq.output.console import console
    from variseq.terminal.ope import run_policy

    refuse_existing(out)
    checkpoint = load_checkpoint(run)
    rewards = RewardOptions(rewards_of(reward), window, only_shown, return_within, dwell_within)
    logged, report = read_exposures(exposures, None, rewards)
    print_notes(report)
    bar = Progress(console=console(stderr=True), transient=True)
    with bar if bar.console.is_terminal else nullcontext():
        policy = run_policy(str(run), logged, exposures, store, {}, bar)
        if policy.options.strategy != "softmax":
            raise InputError("The exposures have no drawn lists. Serve with --strategy softmax --exposures.")
        task = bar.add_task("Fits", total=None)
        found = improved(logged, policy, seed, lambda done, total: bar.update(task, completed=done, total=total))
    num_items = checkpoint.vocabulary.num_items
    _print(found, policy.engine.catalog, found.offset[:num_items])
    if not found.is_certain and not even_if_uncertain:
        reason = "the comparison is refused" if found.estimate.refusal else "the difference may be chance"
        console().print(f"Nothing was written: {reason}. Log more lists.", soft_wrap=True)
        raise typer.Exit(1)
    import torch

    from variseq.ranking.mixture import SCORE_OFFSET

    offset = torch.from_numpy(found.offset[:num_items].astype("float32"))
    estimate = {name: value for name, value in asdict(found.estimate).items() if value is not None}
    of_lists = {"return_within": return_within, "dwell_within": dwell_within}
    record = {
        "rewards": rewards.rewards,
        "num_lists": dict(zip(("fitted", "to choose", "held out"), found.num_lists, strict=True)),
        **({} if found.best is None else {"strength": found.best.strength, "center": found.best.center}),
        **{name: value for name, value in of_lists.items() if value is not None},
        "reward_per_list": found.base.value,
        "difference": estimate,
    }
    better = replace(
        checkpoint,
        counts=checkpoint.counts | {SCORE_OFFSET: offset},
        manifest=checkpoint.manifest | {IMPROVEMENT: record},
    )
    save_checkpoint(better, out)
    typer.echo(f"Run: {printable(out)}")


def _print(found: Improvement, catalog: Catalog, offset: np.ndarray) -> None:
    """What was learned, and what it is worth."""
    import numpy as np

    from variseq.output.console import console

    shown = console()
    for reason, number in found.left_out.items():
        shown.print(f"{number:,} lists are left out: {reason}.", soft_wrap=True)
    fitted, chosen, held_out = found.num_lists
    to_choose = f"{chosen:,} to choose, " if found.trials else ""
    shown.print(f"Lists: {fitted:,} to fit, {to_choose}{held_out:,} of other people to compare.")
    if found.trials:
        shown.print(_trials(found))
    else:
        shown.print("Offsets go so far along the gradient that half of the effective sample of whole lists is left.")
    order = np.argsort(-offset, kind="stable")
    for words, items in (("up", order[:NUM_MOVED]), ("down", order[::-1][:NUM_MOVED])):
        named = "; ".join(f"{printable(str(catalog.name(int(one))))} {offset[one]:+.2f}" for one in items)
        shown.print(f"Most {words}: {named}", soft_wrap=True)
    difference, interval = found.estimate.value, found.estimate.interval
    if difference is None or interval is None or not found.base.value:
        shown.print("What it is worth cannot be known from these exposures.", soft_wrap=True)
        return
    base = found.base.value
    shown.print(
        f"People held out: {base:.4g} a list before, {base + difference:.4g} after, {difference / base:+.1%} "
        f"[{interval[0] / base:+.1%} to {interval[1] / base:+.1%}], by the {found.estimate.estimator} estimate.",
        soft_wrap=True,
    )
    if found.estimate.refusal is not None:
        shown.print(f"Refused: {found.estimate.refusal}", soft_wrap=True)


def _trials(found: Improvement) -> Table:
    """What was tried, and what was chosen."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("strength", "center", "reward a list"):
        table.add_column(heading, justify="right")
    table.add_row("no offsets", "", f"{found.base_value:.4g}")
    for one in found.trials:
        mark = "  chosen" if one == found.best else ""
        table.add_row(f"{one.strength:g}", f"{one.center:g}", f"{one.value:.4g}{mark}")
    return table
