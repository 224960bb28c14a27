"""A source of events and a run's settings into a finished run folder, told on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from variseq.estimator import VariationalAttention
from variseq.log import read
from variseq.model.checkpoint import refuse_existing
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.terminal.events_source import events_source
from variseq.terminal.run_config import RunConfig
from variseq.training.display import Display

NUM_RANKED = 10


@dataclass(frozen=True)
class FitRequest:
    """What `variseq fit` was asked for besides the settings."""

    out: Path
    items: str | None
    resume: bool
    tensorboard: bool
    quiet: bool


def fit_run(source: str | list[str], config: RunConfig, request: FitRequest) -> None:
    """Read, check, split, train, evaluate; the run folder is there at the end or not at all."""
    refuse_existing(request.out)
    model = VariationalAttention(config.size, config.seed, config.device, config.model, config.training)
    progress = console(quiet=request.quiet)
    with events_source(source) as events:
        log = read(events, request.items, config.read)
    progress.print(log.check())
    train, valid, _ = log.split(config.split.by, config.split.test, config.split.valid)
    progress.print(repr(train))
    try:
        display = Display(console=progress)
        model.fit(train, valid, request.out, request.resume, display, request.tensorboard)
    except KeyboardInterrupt:
        unfinished = request.out.with_name(request.out.name + ".unfinished")
        if unfinished.exists():
            told = f"Stopped; the state is in {unfinished}. The same command with --resume goes on."
            console(stderr=True).print(told, soft_wrap=True)
        raise
    results = model.evaluate(k=min(NUM_RANKED, model.vocabulary.num_items))
    results.to_json(request.out / "evaluation.json")
    console().print(str(results), soft_wrap=True)
    console().print(f"Run: {printable(request.out)}", soft_wrap=True)
