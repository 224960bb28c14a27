"""A source of events and a run's settings into a finished run folder, told on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from rich.console import Console

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.log import read
from variseq.model.checkpoint import refuse_existing
from variseq.model.network import NetworkConfig
from variseq.terminal.run_config import RunConfig, settings_error
from variseq.training.defaults import FROM_THE_LOG, SIZES
from variseq.training.display import Display
from variseq.training.settings import TrainingConfig

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
    _refuse_bad_settings(config)
    model = VariationalAttention(config.size, config.seed, config.device, config.model, config.training)
    console = Console(quiet=request.quiet)
    log = read(source, request.items, config.read)
    console.print(log.check())
    train, valid, _ = log.split(config.split.by, config.split.test, config.split.valid)
    console.print(repr(train), highlight=False)
    try:
        display = Display(quiet=request.quiet)
        model.fit(train, valid, request.out, request.resume, display, request.tensorboard)
    except KeyboardInterrupt:
        unfinished = request.out.with_name(request.out.name + ".unfinished")
        if unfinished.exists():
            told = f"Stopped; the state is in {unfinished}. The same command with --resume goes on."
            Console(stderr=True).print(told, highlight=False, markup=False, soft_wrap=True)
        raise
    results = model.evaluate(k=min(NUM_RANKED, model.vocabulary.num_items))
    results.to_json(request.out / "evaluation.json")
    Console().print(str(results), highlight=False, soft_wrap=True)
    Console().print(f"Run: {request.out}", highlight=False, soft_wrap=True)


def _refuse_bad_settings(config: RunConfig) -> None:
    """Raises InputError for settings that cannot be; early, as reading a log may take long."""
    for name in FROM_THE_LOG:
        if name in config.model:
            raise InputError(f"model.{name} cannot be set: it follows from the log. Leave it out.")
    network = {"num_items": 2, **SIZES[config.size], **config.model}
    sections: list[tuple[str, type[BaseModel], dict[str, Any]]] = [
        ("model", NetworkConfig, network),
        ("training", TrainingConfig, config.training),
    ]
    for section, kind, values in sections:
        try:
            kind.model_validate(values)
        except ValidationError as error:
            raise settings_error(error, kind, section) from error
