"""A differentially private model as its users meet it: fit, evaluate, recommend, save."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from variseq.artifacts.folder import has_network, read_manifest, refuse_existing
from variseq.errors import InputError
from variseq.evaluation.baselines import baselines
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.results import Results
from variseq.evaluation.splits import Part, trained_on
from variseq.evaluation.user_sample import sampled_users
from variseq.events.vocabulary import Id, Vocabulary
from variseq.inference.engine import load_engine
from variseq.log import LogPart
from variseq.privacy.accounting import Ledger, public_users
from variseq.privacy.content_pairs import content_directions
from variseq.privacy.contributions import bounded_steps
from variseq.privacy.noise import Noise, secure_noise
from variseq.privacy.private_run import PrivateRun
from variseq.privacy.release import PrivacyOptions, release
from variseq.ranking.engine import NO_HISTORY, Engine
from variseq.ranking.known_users import known_history
from variseq.ranking.mixture import MixtureModel
from variseq.ranking.options import RecommendOptions
from variseq.ranking.recommendations import Recommendations
from variseq.recommend.network_model import ModelRecommender
from variseq.sequences.histories import Histories

WEIGHTS = (0.0, 0.03, 0.1, 0.3)
"""Of content, among which "auto" chooses."""
MOST_CELLS = 300_000_000
"""About so many probabilities are computed for each weight; with more users or items, users are sampled."""
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
            valid: The validation part of the same split. It is learned from at once, unless the weight of content is
                chosen on it.
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
        directions = content_directions(train.items, train.vocabulary) if options.content else None
        if directions is None:
            options = replace(options, content=_without_content(options))
        chooses = options.content == "auto"
        known = train.part.history() if chooses else valid.part.history_with_targets()
        released = release(known, train.part.num_items, options)
        split, catalog = {"method": train.part.protocol["method"]}, (train.vocabulary, train.items)

        def run_of(content: float) -> PrivateRun:
            with_weight = replace(options, content=content)
            return PrivateRun.of(released, with_weight, *catalog, split, directions=directions)

        if chooses:
            users = train.vocabulary.users.to_pylist()
            weight = chosen_weight(run_of, valid.part, users, released.ledger.mechanisms[-1].noise_multiplier)
            options = replace(options, content=weight)
        assert options.content != "auto"
        run_of(options.content).save(folder)
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


def _without_content(options: PrivacyOptions) -> float:
    """The weight for a catalog without content. Raises InputError where another one was wanted."""
    if options.content in (0, "auto"):
        return 0.0
    raise InputError(
        f"content={options.content:g} needs a catalog with titles, categories or other content, and it has none. Leave "
        "out --content, or give such a catalog."
    )


def chosen_weight(
    run_of: Callable[[float], PrivateRun],
    valid: Part,
    users: list[Id],
    noise_multiplier: float,
    noise: Noise = secure_noise,
) -> float:
    """The weight of content with the best lists for users' next items, by a noisy sum over users.

    A user adds the gains in NDCG@10 of the last validation target, one for each weight, scaled down to a norm of 1
    where it is larger. What is released is the noisy sum of gains, one more Gaussian mechanism of the ledger; the
    choice follows from it.

    Args:
        run_of: The run of the release with a weight of content.
        valid: The validation part, of which the release has not learned.
        users: The ids of all users, in the order of the part.
        noise_multiplier: Standard deviation of the noise over the norm of what one user adds at most.
        noise: For tests only; without it there is no privacy.
    """
    queries = valid.queries("last")
    is_sampled = _are_sampled(users, min(1.0, MOST_CELLS / (valid.num_items * public_users(len(users)))))[queries.user]
    queries = replace(queries, user=queries.user[is_sampled], position=queries.position[is_sampled])
    histories = valid.histories_before(queries)
    target = valid.histories.item[queries.position].astype(np.int64)
    ndcg = np.stack([_ndcg(_model_of(run_of(weight)), histories, target) for weight in WEIGHTS], axis=1)
    sums = bounded_steps(ndcg[:, 1:] - ndcg[:, :1]).sum(axis=0) + noise(noise_multiplier, len(WEIGHTS) - 1)
    return WEIGHTS[int(np.argmax(np.concatenate([[0], sums])))]


def _are_sampled(users: list[Id], share: float) -> Bool[np.ndarray, " user"]:
    """About this share of the users; whether one is among them depends on the own id alone."""
    digests = (hashlib.sha256(repr(one).encode()).digest() for one in users)
    return np.array([int.from_bytes(digest[:8], "big") < share * 2**64 for digest in digests], dtype=bool)


def _model_of(run: PrivateRun) -> MixtureModel:
    with tempfile.TemporaryDirectory() as folder:
        run.save(Path(folder) / "run")
        return load_engine(Path(folder) / "run").model


def _ndcg(
    model: MixtureModel, histories: Histories, target: Int[np.ndarray, " history"]
) -> Float[np.ndarray, " history"]:
    """NDCG@10 of one item for each history; where seen items are left out, they have the least probability."""
    found, size = np.zeros(len(histories)), model.rows_at_once(1)
    for first in range(0, len(histories), size):
        rows = np.arange(first, min(first + size, len(histories)))
        part = histories.rows(rows)
        p = model.distribution(model.encode(part), part).probabilities()
        rank = (p >= p[np.arange(len(rows)), target[rows]][:, None]).sum(axis=1)
        found[rows] = np.where(rank <= 10, 1 / np.log2(rank + 1), 0.0)
    return found
