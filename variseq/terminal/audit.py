"""The command `audit`: attacks that find out who was in the log of a fit, ordinary or private."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from variseq.errors import InputError, MissingDependencyError
from variseq.terminal.read_options import ReadFlags, events_source, takes_read_options
from variseq.threads import use_threads

if TYPE_CHECKING:
    from rich.table import Table

    from variseq.log import Log
    from variseq.privacy.attacks import Attack
    from variseq.privacy.best_attack import BestAttack
    from variseq.privacy.contributions import Pairs
    from variseq.privacy.one_run_audit import Finding, OneRunAudit
    from variseq.privacy.release import PrivacyOptions
    from variseq.training.defaults import Size

commands = typer.Typer(rich_markup_mode=None)
PICTURES = (".png", ".svg")
NOTE = (
    "An AUC of 0.5 is guessing. Found: the share of those in the log who are found, where 1 % (5 %) of others are "
    "accused wrongly. In brackets: 95 % intervals."
)


@commands.command()
@takes_read_options
def audit(
    source: Annotated[list[str], typer.Argument(help="Event files, as for fit.")],
    read: ReadFlags,
    items: Annotated[str | None, typer.Option(help="File with item_id; with --private the public catalog.")] = None,
    private: Annotated[
        float | None, typer.Option(help="Attack a private fit of this ε, in place of an ordinary one.")
    ] = None,
    pairs: Annotated[str, typer.Option(help="For a private fit: near or next, as for fit.")] = "near",
    network: Annotated[
        str, typer.Option(help="For a private fit: no attacks its counts, yes the steps of its network.")
    ] = "no",
    canaries: Annotated[int | None, typer.Option(help="How many made-up people.")] = None,
    shadows: Annotated[int, typer.Option(help="Shadow fits for the likelihood ratio attack; 0 leaves it out.")] = 0,
    size: Annotated[str | None, typer.Option(help="tiny, small, medium or large; tiny otherwise.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the fit, of made-up people and of coin flips.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the results as JSON.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the attacks: .png or .svg.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to compute with.")] = None,
) -> None:
    """Put made-up people into a log, fit, and find out who was in. Nothing is kept. Exit code 1: ε is refuted."""
    use_threads(threads)
    from variseq.log import read as read_log
    from variseq.privacy.release import PrivacyOptions
    from variseq.terminal.run_config import run_config

    if private is not None and (shadows or size):
        raise InputError("--shadows and --size are for ordinary fits. Leave them out with --private.")
    if network not in ("no", "yes") or (private is None and network == "yes"):
        raise InputError(f"--network {network} is not possible. With --private give no or yes; otherwise leave it out.")
    _refuse_unwritable(json, picture)
    with events_source(source[0] if len(source) == 1 else source) as events:
        config = run_config(None, read, []).read
        log = read_log(events, items if private is None else None, config)
    if private is None:
        number = {} if canaries is None else {"num_canaries": canaries}
        found = _audit_fit(log, num_shadows=shadows, size=cast("Size", size or "tiny"), seed=seed, **number)
        _write(json, picture, {"attacks": [one.to_json() for one in found]}, found)
        return
    wanted = PrivacyOptions(private, pairs=cast("Pairs", pairs), network="yes" if network == "yes" else "no")
    audited = _audit_private(log, items, wanted, canaries, seed)
    guarantee = (audited.epsilon, audited.best_attack)
    _write(json, picture, audited.to_json(), [audited.found.attack, audited.control.attack], guarantee)
    if not audited.holds:
        raise typer.Exit(1)


def _audit_fit(log: Log, **options: Any) -> list[Attack]:
    from variseq.output.console import console
    from variseq.terminal.attacked_fit import FitAuditOptions, attack_fit

    progress = console(stderr=True)
    found = attack_fit(log, FitAuditOptions(**options), lambda fit, of: progress.print(f"Fit {fit} of {of} ..."))
    included = found[0].included
    shown = console()
    shown.print(
        f"{included.sum()} of {len(included)} made-up people were in the log of {log.vocabulary.num_users:,} people.",
        soft_wrap=True,
    )
    table = _table("attack", "AUC", "found at 1 % FPR", "found at 5 % FPR")
    for attack in found:
        rates = (attack.true_positive_rate(rate) for rate in (0.01, 0.05))
        table.add_row(attack.name, _interval(attack.auc(), 3), *(_interval(rate, 2) for rate in rates))
    shown.print(table)
    shown.print(NOTE, soft_wrap=True)
    return found


def _audit_private(
    log: Log, items: str | None, options: PrivacyOptions, canaries: int | None, seed: int
) -> OneRunAudit:
    from variseq.log import NO_TEST
    from variseq.output.console import console
    from variseq.privacy.one_run_audit import audit_release
    from variseq.private_model import refuse_dependent_reading

    log = log if items is None else log.on_catalog(items)
    refuse_dependent_reading(log.split("leave-one-out", NO_TEST)[0])
    attacked = (log.histories, log.vocabulary.num_items, options, canaries, seed)
    if options.network == "yes":
        from variseq.privacy.steps_audit import audit_steps

        progress = console(stderr=True)
        audited = audit_steps(*attacked, report=lambda name: progress.print(f"Steps {name} ..."))
    else:
        audited = audit_release(*attacked)
    included, num_steps = audited.found.attack.included, audited.ledger.mechanisms[0].num_steps
    claim = f"that {num_steps} steps of the network cost" if options.network == "yes" else "for the two sums of counts"
    shown = console()
    shown.print(
        f"{included.sum():,} of {len(included):,} made-up people were in the log of {log.vocabulary.num_users:,} "
        f"people. The ledger claims {claim} ε = {audited.epsilon:.3g} at δ = {audited.ledger.delta:.2g}.",
        soft_wrap=True,
    )
    table = _table("release", "correct guesses", "so ε is above", "AUC", "found at 1 % FPR")
    for found in (audited.found, audited.control):
        table.add_row(*_row(found))
    shown.print(table)
    most = f"an AUC of at most {audited.largest_auc:.3f} and {audited.best_attack.true_positive_rate(0.01):.2f} found"
    shown.print(f"The claim allows {most}. {NOTE}", soft_wrap=True)
    for sentence in sentences_of(audited):
        shown.print(sentence, soft_wrap=True)
    return audited


def sentences_of(audited: OneRunAudit) -> list[str]:
    """What the audit found, in plain words."""
    bound, control = audited.found.epsilon_lower_bound, audited.control.epsilon_lower_bound
    first = f"With noise, the attack shows that ε is above {bound:.2f}."
    if audited.holds:
        first += " That is below the claim, as it must be."
    else:
        first = f"The claim is refuted: the attack is better than it allows. {first}"
    if audited.control_breaks:
        second = (
            f"Without noise, it shows that ε is above {control:.2f}. So this audit would find that noise is missing."
        )
    else:
        second = (
            f"Without noise, it shows only that ε is above {control:.2f}, which does not exceed the claim. With this "
            "number of made-up people and this δ the audit cannot refute the claim; take another --canaries or "
            "a smaller ε."
        )
    return [first, second]


def _row(found: Finding) -> list[str]:
    attack = found.attack
    return [
        attack.name,
        f"{found.num_correct:,} of {found.num_guesses:,}",
        f"{found.epsilon_lower_bound:.2f}",
        _interval(attack.auc(), 3),
        _interval(attack.true_positive_rate(0.01), 2),
    ]


def _interval(found: tuple[float, float, float], digits: int) -> str:
    value, low, high = (f"{one:.{digits}f}" for one in found)
    return f"{value} [{low} to {high}]"


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def _refuse_unwritable(json: Path | None, picture: Path | None) -> None:
    """Raises, before any work is done, where the results could not be written."""
    from variseq.terminal.evaluate import refuse_unwritable

    refuse_unwritable(json)
    if picture is None:
        return
    if picture.suffix not in PICTURES or picture.is_dir() or not picture.parent.is_dir():
        raise InputError(f"--picture {picture} cannot be made. Give a .png or .svg file in a folder that exists.")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "report") from error


def _write(
    json: Path | None,
    picture: Path | None,
    record: dict[str, Any],
    attacks: list[Attack],
    guarantee: tuple[float, BestAttack] | None = None,
) -> None:
    from json import dumps

    from variseq.atomic import atomic_write

    if json is not None:
        with atomic_write(json) as unfinished:
            unfinished.write_text(dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if picture is not None:
        from variseq.reports.attack_figure import write_attack_figure

        write_attack_figure(picture, attacks, guarantee)
