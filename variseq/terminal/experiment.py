"""The commands `experiment analyze` and `experiment size`: live comparisons of policies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from variseq.errors import InputError, MissingDependencyError
from variseq.output.printable import printable
from variseq.terminal.exposures import WINDOW, DwellWithin, ReturnWithin, RewardOption, Window, rewards_of

if TYPE_CHECKING:
    from rich.table import Table

    from variseq.experiments.analysis import ArmComparison, ExperimentAnalysis

commands = typer.Typer(help="Comparisons of policies on live users.", no_args_is_help=True, rich_markup_mode=None)


@commands.command()
def analyze(
    source: Annotated[Path, typer.Argument(metavar="EXPOSURES", help="Folder of `serve --exposures`.")],
    experiment: Annotated[Path, typer.Option(help="The YAML file that the server was started with.")],
    reward: RewardOption = None,
    window: Window = WINDOW,
    return_within: ReturnWithin = None,
    dwell_within: DwellWithin = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
    picture: Annotated[Path | None, typer.Option(help="File for the difference over days: .png or .svg.")] = None,
) -> None:
    """Compare each arm to the first one, at any time and as often as wanted. Exit code 1: the split is refused."""
    from variseq.experiments.analysis import analyze
    from variseq.experiments.experiment import read_experiment
    from variseq.experiments.users import users_of
    from variseq.exposures.read import read_exposures
    from variseq.exposures.rewards import RewardOptions
    from variseq.output.console import console

    _refuse_undrawable(picture)
    wanted = read_experiment(experiment)
    options = RewardOptions(rewards_of(reward), window, return_within=return_within, dwell_within=dwell_within)
    if not source.is_dir():
        raise InputError(f"{source} is no folder. Give the folder of a server with --exposures and --experiment.")
    exposures, report = read_exposures(source, options=options)
    users, left_out = users_of(exposures, wanted, options)
    found = analyze(users, wanted)
    counts = {"unreadable or unfinished lines": report.lines["unreadable"] + report.lines["unfinished"], **left_out}
    if json:
        from json import dumps

        typer.echo(dumps(found.to_json() | {"left_out": counts}, indent=2, allow_nan=False))
    else:
        shown = console()
        shown.print(f"Metric: {found.metric}.")
        shown.print(_arms(found))
        if any(found.comparisons.values()):
            shown.print(_comparisons(found))
        for sentence in (*_counted(counts), *sentences_of(found)):
            shown.print(printable(sentence), soft_wrap=True)
    if picture is not None and any(found.comparisons.values()):
        from variseq.reports.experiment_figure import write_experiment_figure

        write_experiment_figure(picture, found)
        typer.echo(f"Written: {printable(picture)}", err=json)
    if found.is_refused:
        raise typer.Exit(1)


@commands.command()
def size(
    rate: Annotated[float, typer.Option(help="Share of the control's users who do what is rewarded: 0.05.")],
    effect: Annotated[float, typer.Option(help="Smallest change to be found, as a share of the rate: 0.1.")],
    power: Annotated[float, typer.Option(help="Probability that it is found.")] = 0.8,
    users_per_day: Annotated[int | None, typer.Option(min=1, help="New users a day, in both arms.")] = None,
) -> None:
    """How many users two arms of equal shares need."""
    from variseq.experiments.intervals import sample_size
    from variseq.output.console import console

    found = sample_size(rate, effect, power)
    table = _table("looks", "users an arm", "users", *(["days"] if users_per_day else []))
    for name, number in (("one, at the end", found.fixed), ("at any time; at most", found.always_valid)):
        days = [f"{-(-2 * number // users_per_day):,}"] if users_per_day else []
        table.add_row(name, f"{number:,}", f"{2 * number:,}", *days)
    shown = console()
    shown.print(table)
    shown.print(
        f"Both find {rate:.4g} against {rate * (1 + effect):.4g} with probability {power:g}, and err in 5 % of "
        f"experiments without a difference. Write planned_users: {2 * found.always_valid} into the experiment.",
        soft_wrap=True,
    )


def _arms(found: ExperimentAnalysis) -> Table:
    table = _table("arm", "share", "users", "complete", "lists", "reward a list", "reward a user")
    for one in found.arms:
        table.add_row(
            printable(one.arm), f"{one.share:.1%}", f"{one.num_users:,}", f"{one.num_complete:,}",
            f"{one.num_exposures:,}", f"{one.reward_per_exposure:.4g}", f"{one.mean_reward:.4g}",
        )  # fmt: skip
    return table


def _comparisons(found: ExperimentAnalysis) -> Table:
    table = _table("minus the control", "adjusted", "difference", "at any time", "one planned look")
    for one in found.comparisons.values():
        if one is None:
            continue
        plain, adjusted = one.plain, one.adjusted
        rows = [("no", plain.value, one.plain_always_valid, plain.fixed(found.alpha))]
        if found.covariates:
            rows.append(("yes", adjusted.value, one.always_valid, one.fixed))
        for number, (name, value, *intervals) in enumerate(rows):
            cells = (f"{low:+.4g} to {high:+.4g}" for low, high in intervals)
            table.add_row("" if number else printable(one.arm), name, f"{value:+.4g}", *cells)
    return table


def sentences_of(found: ExperimentAnalysis) -> Iterator[str]:
    """What follows, in plain words."""
    if found.is_refused:
        split = " : ".join(f"{one.num_users:,}" for one in found.arms)
        wanted = " : ".join(f"{one.share:.3g}" for one in found.arms)
        yield (
            f"Refused: users are split {split}, and the shares are {wanted} (p = {found.sample_ratio_p:.1e}). Users of "
            "one arm are lost, or the shares were changed. No difference is shown, for it would be biased."
        )
        return
    from variseq.experiments.users import REWARD

    control, counted = found.arms[0], "its reward is known"
    if found.metric == REWARD:
        counted = f"the follow-up of {found.experiment.follow_up} and the time to join events are over"
    yield f"A user is complete once {counted}. The split agrees with the shares (p = {found.sample_ratio_p:.2g})."
    for name in found.unbalanced:
        yield f"Arms differ in the {name} by more than chance explains, so nothing is adjusted by it."
    for name, one in found.comparisons.items():
        if one is None:
            yield f"{name}: too few users so far. Each arm needs 100 complete users, of whom 10 have a reward."
            continue
        if found.covariates:
            yield (
                f"{name}: the adjustment by the {' and the '.join(found.covariates)} before the first list changes the "
                f"variance by {one.variance_ratio - 1:+.1%}."
            )
        yield _decided(one, control.mean_reward)
    if len(found.comparisons) > 1:
        yield f"Each interval errs with probability {found.alpha:.3g}, and all together with at most 5 %."


def _decided(one: ArmComparison, of_control: float) -> str:
    if not one.is_decided:
        return f"{one.arm}: not decided. The interval that is valid at any time includes 0. More users make it shorter."
    value = one.adjusted.value
    relative = f" ({value / of_control:+.1%})" if of_control > 0 else ""
    more = "more" if value > 0 else "less"
    return (
        f"{one.arm}: decided. It earns {abs(value):.4g}{relative} a user {more} than the control. The interval that is "
        "valid at any time leaves out 0, so the experiment may end now."
    )


def _counted(counts: dict[str, int]) -> Iterator[str]:
    found = ", ".join(f"{number:,} {reason}" for reason, number in counts.items() if number)
    if found:
        yield f"Left out: {found}."


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def _refuse_undrawable(picture: Path | None) -> None:
    """Raises, before any work is done, where the picture could not be written."""
    if picture is None:
        return
    if picture.suffix not in (".png", ".svg"):
        raise InputError(f"--picture {picture} has another ending. Allowed: .png and .svg.")
    if not picture.parent.is_dir():
        raise InputError(f"The folder of --picture {picture} does not exist. Make it, or name another one.")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "report") from error
