"""A differentially private model as its users meet it: fit, evaluate, recommend, save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from variseq.artifacts.folder import has_network, read_manifest, refuse_existing
from variseq.errors import InputError
from variseq.evaluation.baselines import baselines
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.results import Results
from variseq.evaluation.splits import trained_on
from variseq.evaluation.user_sample import sampled_users
from variseq.events.vocabulary import Id, Vocabulary
from variseq.inference.engine import load_engine
from variseq.log import LogPart
from variseq.privacy.accounting import Ledger
from variseq.privacy.private_run import PrivateRun
from variseq.privacy.release import PrivacyOptions, release
from variseq.ranking.engine import NO_HISTORY, Engine
from variseq.ranking.known_users import known_history
from variseq.ranking.options import RecommendOptions
from variseq.ranking.recommendations import Recommendations
from variseq.recommend.network_model import ModelRecommender

PRIVATE_NAME = "variseq, private"
SPLITS = ("leave-one-out", "user-time")
"""Splits that divide each user's events by that user alone. Others move events of all when one user is added."""


NOT_PRIVATE = "These figures are computed from the exact log. They are not private, and the folder does not hold them."


class PrivateModel:
    """A model whose folder is differentially private: one user more or less hardly changes what is in it.

    It has no network. It recommends what other people had near the last eight items of a history, by counts that were
    released with noise, see `variseq.privacy.release`. Only a run of a federation without privacy has exact counts.

    Args:
        folder: What `fit` or `variseq fit --private` wrote.

    Raises:
        CheckpointError: For a folder that is missing or damaged.
        InputError: For a run that is not private.
    """

    def __init__(self, folder: Path | str) -> None:
        if has_network(read_manifest(Path(folder))):
            raise InputError(f"{folder} is no private run. Load it with variseq.load, or fit with --private.")
        self.engine: Engine = load_engine(Path(folder))

    @classmethod
    def fit(cls, train: LogPart, valid: LogPart, folder: Path | str, options: PrivacyOptions) -> PrivateModel:
        """Release the counts of the training and validation part, and write the folder of the private run.

        Args:
            train: The training part of `log.on_catalog(items).split("leave-one-out")`, or of "user-time".
            valid: The validation part of the same split. Nothing is chosen on it, so it is learned from at once.
            folder: A folder that does not exist yet.
            options: The budget.

        Returns:
            The model that was written.

        Raises:
            InputError: For a log without a catalog, a split or a way of reading that is not private, a budget that is
                not possible, and a folder that exists.
            MissingDependencyError: Without the extra `privacy`.
        """
        folder = Path(folder)
        refuse_existing(folder)
        refuse_dependent_reading(train)
        assert train.items is not None
        known = valid.part.history_with_targets()
        released = release(known, train.part.num_items, options)
        split = {"method": train.part.protocol["method"]}
        PrivateRun.of(released, options, train.vocabulary, train.items, split).save(folder)
        return cls(folder)

    @property
    def ledger(self) -> Ledger:
        """What the model cost."""
        return Ledger.from_json(self.engine.health["privacy"])

    def _engine(self) -> Engine:
        return self.engine

    @property
    def vocabulary(self) -> Vocabulary:
        """The ids of the items; it names no user."""
        return self.engine.vocabulary

    def evaluate(self, part: LogPart, valid: LogPart, k: int = 10, targets: str = "last") -> Results:
        """Evaluate the model and exact baselines on the test part.

        The figures are computed from the exact log and are not private: they belong to those who may see the log.

        Args:
            part: The test part of the split that the model was fitted on.
            valid: The validation part of the same split.
            k: Length of the lists.
            targets: "last", "first" or "all" targets of each user.

        Raises:
            InputError: For a part without targets.
        """
        known = valid.part.history_with_targets()
        evaluated = sampled_users(trained_on(part.part, known, "training and validation"), targets)
        categories = None if part.items is None else part.items.all_categories()
        options = EvaluationOptions(k, targets, self.engine.exclude_seen, None, categories)
        model = ModelRecommender(self.engine.model, PRIVATE_NAME)
        recommenders = [model, *baselines(self.vocabulary.num_items, known)]
        evaluations = [evaluate(recommender, evaluated, options) for recommender in recommenders]
        notes = [f"{PRIVATE_NAME}: ε = {self.ledger.epsilon():.3g}. The baselines count the exact log.", NOT_PRIVATE]
        return Results(evaluations, notes=notes)

    def recommend(
        self,
        users: Sequence[Id] | None = None,
        history: Sequence[Id | Mapping[str, Any]] | pd.DataFrame | pa.Table | None = None,
        *,
        options: RecommendOptions | None = None,
        **fields: Any,
    ) -> Recommendations:
        """What somebody with this history will want next; see `VariationalAttention.recommend`.

        Raises:
            InputError: With users, whom a private model does not name, and for options that are not possible.
        """
        if users is not None or history is None:
            raise InputError("A private model names no user. Give a history (--history i9,i3).")
        wanted = RecommendOptions.of(options, fields)
        known = known_history(self.engine, history)
        fallback = None if known.num_events else NO_HISTORY
        return self.engine.recommend(known.at_request(wanted), [None], [fallback], wanted)


def refuse_dependent_reading(train: LogPart) -> None:
    """Raises InputError where what is kept of one user depends on other users."""
    options, method = train.report.options, train.part.protocol["method"]
    if train.items is None:
        raise InputError(
            "A private fit needs the public catalog of items, as items of the log alone would tell what people had. "
            "Give --items FILE, in Python variseq.read(...).on_catalog(items)."
        )
    if method not in SPLITS:
        raise InputError(
            f"The split {method!r} divides the events of one user by those of others, which is not private. Allowed: "
            f"{', '.join(SPLITS)}; test='none' for no test part."
        )
    forbidden = {"min_item_events": 1, "missing_value": "keep"}
    for name, only in forbidden.items():
        if options.get(name, only) != only and not (name == "missing_value" and options[name] == "zero"):
            raise InputError(
                f"{name}={options[name]!r} keeps or fills events of one user by those of others, which is not private. "
                "Leave it out."
            )
