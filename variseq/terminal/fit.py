"""`variseq fit`: reads, checks and splits a log, trains a run and evaluates it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from variseq.atomic import refuse_existing, unfinished
from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.evaluation.external_log import refuse_other_items
from variseq.log import NO_TEST, read
from variseq.model.processes import process_index
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.output.progress import ProgressPrinter
from variseq.pipeline import SHOWN_LISTS
from variseq.terminal.read_options import events_source, options_of_more_events
from variseq.terminal.run_config import RunConfig
from variseq.training.run import RunContext, train_network
from variseq.training.warm_start import shape_of

NUM_RANKED = 10


def fit_run(
    source: str | list[str],
    config: RunConfig,
    out: Path,
    items: str | None = None,
    users: str | None = None,
    test_file: str | None = None,
    start: VariationalAttention | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    verbose: int = 1,
    exposures: Path | None = None,
) -> None:
    """Read, check, split, train and evaluate; the run folder is written as a whole, or not at all.

    Several processes that `torchrun` has started train one network. The first one does the rest, and speaks.

    Without a test part and a test file, the validation metrics are printed in place of the table.

    Raises:
        InputError: A source, a setting or the folder cannot be used, or there are a test part and a test file.
    """
    if test_file is not None and config.split.test not in (None, NO_TEST):
        raise InputError(
            f"split.test={config.split.test!r} and --test-file exclude each other. Give one of the two: with a test "
            "file the log has no test part."
        )
    refuse_existing(out)
    model = VariationalAttention(config.size, config.seed, config.device, config.model, config.training)
    is_first = process_index() == 0
    progress, state = console(quiet=verbose == 0 or not is_first), unfinished(out)
    with events_source(source) as events:
        log = read(events, items, config.read, users)
    progress.print(log.check())
    test_log = None
    if test_file is not None:
        test_log = read(test_file, options=options_of_more_events(log.report.options))
        refuse_other_items(log.vocabulary, test_log.vocabulary)
    test = config.split.test if test_log is None else NO_TEST
    train, valid, _ = log.split(config.split.by, test, config.split.valid, config.split.targets_of)
    progress.print(repr(train))
    if not is_first:
        context = RunContext(model.device, ProgressPrinter(verbose=0), state, resume)
        train_network(train.part, valid.part, model.settings(train, start), context)
        return
    try:
        model.fit(train, valid, out, resume, verbose, tensorboard, start, exposures=exposures)
    except KeyboardInterrupt:
        stopped(state)
        raise
    if model.checkpoint is not None and SHOWN_LISTS in model.checkpoint.manifest:
        progress.print(model.checkpoint.manifest[SHOWN_LISTS], soft_wrap=True)
    if model.checkpoint is not None and model.checkpoint.attributes is not None:
        progress.print(printable(str(model.checkpoint.attributes)), soft_wrap=True)
    if test == NO_TEST and test_log is None:
        console().print(validation_sentence(model), soft_wrap=True)
    else:
        results = model.evaluate(test_log, k=min(NUM_RANKED, model.vocabulary.num_items))
        results.to_json(out / "evaluation.json")
        console().print(str(results), soft_wrap=True)
    console().print(f"Run: {printable(out)}", soft_wrap=True)


def stopped(state: Path) -> None:
    """Print how to go on after Ctrl-C, where there is a state."""
    if state.exists():
        message = f"Stopped; the state is in {printable(state)}. The same command with --resume goes on."
        console(stderr=True).print(message, soft_wrap=True)


def settings_of(start: VariationalAttention) -> dict[str, Any]:
    """The settings that a warm start takes from the earlier run unless others are given."""
    assert start.checkpoint is not None
    return {"size": start.size, "model": shape_of(start.checkpoint)}


def validation_sentence(model: VariationalAttention) -> str:
    """The validation metrics, for a run without a test part."""
    assert model.checkpoint is not None
    found, protocol = model.checkpoint.manifest["calibration"]["validation"], model.checkpoint.manifest["protocol"]
    refits = model.checkpoint.config["training"]["refit_fraction"]
    after = " The refit then trained on the validation events too." if refits else ""
    return (
        f"There is no test part. On the validation part ({protocol['num_valid_events']:,} events), which chose the "
        f"model and is therefore optimistic: ndcg@10 {found['ndcg']:.4f}, nll {found['nll']:.3f}.{after}"
    )
