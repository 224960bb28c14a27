"""The model as its users meet it: fit, evaluate, recommend, save."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from variseq.errors import InputError
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.results import Results
from variseq.evaluation.significance import Comparison
from variseq.evaluation.significance import compare as compare_evaluations
from variseq.evaluation.splits import Part, Split, learned_from, split_at
from variseq.events.vocabulary import Id, Vocabulary
from variseq.log import LogPart
from variseq.model.checkpoint import Checkpoint, load_checkpoint, refuse_existing, save_checkpoint
from variseq.model.scorer import NetworkScorer
from variseq.recommend.answers import Answers, Filters
from variseq.recommend.baselines import LastItemTransitions, Popular, RecentPopular
from variseq.recommend.item_knn import ItemKNN
from variseq.recommend.mixture import Mixture, best_share
from variseq.recommend.output import write_tables
from variseq.recommend.values import forecast_values
from variseq.sequences.histories import Histories
from variseq.training.defaults import (
    FROM_THE_LOG,
    SIZES,
    LogProperties,
    Size,
    network_config,
    refuse_bad_settings,
    training_config,
)
from variseq.training.display import Display
from variseq.training.manifest import refuse_incomplete, run_manifest
from variseq.training.run import Settings, Workplace, choose_device, train_network
from variseq.training.settings import TrainingConfig
from variseq.training.validation import Validation


class VariationalAttention:
    """A variational attention model of behaviour sequences.

    `size` is the one dial ("tiny", "small", "medium", "large"); everything else follows from it and from the log, and
    can be set by `model` (fields of `NetworkConfig`) and `training` (fields of `TrainingConfig`). `device` is "auto" (a
    GPU where there is one), "cpu" or "cuda".

    >>> VariationalAttention(size="tiny", training={"max_epochs": 5})
    <VariationalAttention size=tiny, not fitted>
    """

    def __init__(
        self,
        size: Size = "small",
        seed: int = 0,
        device: str = "auto",
        model: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        if size not in SIZES:
            raise InputError(f"There is no size {size!r}. Allowed: {', '.join(SIZES)}.")
        self.size = size
        self.seed = seed
        self.device = choose_device(device)
        self.model = dict(model or {})
        self.training = dict(training or {})
        refuse_bad_settings(size, seed, self.model, self.training)
        self.checkpoint: Checkpoint | None = None

    def __repr__(self) -> str:
        if self.checkpoint is None:
            return f"<VariationalAttention size={self.size}, not fitted>"
        config = self.checkpoint.network.config
        return f"<VariationalAttention size={self.size}, {config.num_items:,} items, width {config.width}>"

    def fit(
        self,
        train: LogPart,
        valid: LogPart,
        folder: Path | str | None = None,
        resume: bool = False,
        display: Display | None = None,
        tensorboard: bool = False,
    ) -> VariationalAttention:
        """Train on a part of a split log; the best epoch is chosen on the validation part.

        With a `folder` the finished run is saved there, and while it is under way its state is in
        `<folder>.unfinished`: after Ctrl-C or a crash, the same call with `resume=True` goes on to the same result.
        """
        folder = None if folder is None else Path(folder)
        unfinished = None if folder is None else folder.with_name(folder.name + ".unfinished")
        if folder is not None:
            refuse_existing(folder)
        elif resume or tensorboard:
            raise InputError("A run without a folder leaves nothing to resume from or to look at. Give a folder.")
        settings = self._settings(train)
        workplace = Workplace(self.device, display or Display(), unfinished, resume, tensorboard)
        trained = train_network(train.part, valid.part, settings, workplace)
        scorer = NetworkScorer(trained.chosen, temperature=trained.temperature)
        memory = LastItemTransitions(train.vocabulary.num_items).fit(train.part.known())
        validation = Validation(valid.part, settings.training)
        share = best_share(scorer, memory, validation.part, validation.options)
        memory.fit(_learned_from(train.part, valid.part, settings.training))
        begins = np.stack([train.part.target_end, valid.part.target_end])
        self.checkpoint = Checkpoint(
            network=trained.network.eval(),
            vocabulary=train.vocabulary,
            items=train.items,
            histories=train.part.histories,
            bounds=begins,
            memory=memory.state(),
            manifest=run_manifest(train.part.protocol, train.report.to_json(), trained, share),
            config={
                "size": self.size,
                "seed": self.seed,
                "model": settings.network.model_dump(exclude=set(FROM_THE_LOG)),
                "training": settings.training.model_dump(),
            },
            metrics=trained.metrics,
        )
        if folder is not None and unfinished is not None:
            self.save(folder)
            if (unfinished / "tensorboard").exists():
                shutil.move(unfinished / "tensorboard", folder / "tensorboard")
            shutil.rmtree(unfinished)
        return self

    def evaluate(
        self, part: LogPart | None = None, k: int = 10, targets: str = "last", exclude_seen: bool | None = None
    ) -> Results:
        """The model on a part of the split (the test part by default), with the baselines beside it.

        `targets` is "last" (each user's last event there), "next" (the first) or "successive" (all). `exclude_seen`
        leaves out items of the user's own history; None is what the log suggested when the model was fitted.

        The model and the baselines have learned from the same events: those of the training part, and after a refit
        those of the validation part too (`learned_from` in the protocol), which is then no part to be judged on. A
        query shows the whole history before its target.
        """
        checkpoint = self._fitted()
        train, valid, test = self._split()
        judged = test if part is None else part.part
        if judged.protocol["split_hash"] != test.protocol["split_hash"]:
            raise InputError(
                "The part belongs to another log or split than the model was fitted on. Give one of those."
            )
        training = TrainingConfig(**checkpoint.config["training"])
        if training.refit_share and judged.name == "valid":
            raise InputError(
                "The model has been refitted with the validation events, so it cannot be judged on them. Evaluate on "
                "the test part, or fit with training={'refit_share': 0}."
            )
        categories = None
        if checkpoint.items is not None:
            of_items = checkpoint.items.categories(range(checkpoint.vocabulary.num_items))
            categories = of_items if any(of_items) else None
        options = EvaluationOptions(k, targets, self._excludes(exclude_seen), item_categories=categories)
        known, num_items = _learned_from(train, valid, training), checkpoint.vocabulary.num_items
        judged = learned_from(judged, known, "training and validation" if training.refit_share else "training")
        recommenders: list[Recommender] = [
            self._recommender(),
            Popular(num_items).fit(known),
            RecentPopular(num_items).fit(known),
            LastItemTransitions(num_items).fit(known),
            ItemKNN(num_items).fit(known),
        ]
        evaluations = [evaluate(recommender, judged, options) for recommender in recommenders]
        return Results(evaluations, forecast_values(checkpoint.network, judged, targets))

    def recommend(
        self,
        users: Sequence[Id] | None = None,
        history: Sequence[Id] | None = None,
        k: int = 10,
        exclude: Sequence[Id] = (),
        only: Sequence[Id] | None = None,
        category: str | Sequence[str] | None = None,
        exclude_seen: bool | None = None,
    ) -> pd.DataFrame:
        """What these users, or somebody with this history (oldest item first), will want next; all users by default.

        One row per user and rank: user_id, item_id, rank, score, probability (that it is the next event), title,
        because (the events that the attention weighted most), source (says when an answer is a fallback).
        """
        filters = Filters(k, exclude, only, category, self._excludes(exclude_seen))
        if history is not None:
            if users is not None:
                raise InputError("Give either users or a history, not both.")
            return self._answers().for_history(history, filters).to_pandas()
        tables = [table.to_pandas() for table in self._answers().for_users(users, filters)]
        if not tables:
            raise InputError("The list of users is empty. Give at least one user id, or None for all users.")
        return pd.concat(tables, ignore_index=True)

    def recommend_to_file(
        self,
        path: Path | str,
        k: int = 10,
        exclude: Sequence[Id] = (),
        only: Sequence[Id] | None = None,
        category: str | Sequence[str] | None = None,
        exclude_seen: bool | None = None,
    ) -> int:
        """Recommendations for all users to a .parquet or .csv file, written as they come; the number of rows."""
        tables = self._answers().for_users(None, Filters(k, exclude, only, category, self._excludes(exclude_seen)))
        return write_tables(tables, Path(path))

    def similar_items(self, item_ids: Sequence[Id], k: int = 10) -> pd.DataFrame:
        """The items most like each of these: item_id, similar_item_id, rank, score (cosine), title."""
        return self._answers().similar(item_ids, k).to_pandas()

    def save(self, folder: Path | str, with_histories: bool = True) -> None:
        """Write the run to a folder that does not exist yet; open formats, no pickle.

        Without histories the folder names no user and holds nobody's events, and known users cannot be asked for. What
        was learned from them (weights, counted transitions) stays.
        """
        checkpoint = self._fitted()
        if not with_histories:
            vocabulary = replace(checkpoint.vocabulary, users=checkpoint.vocabulary.users[:0])
            # The first faults quote rows of the log.
            log = checkpoint.manifest["log"] | {"first_faults": {}}
            manifest = checkpoint.manifest | {"log": log}
            checkpoint = replace(checkpoint, vocabulary=vocabulary, manifest=manifest, histories=None, bounds=None)
        save_checkpoint(checkpoint, Path(folder))

    @property
    def vocabulary(self) -> Vocabulary:
        """The translator between outside ids and positions."""
        return self._fitted().vocabulary

    def _fitted(self) -> Checkpoint:
        if self.checkpoint is None:
            raise InputError("The model is not fitted. Call fit(train, valid) first, or load a run with variseq.load.")
        return self.checkpoint

    def _excludes(self, exclude_seen: bool | None) -> bool:
        """The wish, or what the log suggested: people who repeat themselves may be shown the same again."""
        suggested: bool = self._fitted().config["training"]["exclude_seen"]
        return suggested if exclude_seen is None else exclude_seen

    def _recommender(self) -> Mixture:
        checkpoint = self._fitted()
        scorer = NetworkScorer(checkpoint.network, temperature=checkpoint.manifest["temperature"])
        return Mixture(scorer, LastItemTransitions.from_state(checkpoint.memory), checkpoint.manifest["memory_share"])

    def _answers(self) -> Answers:
        checkpoint = self._fitted()
        counts: dict[str, int] = checkpoint.manifest["log"]["behaviours"]
        usual = checkpoint.vocabulary.behaviours.index(max(counts, key=lambda behaviour: counts[behaviour]))
        return Answers(
            self._recommender(),
            checkpoint.network,
            checkpoint.vocabulary,
            checkpoint.items,
            checkpoint.histories,
            usual,
        )

    def _split(self) -> Split:
        checkpoint = self._fitted()
        if checkpoint.histories is None or checkpoint.bounds is None:
            raise InputError("This run was saved without histories, so there is nothing to evaluate on.")
        method = {key: checkpoint.manifest["protocol"][key] for key in checkpoint.manifest["split_method"]}
        num_items = checkpoint.vocabulary.num_items
        return split_at(checkpoint.histories, checkpoint.bounds[0], checkpoint.bounds[1], num_items, method)

    def _settings(self, train: LogPart) -> Settings:
        properties = LogProperties.of(train.part.known(), train.vocabulary)
        network = network_config(self.size, properties, self.model)
        training = training_config(properties, network.width, self.seed, self.training)
        links = train.items.category_links() if train.items is not None and training.use_categories else None
        return Settings(network, training, links if links is not None and links.num_categories else None)


def _learned_from(train: Part, valid: Part, config: TrainingConfig) -> Histories:
    """The events that a finished model has learned from: with a refit those of validation too."""
    histories = train.histories
    return histories.select(histories.offsets[:-1], valid.target_end) if config.refit_share else train.known()


def load(folder: Path | str, device: str = "auto") -> VariationalAttention:
    """The model of a run folder, ready to recommend; needs nothing but the folder.

    Raises CheckpointError when it is missing, damaged or of a later format.
    """
    checkpoint = load_checkpoint(Path(folder))
    refuse_incomplete(checkpoint.manifest, folder)
    config = checkpoint.config
    model = VariationalAttention(config["size"], config["seed"], device, config["model"], config["training"])
    checkpoint.network.to(model.device)
    model.checkpoint = checkpoint
    return model


def compare(first: Path | str, second: Path | str, metric: str = "ndcg", k: int = 10) -> Comparison:
    """Two runs on their common test part, paired by user: difference, 95 % interval and permutation p-value.

    Raises InputError when they were not made with the same data and split.
    """
    evaluations = [load(folder).evaluate(k=k)["variseq"] for folder in (first, second)]
    return compare_evaluations(evaluations[0], evaluations[1], metric)
