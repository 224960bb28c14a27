"""A differentially private model as its users meet it: fit, evaluate, recommend, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from variseq.artifacts.folder import is_of_sums, read_manifest
from variseq.atomic import refuse_existing, unfinished
from variseq.errors import InputError
from variseq.evaluation.baselines import baselines
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.results import Results
from variseq.evaluation.splits import trained_on
from variseq.evaluation.user_sample import sampled_users
from variseq.events.vocabulary import Id, Vocabulary, catalog_digest
from variseq.inference.encoder import require_runtime
from variseq.inference.engine import load_engine
from variseq.log import LogPart
from variseq.model.exportable import require_exporter
from variseq.model.network import Network
from variseq.privacy.accounting import CHOICE, NETWORK_CHOICE, NETWORK_STEPS, Ledger, public_users
from variseq.privacy.alike_items import AlikeItems, public_content, smoothed_counts, with_alike
from variseq.privacy.chosen_weight import CONTENT_WEIGHTS, NETWORK_WEIGHTS, chosen_weight
from variseq.privacy.private_network import private_training
from variseq.privacy.private_run import NetworkShare, PrivateRun, mixture_model
from variseq.privacy.private_state import PrivateState
from variseq.privacy.private_steps import train_privately
from variseq.privacy.release import PrivacyOptions, Release, pair_counts, release
from variseq.privacy.schedule import StepSchedule
from variseq.ranking.engine import NO_HISTORY, Engine
from variseq.ranking.known_users import known_history
from variseq.ranking.options import RecommendOptions
from variseq.ranking.recommendations import Recommendations
from variseq.recommend.network_model import ModelRecommender, NetworkEncoder
from variseq.sequences.histories import Histories

PRIVATE_NAME = "variseq, private"
SPLITS = ("leave-one-out", "user-time")
"""Splits that divide each user's events by that user alone. Others move events of all when one user is added."""
INDEPENDENT = {"min_item_events": (1,), "missing_value": ("keep", "zero"), "ties": ("keep",)}
"""Options of reading, with the values that read each user alone; the first one is the default."""
NOT_PRIVATE = "These figures are computed from the exact log. They are not private, and the folder does not hold them."


class PrivateModel:
    """A model whose folder is differentially private: one user more or less hardly changes what is in it.

    It recommends what other people had near the last eight items of a history, by counts that were released with noise,
    see `variseq.privacy.release`. It may have a network beside them. Only a run of a federation without privacy has
    exact counts.

    Args:
        folder: What `fit` or `variseq fit --private` wrote.

    Raises:
        CheckpointError: For a folder that is missing or damaged.
        InputError: For a run that is not private.
    """

    def __init__(self, folder: Path | str) -> None:
        if not is_of_sums(read_manifest(Path(folder))):
            raise InputError(f"{folder} is no private run. Load it with variseq.load, or fit with --private.")
        self.engine: Engine = load_engine(Path(folder))

    @classmethod
    def fit(
        cls,
        train: LogPart,
        valid: LogPart,
        folder: Path | str,
        options: PrivacyOptions,
        report: Callable[[int, int], None] = lambda done, total: None,
        resume: bool = False,
    ) -> PrivateModel:
        """Release the counts of the training and validation part, and write the folder of the private run.

        Where users are many enough for the budget, a network is trained beside them, see `PrivacyOptions`.

        Args:
            train: The training part of `log.on_catalog(items).split("leave-one-out")`, or of "user-time".
            valid: The validation part of the same split. It is learned from at once, unless a weight is chosen on it.
            folder: A folder that does not exist yet.
            options: The budget.
            report: Gets the number of steps of the network that are done, and of all.
            resume: Go on with a fit with a network that was interrupted, from its release and its latest state in
                `<folder>.unfinished`.

        Returns:
            The model that was written.

        Raises:
            InputError: For a log without a catalog, a split or a way of reading that is not private, a budget that is
                not possible, a folder that exists, and an unfinished fit that is there or, with `resume`, is not.
            MissingDependencyError: Without the extra `privacy`, and with a network without the extra `serve`.
        """
        folder = Path(folder)
        refuse_existing(folder)
        refuse_dependent_reading(train)
        assert train.items is not None
        content = public_content(train.items, train.vocabulary) if options.content else None
        if content is None:
            options = replace(options, content=_without_content(options))
        users = valid.vocabulary.users.to_pylist()
        options = options.decided(public_users(len(users)), train.part.num_items)
        schedule = options.schedule(public_users(len(users)))
        if schedule is not None:
            # Before minutes of training.
            require_exporter()
            require_runtime()
        is_chosen = options.content == "auto" or schedule is not None
        known = train.part.history() if is_chosen else valid.part.history_with_targets()
        state = PrivateState(unfinished(folder), options, catalog_digest(train.vocabulary.items))
        if schedule is None and resume:
            raise InputError("A private fit without a network takes seconds and has no state. Leave out --resume.")
        released, network = _released(known, train.part.num_items, options, schedule, state, resume, report)
        options, ledger = replace(options, pairs=released.kind), released.ledger
        counts = smoothed_counts(pair_counts(released), released.kind)
        if content is not None:
            alike, pairs = AlikeItems.of(content, counts.share), counts
            if options.content == "auto":
                weight = chosen_weight(
                    lambda weight: mixture_model(with_alike(pairs, alike, weight), options),
                    CONTENT_WEIGHTS,
                    valid.part,
                    users,
                    ledger.noise_of(CHOICE),
                )
                options = replace(options, content=weight)
            counts = with_alike(pairs, alike, float(options.content))
        share = None
        if network is not None:
            encoder, vectors = NetworkEncoder(network), network.vectors_with_bias
            weight = chosen_weight(
                lambda weight: mixture_model(counts, options, (encoder, vectors, NetworkShare(weight))),
                NETWORK_WEIGHTS,
                valid.part,
                users,
                ledger.noise_of(NETWORK_CHOICE),
            )
            share = (network, NetworkShare(weight)) if weight else None
        split = {"method": train.part.protocol["method"]}
        PrivateRun(ledger, counts, options, train.vocabulary, train.items, split, network=share).save(folder)
        state.remove()
        return cls(folder)

    @property
    def ledger(self) -> Ledger:
        """What the model cost."""
        return Ledger.from_json(self.engine.health["privacy"])

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
        is_of_training = self.ledger.has_choice
        known = valid.part.history() if is_of_training else valid.part.history_with_targets()
        parts = "training" if is_of_training else "training and validation"
        evaluated = sampled_users(trained_on(part.part, known, parts), targets)
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


def _released(
    known: Histories,
    num_items: int,
    options: PrivacyOptions,
    schedule: StepSchedule | None,
    state: PrivateState,
    resume: bool,
    report: Callable[[int, int], None],
) -> tuple[Release, Network | None]:
    """The release, and the network of it that all steps were taken of; the state is written between steps."""
    if schedule is None:
        return release(known, num_items, options), None
    with state.begun(resume):
        released, tensors, step = state.load() if resume else (release(known, num_items, options), None, 0)
        training = private_training(pair_counts(released), schedule, released.ledger.noise_of(NETWORK_STEPS))
        if tensors is not None:
            training.go_on(tensors, step)

        def after_step(done: int, total: int) -> None:
            state.save(released, training)
            report(done, total)

        state.save(released, training)
        train_privately(training, known.latest(options.max_user_events), report=after_step)
    return released, training.network


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
    for name, allowed in INDEPENDENT.items():
        if options.get(name, allowed[0]) not in allowed:
            raise InputError(
                f"{name}={options[name]!r} lets other users decide what is kept of one user, which is not private. "
                f"Allowed: {' or '.join(map(repr, allowed))}."
            )


def _without_content(options: PrivacyOptions) -> float:
    """The weight for a catalog without content. Raises InputError where another one was wanted."""
    if options.content in (0, "auto"):
        return 0.0
    raise InputError(
        f"content={options.content:g} needs a catalog with titles, categories or other content, and it has none. Leave "
        "out --content, or give such a catalog."
    )
