"""Folders of finished runs into evaluations on the test part: their own forecasts, and what those are held against."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from posteriors_controls import EnsembleForecast, fitted

from variseq.errors import InputError
from variseq.estimator import VariationalAttention, load
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.splits import Part, learned_from
from variseq.model.network import Network
from variseq.ranking.calibration import NUM_SAMPLES, Calibration
from variseq.recommend.baselines import Popular
from variseq.recommend.dropout import with_dropout
from variseq.recommend.forecast import Forecast
from variseq.recommend.learned import Learned
from variseq.recommend.memory import Memory
from variseq.training.settings import TrainingConfig
from variseq.training.validation import Validation

K = 10
SEED = 0
ENSEMBLE_SIZE = 3
VARIATIONAL, TWIN, UNCALIBRATED, POPULAR = "variational", "twin", "twin, uncalibrated", "popular"
DROPOUT, ENSEMBLE = "twin, MC-dropout", "ensemble of twins"


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run and the questions that it is asked: the last target of each user of the test part."""

    name: str
    model: VariationalAttention
    test: Part
    options: EvaluationOptions

    @classmethod
    def of(cls, folder: Path, num_users: int | None) -> Run:
        """The run in a folder; with `num_users` a random sample of its users is asked. Raises InputError."""
        model = load(folder, device="cpu")
        train, _, test = model._split()
        refitted = bool(_config(model).refit_fraction)
        known = (test if refitted else train).known()
        judged = learned_from(test, known, "training and validation" if refitted else "training")
        options = EvaluationOptions(
            k=min(K, test.num_items),
            targets="last",
            exclude_seen=model._excludes(None),
            repeat_share=model._learned().repeat_share,
        )
        return cls(folder.name, model, judged if num_users is None else _sample(judged, num_users), options)

    @property
    def config(self) -> TrainingConfig:
        return _config(self.model)

    @property
    def learned(self) -> Learned:
        return self.model._learned()

    @property
    def network(self) -> Network:
        assert self.model.checkpoint is not None
        return self.model.checkpoint.network

    @property
    def memory(self) -> Memory:
        assert self.model.checkpoint is not None
        return Memory.from_state(self.model.checkpoint.memory)

    def forecast(self) -> Forecast:
        """As the run answers: calibrated on validation when it was made."""
        return self.model._forecast()

    def uncalibrated(self) -> Forecast:
        """The softmax of the posterior mean alone."""
        return Forecast(self.network, self.memory, Calibration(num_samples=0))

    def popular(self) -> Popular:
        """Popularity, counted in what the run has learned from."""
        train, _, test = self.model._split()
        return Popular(test.num_items).fit((test if self.config.refit_fraction else train).known())

    def validation(self) -> tuple[Part, EvaluationOptions]:
        """What the run's own calibration was fitted on. Raises InputError where the network has learned from it."""
        if self.config.refit_fraction:
            raise InputError(
                f"{self.name} has learned from validation events (refit_fraction={self.config.refit_fraction:g}),"
                " so nothing more can be calibrated on them. Give runs made with training.refit_fraction=0."
            )
        validation = Validation(self.model._split()[1], self.config)
        return validation.part, replace(validation.options, repeat_share=self.options.repeat_share)

    def described(self) -> dict[str, Any]:
        """What a reader of the numbers has to know of the run."""
        config = self.config
        names = ("deterministic_fraction", "refit_fraction", "kl_target")
        return {"name": self.name, "seed": self.model.seed} | {name: getattr(config, name) for name in names}


def _config(model: VariationalAttention) -> TrainingConfig:
    assert model.checkpoint is not None
    return TrainingConfig(**model.checkpoint.config["training"])


def _sample(part: Part, num_users: int) -> Part:
    """The same part with fewer users that have a target."""
    users = part.queries("last").user
    kept = np.zeros(len(part.history_end), dtype=bool)
    kept[np.random.default_rng(SEED).permutation(users)[:num_users]] = True
    return replace(part, target_end=np.where(kept, part.target_end, part.history_end))


@dataclass(frozen=True, eq=False)
class Judged:
    """The evaluations of one model, a seed each, and what they cost on average.

    `has_runs` is True for what finished runs answer of themselves.
    """

    evaluations: list[Evaluation]
    cpu_seconds: float
    has_runs: bool = False

    @classmethod
    def of(cls, forecasts: Iterable[Recommender], run: Run, has_runs: bool = False) -> Judged:
        """Forecasts judged on the questions of a run; each is let go of before the next is made."""
        evaluations, begun = [], time.process_time()
        for forecast in forecasts:
            evaluations.append(evaluate(forecast, run.test, run.options))
        return cls(evaluations, (time.process_time() - begun) / len(evaluations), has_runs)


Models = dict[str, Judged]


def load_runs(variational: Sequence[Path], twin: Sequence[Path], num_users: int | None) -> tuple[list[Run], list[Run]]:
    """Both lists, seed by seed. Raises InputError where they cannot be paired."""
    runs = [[Run.of(folder, num_users) for folder in folders] for folders in (variational, twin)]
    seeds = [[run.model.seed for run in of_role] for of_role in runs]
    if seeds[0] != seeds[1]:
        raise InputError(
            f"The variational runs have the seeds {seeds[0]}, the twins {seeds[1]}. Give as many twins, in their order."
        )
    made = {(run.test.protocol["split_hash"], run.test.protocol["learned_from"]) for run in [*runs[0], *runs[1]]}
    if len(made) > 1:
        raise InputError(
            "The runs were not made alike: they differ in data, split, or in whether a refit took in the validation "
            "events. Give runs of one log, with refit_fraction above 0 for all or for none."
        )
    return runs[0], runs[1]


def judge_runs(variational: Sequence[Run], twin: Sequence[Run]) -> Models:
    """The runs' own forecasts, the twins' softmax as it comes, and popularity (once, as no seed changes it)."""
    first = variational[0]
    return {
        VARIATIONAL: Judged.of((run.forecast() for run in variational), first, has_runs=True),
        TWIN: Judged.of((run.forecast() for run in twin), first, has_runs=True),
        UNCALIBRATED: Judged.of((run.uncalibrated() for run in twin), first),
        POPULAR: Judged.of([first.popular()], first),
    }


def judge_controls(twin: Sequence[Run]) -> Models:
    """MC-dropout of every twin, and one ensemble of the first three where there are several.

    Both are calibrated as the runs are: on the validation events, which the twins must not have learned from.
    """
    dropped = [with_dropout(run.forecast(), NUM_SAMPLES, *run.validation()) for run in twin]
    found = {DROPOUT: Judged.of(dropped, twin[0])}
    if len(twin) > 1:
        networks = [run.network for run in twin[:ENSEMBLE_SIZE]]
        ensemble = fitted(partial(EnsembleForecast, networks, twin[0].memory), 0, *twin[0].validation())
        found[ENSEMBLE] = Judged.of([ensemble], twin[0])
    return found
