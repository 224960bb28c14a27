"""`variseq fit --private`: reads a log on a public catalog, releases noisy counts of it, and evaluates them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich.progress import Progress

from variseq.atomic import refuse_existing, unfinished
from variseq.errors import InputError
from variseq.log import read
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.privacy.guarantee import guarantee
from variseq.privacy.release import PrivacyOptions
from variseq.private_model import PrivateModel
from variseq.terminal.fit import stopped
from variseq.terminal.read_options import events_source
from variseq.terminal.run_config import RunConfig

NUM_RANKED = 10
OF_A_NETWORK = (
    *("users", "test_file", "calendar", "size", "seed", "device", "from_run", "exposures"),
    *("tensorboard", "verbose"),
)
OF_PRIVACY = ("delta", "max_user_events", "pairs", "content", "network")
"""Options of `variseq fit` that are for a network, and for a private fit."""


def privacy_options(typed: dict[str, Any]) -> PrivacyOptions | None:
    """The options of a private fit as they were typed; None without --private.

    Raises InputError for an option of the other kind of fit, and for one that is not possible.
    """
    is_private = typed["private"] is not None
    other = OF_A_NETWORK if is_private else OF_PRIVACY
    if given := [name for name in other if typed[name] is not None and typed[name] is not False]:
        option = "--from" if given[0] == "from_run" else f"--{given[0].replace('_', '-')}"
        reason = "cannot go with --private" if is_private else "is for --private"
        raise InputError(f"{option} {reason}. Leave it out.")
    if not is_private:
        return None
    given_values = {name: typed[name] for name in OF_PRIVACY if typed[name] is not None}
    if "content" in given_values:
        given_values["content"] = content_weight(given_values["content"])
    return PrivacyOptions(typed["private"], **given_values)


def content_weight(text: str) -> float | Literal["auto"]:
    """The weight of content as it was typed. Raises InputError for what is neither a number nor auto."""
    try:
        return "auto" if text == "auto" else float(text)
    except ValueError as error:
        raise InputError(f"--content {text!r} is no number. Give a weight from 0 to below 1, or auto.") from error


def fit_private(
    source: str | list[str],
    config: RunConfig,
    out: Path,
    items: str | None,
    options: PrivacyOptions,
    quiet: bool = False,
    resume: bool = False,
) -> None:
    """Read, release, save, print the guarantee and evaluate. The folder is written as a whole, or not at all.

    Raises:
        InputError: A source, an option or the folder cannot be used.
    """
    refuse_existing(out)
    other = [f"model.{name}" for name in config.model] + [f"training.{name}" for name in config.training]
    if other := [name for name in other if name != "training.exclude_seen"]:
        raise InputError(f"{other[0]} cannot be set with --private. Allowed: training.exclude_seen, read.*, split.*.")
    if items is None:
        raise InputError(
            "--private needs --items FILE, the public catalog. Items of the log alone would tell what people had."
        )
    options = replace(options, exclude_seen=bool(config.training.get("exclude_seen", True)))
    with events_source(source) as events:
        log = read(events, options=config.read).on_catalog(items)
    progress = console(quiet=quiet)
    progress.print(log.check())
    train, valid, test = log.split(config.split.by, config.split.test, config.split.valid, config.split.targets_of)
    bar = Progress(console=console(stderr=True, quiet=quiet), transient=True)
    task = bar.add_task("Steps of the network", total=None, visible=False)

    def report(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total, visible=True)

    try:
        with bar if bar.console.is_terminal else nullcontext():
            model = PrivateModel.fit(train, valid, out, options, report, resume)
    except KeyboardInterrupt:
        stopped(unfinished(out))
        raise
    progress.print(guarantee(model.engine.health["privacy"]), soft_wrap=True)
    if test.part.protocol["num_test_events"]:
        results = model.evaluate(test, valid, k=min(NUM_RANKED, model.vocabulary.num_items))
        console().print(str(results), soft_wrap=True)
    console().print(f"Run: {printable(out)}", soft_wrap=True)
