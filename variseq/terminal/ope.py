"""The command `ope` (off-policy evaluation): what another policy would have earned on exposures of a server or shop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from variseq.errors import InputError, MissingDependencyError
from variseq.output.printable import printable
from variseq.terminal.exposures import (
    WINDOW,
    Columns,
    DwellWithin,
    OnlyShown,
    ReturnWithin,
    RewardOption,
    Window,
    print_notes,
    rewards_of,
)
from variseq.terminal.read_options import options_of_more_events, read_columns

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from variseq.exposures.report import ExposureReport
    from variseq.exposures.table import Exposures
    from variseq.off_policy.evaluation import Estimate, Interval, OffPolicyEvaluation, PolicyEvaluation
    from variseq.off_policy.policies import TargetPolicy
    from variseq.off_policy.run_policy import RunPolicy
    from variseq.ranking.engine import Engine
    from variseq.sequences.given_history import HistoryRow

commands = typer.Typer(rich_markup_mode=None)
RULES = ("uniform", "logged")
RECORD, PICTURE = "ope.json", "ope.png"
BEST = ("doubly robust", "SNIPS", "cascade doubly robust", "RIPS", "whole-list SNIPS", "whole-list IPS")
"""The estimators that sentences are about: the first one that has a number."""


@commands.command()
def ope(
    source: Annotated[
        Path, typer.Argument(metavar="EXPOSURES", help="Folder of `serve --exposures`, or a table of impressions.")
    ],
    policy: Annotated[
        list[str] | None, typer.Option(help="uniform, logged, or the folder of a run; repeatable, to compare them.")
    ] = None,
    target_column: Annotated[
        list[str] | None, typer.Option(help="Column of a table with the probabilities of another policy; repeatable.")
    ] = None,
    columns: Columns = None,
    reward: RewardOption = None,
    window: Window = WINDOW,
    only_shown: OnlyShown = False,
    return_within: ReturnWithin = None,
    dwell_within: DwellWithin = None,
    store: Annotated[str | None, typer.Option(help="URL of the store of histories, for the policy of a run.")] = None,
    histories: Annotated[
        Path | None, typer.Option(help="A log of events: histories for the policy of a run at the lists of a table.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Of runs: softmax or greedy; as logged otherwise.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of runs with softmax; as logged otherwise.")] = None,
    pool: Annotated[int | None, typer.Option(help="Of runs with softmax; as logged otherwise.")] = None,
    uniform_share: Annotated[float | None, typer.Option(help="Of runs with softmax; as logged otherwise.")] = None,
    precision: Annotated[
        float | None, typer.Option(help="Wanted reach of intervals, as a share of the estimate: 0.05.")
    ] = None,
    show_refused: Annotated[
        bool, typer.Option("--show-refused", help="Give numbers even where the diagnostics refuse them.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help=f"Folder for {RECORD} and {PICTURE}; it is made.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
) -> None:
    """Estimate what other policies would have earned, or refuse to. Exit code 1: every policy is refused."""
    from rich.progress import Progress

    from variseq.exposures.read import read_exposures
    from variseq.exposures.rewards import RewardOptions
    from variseq.off_policy.evaluation import evaluate_policies
    from variseq.output.console import console

    if precision is not None and not 0 < precision < 1:
        raise InputError(f"--precision {precision:g} is not possible. Give a share between 0 and 1, such as 0.05.")
    _refuse_unwritable(out)
    names = read_columns(columns)
    options = RewardOptions(rewards_of(reward), window, only_shown, return_within, dwell_within)
    is_default = reward is None and options == RewardOptions()
    exposures, report = read_exposures(source, names, None if is_default else options)
    print_notes(report)
    given = {"strategy": strategy, "temperature": temperature, "pool": pool, "uniform_share": uniform_share}
    changes = {name: one for name, one in given.items() if one is not None}
    bar = Progress(console=console(stderr=True), transient=True)
    with bar if bar.console.is_terminal else nullcontext():
        chosen = policy or ([] if target_column else ["logged"])
        policies = [_policy(one, exposures, source, store, changes, bar, histories) for one in chosen]
        policies += [_of_column(one, source, names or {}, report) for one in target_column or []]
        found = evaluate_policies(exposures, policies, show_refused, seed=seed)
    _print(found, precision)
    of_log = None if histories is None else f"the events of {histories} before each list, which no hash proves"
    if of_log is not None:
        typer.echo(printable(f"Histories are {of_log}."))
    if out is not None:
        _write(found.to_json() | {"histories": of_log}, found, out)
    if all(one.is_refused for one in found.policies):
        raise typer.Exit(1)


def _policy(
    name: str,
    exposures: Exposures,
    source: Path,
    store: str | None,
    changes: dict[str, Any],
    bar: Progress,
    histories: Path | None,
) -> TargetPolicy:
    """A target policy by its name. Raises InputError for one that is neither a rule nor a run."""
    from variseq.off_policy.policies import LoggingPolicy, UniformPolicy

    if name == "uniform":
        return UniformPolicy()
    if name == "logged":
        return LoggingPolicy()
    if not Path(name).is_dir():
        raise InputError(f"--policy {name!r} is no folder of a run. Allowed: {', '.join(RULES)}, or such a folder.")
    if histories is not None:
        return _policy_at_table(name, exposures, histories, changes, _progress_of(bar, name, exposures))
    return run_policy(name, exposures, source, store, changes, bar)


def _progress_of(bar: Progress, name: str, exposures: Exposures) -> Callable[[int, int], None]:
    task = bar.add_task(f"Lists of {printable(name)}", total=exposures.num_exposures)
    return lambda done, total: bar.update(task, completed=done, total=total)


def _policy_at_table(
    name: str, exposures: Exposures, log: Path, changes: dict[str, Any], report: Callable[[int, int], None]
) -> RunPolicy:
    """The policy of a run at the lists of a table, with histories from a log that is read as that of the run was."""
    from variseq.artifacts.folder import read_manifest
    from variseq.events.read import read
    from variseq.off_policy.run_policy import RunPolicy
    from variseq.ranking.options import RecommendOptions
    from variseq.sequences.histories import Histories

    if exposures.context is not None:
        raise InputError(
            "--histories is for a table, and these are exposures of a server. Name its store with --store."
        )
    options = options_of_more_events(read_manifest(Path(name)).get("log", {}).get("options", {}))
    if "visit" in options.columns:
        raise InputError(f"{name} was fitted on visits of a column, whose events have no times of their own.")
    events = read(log, options=options)
    known, histories = events.vocabulary, Histories.from_table(events.table, events.vocabulary.num_users)
    users = {str(one): number for number, one in enumerate(known.user_ids(range(known.num_users)))}
    if not users.keys() & set(exposures.user):
        raise InputError(f"No user of the table has events in {log}. Check that both have the same user ids.")

    def history_of(user: str) -> list[HistoryRow]:
        if (number := users.get(user)) is None:
            return []
        begin, end = histories.offsets[number : number + 2].tolist()
        item, behavior = known.item_ids(histories.item[begin:end]), histories.behavior[begin:end].tolist()
        value = [None if one != one else one for one in histories.value[begin:end].tolist()]
        time = histories.timestamp[begin:end].tolist()
        return list(zip(item, time, [known.behaviors[one] for one in behavior], value, strict=True))

    return RunPolicy(name, _engine(Path(name)), RecommendOptions(**changes), history_of, None, report)


def run_policy(
    name: str, exposures: Exposures, source: Path, store: str | None, changes: dict[str, Any], bar: Progress
) -> RunPolicy:
    """The policy of a run or of its export at the lists of a server, as logged but for some changes."""
    from variseq.exposures.folder import hashed_user, read_key
    from variseq.off_policy.run_policy import RunPolicy
    from variseq.ranking.options import SOFTMAX, RecommendOptions
    from variseq.serving.stores import open_store
    from variseq.terminal.read_options import STORES, open_durable_store

    if exposures.context is None or not source.is_dir():
        raise InputError(
            f"--policy {name} needs the folder of `variseq serve --exposures`, or for a table the log of events with "
            "--histories."
        )
    if store is None:
        raise InputError(f"--policy {name} needs the histories of the server. Name its store with --store.")
    key, histories = read_key(source), (open_durable_store if store.startswith(STORES) else open_store)(store)
    users = {hashed_user(key, one): one for one in histories.users("", max(1, histories.counts().users))}
    drawn = [one["policy"] for one in exposures.context if one["policy"]["strategy"] == "softmax"]
    logged = {setting: drawn[0][setting] for setting in ("strategy", *SOFTMAX)} if drawn else {}

    def history_of(user: str) -> list[HistoryRow] | None:
        if (known := users.get(user)) is None:
            return None
        return [(one.item_id, one.timestamp, one.behavior, one.value) for one in histories.history(known)]

    options = RecommendOptions(**logged | changes)
    return RunPolicy(name, _engine(Path(name)), options, history_of, key, _progress_of(bar, name, exposures))


def _engine(run: Path) -> Engine:
    """What answers for a run under its changes of the catalog; its export where there is one, as a server uses it."""
    from variseq.artifacts.catalog_changes import read_changes
    from variseq.artifacts.folder import TABLES, has_file
    from variseq.ranking.changed_engine import ChangeableEngine

    if has_file(run, TABLES):
        from variseq.inference.engine import load_engine

        trained = load_engine(run)
    else:
        from variseq.artifacts.checkpoint import load_checkpoint
        from variseq.recommend.network_model import engine_of

        trained = engine_of(load_checkpoint(run))
    return ChangeableEngine(trained).engine(read_changes(run))


def _of_column(
    column: str, source: Path, names: dict[str, str | int] | list[str], report: ExposureReport
) -> TargetPolicy:
    """The policy whose probabilities a column of the table has: the table is read again with it as propensity."""
    import numpy as np

    from variseq.exposures.read import read_exposures
    from variseq.off_policy.policies import GivenProbabilities

    if source.is_dir():
        raise InputError("--target-column is for a table, and this is a folder of exposures. Name a --policy.")
    if isinstance(names, list):
        raise InputError("--target-column needs names of columns. Write --columns item_id=sku,reward=sold.")
    is_list = "propensity_in_list" in report.columns
    others: dict[str, str | int] = {name: one for name, one in names.items() if not name.startswith("propensity")}
    wanted = others | {"propensity_in_list" if is_list else "propensity": column}
    again, _ = read_exposures(source, wanted, allow_impossible=True)
    parts = np.split(again.propensity_in_list, again.offsets[1:-1])
    return GivenProbabilities(column, dict(zip(again.exposure_id, parts, strict=True)))


def _print(found: OffPolicyEvaluation, precision: float | None) -> None:
    from variseq.output.console import console

    shown = console()
    shown.print(
        f"{found.num_exposures:,} lists with {found.num_rows:,} items of {found.num_users:,} people; "
        f"{found.num_rewarded:,} rewards are not 0.",
        soft_wrap=True,
    )
    if found.num_without_propensity:
        shown.print(f"{found.num_without_propensity:,} lists without propensities are left out.", soft_wrap=True)
    for one in found.policies:
        for reason, number in one.left_out.items():
            shown.print(f"{number:,} lists are left out for {printable(one.policy)}: {reason}.", soft_wrap=True)
    shown.print(_diagnostics(found.policies))
    shown.print(_estimates(found))
    if found.differences:
        shown.print(_differences(found))
    shown.print(
        "Estimates are rewards a list. In brackets: 95 % intervals over people. The direct method has none, for its "
        "bias is not known.",
        soft_wrap=True,
    )
    for sentence in sentences_of(found, precision):
        shown.print(printable(sentence), soft_wrap=True)


def _diagnostics(policies: Sequence[PolicyEvaluation]) -> Table:
    table = _table(
        "policy", "weights of", "mean", "3 SE", "effective lists", "of rewards", "largest", "least p", "no overlap"
    )
    for policy in policies:
        for one in policy.diagnostics:
            table.add_row(
                printable(policy.policy), one.kind, f"{one.mean:.3f}", f"{3 * one.standard_error:.3f}",
                f"{one.effective_sample:,.0f}", f"{one.effective_rewards:,.0f}", f"{one.largest_share:.1%}",
                f"{one.smallest_propensity:.1e}", f"{one.without_overlap:.0%}",
            )  # fmt: skip
    return table


def _estimates(found: OffPolicyEvaluation) -> Table:
    table = _table("policy", "estimator", "estimate", "minus the logging policy")
    logging = found.on_policy
    table.add_row("logging policy", logging.estimator, _number(logging.value, logging.interval), "")
    for policy in found.policies:
        for one in policy.estimates:
            is_given = one.value is not None
            difference = _number(one.difference, one.difference_interval, "+") if is_given else ""
            mark = " (refused)" if is_given and one.refusal else ""
            value = _number(one.value, one.interval) + mark if is_given else "refused"
            table.add_row(printable(policy.policy), one.estimator, value, difference)
    return table


def _differences(found: OffPolicyEvaluation) -> Table:
    table = _table("policies", "estimator", "difference")
    for pair in found.differences:
        for one in pair.estimates:
            value = "refused" if one.value is None else _number(one.value, one.interval, "+")
            table.add_row(printable(f"{pair.first} minus {pair.second}"), one.estimator, value)
    return table


def sentences_of(found: OffPolicyEvaluation, precision: float | None = None) -> Iterator[str]:
    """What follows for each policy, in plain words."""
    for policy in found.policies:
        refusals: dict[str, list[str]] = {}
        for one in policy.diagnostics:
            if one.refusal is not None:
                refusals.setdefault(one.refusal, []).append(one.kind)
        for sentence, kinds in refusals.items():
            yield f"{policy.policy}, weights of {' and '.join(kinds)}: refused. {sentence}"
        best = best_estimate(policy.estimates)
        if best is None:
            yield f"Nothing is known of {policy.policy} from this log."
            continue
        yield f"{policy.policy}: {_compared(best, best.difference, best.difference_interval, 'the logging policy')}"
        yield from (text for one in policy.checks if (text := _checked(one)))
        if precision is not None and (number := best.num_exposures_for(precision, found.num_exposures)) is not None:
            yield (
                f"An interval of ± {precision:.1%} of the {best.estimator} estimate needs about {number:,} lists; "
                f"there are {found.num_exposures:,}."
            )
    for pair in found.differences:
        if (best := best_estimate(pair.estimates)) is not None:
            yield f"{pair.first}: {_compared(best, best.value, best.interval, pair.second)}"


def best_estimate(estimates: Sequence[Estimate]) -> Estimate | None:
    """The estimate to report: the first of `BEST` that is not refused."""
    trusted = {one.estimator: one for one in estimates if one.value is not None and one.refusal is None}
    return next((trusted[name] for name in BEST if name in trusted), None)


def _compared(one: Estimate, difference: float | None, interval: Interval | None, other: str) -> str:
    """A difference in words."""
    if difference is None or interval is None or interval[0] == interval[1]:
        return f"the same as {other}, by the {one.estimator} estimate."
    more = "more" if difference > 0 else "less"
    verdict = "may be chance" if interval[0] <= 0 <= interval[1] else "is larger than chance explains"
    return (
        f"{abs(difference):.4g} a list {more} than {other}, by the {one.estimator} estimate. The difference {verdict}."
    )


def _checked(one: Estimate) -> str:
    """Whether rewards add up; empty where that cannot be known, or there is nothing to know."""
    if one.value is None or one.refusal or one.interval is None or one.interval[0] == one.interval[1]:
        return ""
    if one.interval[0] <= 0 <= one.interval[1]:
        return f"{one.estimator} and IPS do not differ by more than chance: rewards may be taken to add up."
    reason = "on the items above" if one.estimator == "RIPS" else "on the rest of the list"
    return (
        f"{one.estimator} differs from IPS by {_number(one.value, one.interval, '+')}: rewards depend {reason}, so "
        "IPS, SNIPS and doubly robust are biased."
    )


def _number(value: float | None, interval: Interval | None, sign: str = "") -> str:
    if value is None:
        return ""
    if interval is None:
        return f"{value:{sign}.4g}"
    return f"{value:{sign}.4g} [{interval[0]:{sign}.4g} to {interval[1]:{sign}.4g}]"


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index > 1 else "left")
    return table


def _refuse_unwritable(out: Path | None) -> None:
    """Raises, before any work is done, where the results could not be written."""
    if out is None:
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file. Give the name of a folder.")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "report") from error


def _write(record: dict[str, Any], found: OffPolicyEvaluation, out: Path) -> None:
    from json import dumps

    from variseq.atomic import atomic_write
    from variseq.reports.off_policy_figure import write_off_policy_figure

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be made: {error.strerror or error}. Give another folder.") from error
    with atomic_write(out / RECORD) as unfinished:
        text = dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        unfinished.write_text(text + "\n", encoding="utf-8")
    write_off_policy_figure(out / PICTURE, found)
    typer.echo(f"Written: {printable(out / RECORD)}, {printable(out / PICTURE)}")
