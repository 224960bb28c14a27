"""The model as its users meet it: fit, evaluate, recommend, save."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from variseq.comparison import ComparedRun, evaluated_part, forecast_values, named_forecasts, refuse_same_names
from variseq.errors import InputError
from variseq.evaluation.baselines import baselines
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.external_log import (
    ExternalLog,
    num_trained_of,
    part_of_external_log,
    sentences_of,
    warnings_of,
)
from variseq.evaluation.groups import read_user_groups
from variseq.evaluation.results import Results
from variseq.evaluation.significance import Comparison
from variseq.evaluation.significance import compare as compare_evaluations
from variseq.evaluation.splits import TEST_FILE, Part, Split, marked_targets, split_at
from variseq.events.nearest import nearest_hint
from variseq.events.report import utc_text
from variseq.events.vocabulary import Id, Vocabulary
from variseq.log import Log, LogPart
from variseq.model.checkpoint import Checkpoint, load_checkpoint, refuse_existing, save_checkpoint
from variseq.output.progress import ProgressPrinter
from variseq.ranking.calibration import NUM_SAMPLES, Calibration
from variseq.ranking.engine import NO_HISTORY, Engine, KnownHistory, recommend_users
from variseq.ranking.options import RecommendOptions, id_list
from variseq.ranking.recommendations import Recommendations, write_tables
from variseq.recommend.calibrate import calibrate
from variseq.recommend.learned import Learned
from variseq.recommend.network_model import NAME, ModelRecommender, count_events, engine_of, mixture_model
from variseq.recommend.transfer import transferred
from variseq.recommend.vectors import item_table, user_tables
from variseq.sequences.given_history import given_history
from variseq.sequences.histories import Histories
from variseq.training.callbacks import TrainingCallback
from variseq.training.config import TrainingConfig
from variseq.training.defaults import (
    FROM_THE_LOG,
    SIZES,
    LogProperties,
    Size,
    network_config,
    refuse_bad_settings,
    training_config,
)
from variseq.training.manifest import refuse_incomplete, run_manifest
from variseq.training.run import Settings, Workplace, choose_device, train_network
from variseq.training.schedule import refuse_unreachable_kl_target
from variseq.training.trainer import Validation
from variseq.training.warm_start import Start, refuse_other_shape, shape_of, warm_training

MAX_HINTS = 3


class VariationalAttention:
    """A variational attention model of behavior sequences.

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
        self._answering: tuple[Checkpoint, Engine] | None = None

    def __repr__(self) -> str:
        if self.checkpoint is None:
            return f"<VariationalAttention size={self.size}, not fitted>"
        config = self.checkpoint.network.config
        return f"<VariationalAttention size={self.size}, {config.num_items:,} items, hidden_size {config.hidden_size}>"

    def fit(
        self,
        train: LogPart,
        valid: LogPart,
        folder: Path | str | None = None,
        resume: bool = False,
        verbose: int = 1,
        tensorboard: bool = False,
        start: VariationalAttention | None = None,
        callback: TrainingCallback | None = None,
    ) -> VariationalAttention:
        """Train on a part of a split log; the best epoch is chosen on the validation part.

        With a `folder` the finished run is saved there, and while it is under way its state is in
        `<folder>.unfinished`: after Ctrl-C or a crash, the same call with `resume=True` goes on to the same result.

        `start` is an earlier run that training goes on from, with 0.3 of the epochs unless training={"max_epochs": …}
        says otherwise. The log is the whole newer one, old events and new ones: the earlier events are needed as
        histories and for what is counted. Known items and behaviors keep their weights, new items begin at the mean of
        their categories, or of all items. Its size and shape are those of the earlier run.

        `verbose` is 0 for no output, 1 for a bar and a line for each epoch, 2 for KL, β and noise too; a `callback`
        receives the progress instead.

        Raises InputError for settings that do not fit the earlier run, and where that has learned from events of the
        test part; warns where it has learned from events of the validation part.
        """
        folder = None if folder is None else Path(folder)
        unfinished = None if folder is None else folder.with_name(folder.name + ".unfinished")
        if folder is not None:
            refuse_existing(folder)
        elif resume or tensorboard:
            raise InputError("A run without a folder leaves nothing to resume from or to look at. Give a folder.")
        settings = self._settings(train, start)
        if start is not None:
            start._refuse_to_leak_into(train, valid)
        workplace = Workplace(self.device, callback or ProgressPrinter(verbose), unfinished, resume, tensorboard)
        trained = train_network(train.part, valid.part, settings, workplace)
        config, known = settings.training, train.part.known()
        validation = Validation(valid.part, config)
        # A network that was trained without noise has no spread that means anything.
        num_samples = NUM_SAMPLES if config.deterministic_fraction < 1 else 0
        counts = count_events(train.part.num_items, known)
        untuned = mixture_model(trained.chosen, counts, Calibration(num_samples))
        learned = calibrate(untuned, validation.part, validation.options)
        if config.refit_fraction:
            latest = valid.part.known_after()
            counts = count_events(train.part.num_items, latest)
            learned = transferred(learned, (trained.chosen, known), (trained.network, latest))
        begins = np.stack([train.part.target_end, valid.part.target_end])
        self.checkpoint = Checkpoint(
            network=trained.network.eval(),
            vocabulary=train.vocabulary,
            items=train.items,
            histories=replace(train.part.histories, is_target=None),
            bounds=begins,
            memory=counts,
            manifest=run_manifest(train.part.protocol, train.report.to_json(), trained.seconds, learned.to_json()),
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
        self,
        part: LogPart | Log | None = None,
        k: int = 10,
        targets: str = "last",
        exclude_seen: bool | None = None,
        users: object | None = None,
        compare_with: Mapping[str, VariationalAttention] | None = None,
        mc_dropout: bool = False,
    ) -> Results:
        """Evaluate the model and the baselines on a part of the split, or on a log of its own.

        All are trained on the same events: the training part, and after a refit the validation part too (`trained_on`
        in the protocol). The history of a query is everything before its target.

        A log (`variseq.read`) is an external test set. The history of a target is what the run's log has of the user
        before the first event in that log, and then the events in that log. The history of unknown users is that log
        alone, and unknown items are misses.

        Args:
            part: A part of the split or a log; the test part by default.
            k: Length of the lists.
            targets: "last" (each user's last event), "first" or "all".
            exclude_seen: Whether items of the user's own history are not ranked; None is the default of the fit.
            users: A table with user_id and further columns, whose groups are compared. Users without a row are in the
                group "unknown".
            compare_with: Other models of the same log and split by name; each is compared with this one, paired by
                user.
            mc_dropout: Whether to add a row "..., dropout" for every model: the same network with dropout left on.

        Returns:
            A table with intervals to print, look up and write as JSON.

        Raises:
            InputError: The models cannot be evaluated on this part, or not compared with each other.

        Warns:
            UserWarning: Events of a log are training events, or earlier than these.
        """
        checkpoint, learned = self._fitted(), self._learned()
        config, split = TrainingConfig(**checkpoint.config["training"]), self._split()
        vocabulary, given = self._given_part(part, split)
        groups = read_user_groups(users, vocabulary)
        evaluated, known = evaluated_part(split, given, bool(config.refit_fraction))
        named = {} if compare_with is None else compare_with
        if not isinstance(named, Mapping) or not all(isinstance(run, VariationalAttention) for run in named.values()):
            raise InputError(
                "compare_with needs models by name, such as compare_with={'other': variseq.load('runs/other')}."
            )
        models = [(NAME, self), *named.items()]
        runs = [ComparedRun(name, model._fitted(), ModelRecommender(model._engine().model)) for name, model in models]
        forecasts = named_forecasts(runs, split[1], mc_dropout)
        recommenders = [*forecasts, *baselines(checkpoint.vocabulary.num_items, known)]
        refuse_same_names(recommenders)
        categories = None if checkpoint.items is None else checkpoint.items.all_categories()
        options = EvaluationOptions(k, targets, self._excludes(exclude_seen), learned.repeat_share, categories)
        evaluations = [evaluate(recommender, evaluated, options) for recommender in recommenders]
        # Thresholds hold for the way of ranking that they were fitted with.
        thresholds = learned.thresholds if options.exclude_seen == config.exclude_seen else None
        values = forecast_values(checkpoint.network, evaluated, targets)
        notes = sentences_of(evaluated, targets) if evaluated.name == TEST_FILE else []
        return Results(evaluations, values, groups, thresholds, len(forecasts) - 1, notes)

    def recommend(
        self,
        users: Sequence[Id] | None = None,
        history: Sequence[Id | Mapping[str, Any]] | pd.DataFrame | pa.Table | None = None,
        *,
        options: RecommendOptions | None = None,
        **fields: Any,
    ) -> Recommendations:
        """What these users, or somebody with this history, will want next.

        Args:
            users: User ids; unknown ones get the answer for an empty history, marked in the column `fallback`.
            history: In place of users: item ids, oldest first, or events. Events are mappings or a table with item_id
                and, if known, timestamp (seconds since 1970, or text with a zone), event and value. Items without
                times are a second apart; unknown items are left out with a UserWarning.
            options: See `RecommendOptions`.
            **fields: Fields of `RecommendOptions` by name, such as k=5; they replace those of `options`.

        Returns:
            One row for each user and rank, see `Recommendations`.

        Raises:
            InputError: Without users and history, or for options that are not possible.
        """
        wanted, engine = RecommendOptions.of(options, fields), self._engine()
        if users is not None and history is not None:
            raise InputError("Give either users or a history, not both.")
        if history is not None:
            known = self._known_history(engine, history)
            return engine.recommend(known.histories, [None], [None if known.num_events else NO_HISTORY], wanted)
        if users is None:
            raise InputError(
                "Give users=[...] or history=[...]. For all users give users=model.vocabulary.users.to_pylist(), or "
                "write a file with recommend_to_file."
            )
        ids = id_list(users, "users")
        if not ids:
            raise InputError("The list of users is empty. Give at least one user id.")
        return next(recommend_users(engine, self._histories(), ids, wanted, size=len(ids)))

    def recommend_to_file(self, path: Path | str, options: RecommendOptions | None = None, **fields: Any) -> int:
        """Recommendations for all users to a .parquet or .csv file, written as they come.

        Args:
            path: The file; it appears whole or not at all.
            options: See `RecommendOptions`.
            **fields: Fields of `RecommendOptions` by name, such as ranks_only=True.

        Returns:
            The number of rows.

        Raises:
            InputError: For another ending, a file that cannot be written, or options that are not possible.
        """
        wanted = RecommendOptions.of(options, fields)
        tables = recommend_users(self._engine(), self._histories(), None, wanted)
        return write_tables((table.to_arrow() for table in tables), Path(path))

    def similar_items(self, item_ids: Sequence[Id], k: int = 10) -> pd.DataFrame:
        """The items most like each of these.

        Args:
            item_ids: Item ids of the catalog.
            k: How many for each, at most the number of other items.

        Returns:
            A frame with item_id, similar_item_id, rank, score (cosine of the item vectors) and title.

        Raises:
            InputError: For unknown items and another k.
        """
        catalog, ids = self._engine().catalog, id_list(item_ids, "item_ids")
        catalog.known_items(ids, "item_ids")
        rows = [
            {"item_id": item, "similar_item_id": one.pop("item_id"), **one}
            for item in ids
            for one in catalog.similar(item, k)
        ]
        return pd.DataFrame(rows)

    def item_vectors(self) -> pa.Table:
        """The output vectors of all items: item_id, title, vector (float32 of fixed hidden_size) and bias.

        The network's logit of an item is the inner product of a user's vector with the item's, plus the bias. The
        cosine of two item vectors is the score of `similar_items`.
        """
        checkpoint = self._fitted()
        return item_table(checkpoint.network, checkpoint.vocabulary, checkpoint.items)

    def user_vectors(self, users: Sequence[Id] | None = None) -> pa.Table:
        """The preference of users after their latest event, at the mean of the posterior: user_id and vector.

        All users with a history by default. Inner products with `item_vectors` order items as the network does;
        `recommend` also counts what followed the last item and what was popular of late, so its order can differ.
        Raises InputError for a run without histories and for users that it does not know.
        """
        return pa.concat_tables(self._user_tables(users))

    def vectors_to_file(
        self, path: Path | str, of: str = "items", progress: Callable[[int, int], None] | None = None
    ) -> int:
        """Vectors of "items" or "users" to a .parquet file, written as they come; the number of rows.

        `progress` is told how many rows are done, and of how many. Raises InputError for another ending or another
        `of`, and when the file cannot be written; then nothing is left there.
        """
        if of not in ("items", "users"):
            raise InputError(f"of={of!r} is not possible. Allowed: 'items' and 'users'.")
        vocabulary = self.vocabulary
        total = vocabulary.num_items if of == "items" else vocabulary.num_users
        tables = iter([self.item_vectors()]) if of == "items" else self._user_tables(None)
        counted = tables if progress is None else _counted(tables, total, progress)
        return write_tables(counted, Path(path), f"Vectors of {of}", (".parquet",))

    def save(self, folder: Path | str, with_histories: bool = True) -> None:
        """Write the run to a folder that does not exist yet; open formats, no pickle.

        Without histories the folder names no user and holds nobody's events, and known users cannot be asked for. What
        was learned from them (weights, counted transitions) stays.
        """
        checkpoint = self._fitted()
        save_checkpoint(checkpoint if with_histories else checkpoint.without_histories(), Path(folder))

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

    def _learned(self) -> Learned:
        return Learned.of_manifest(self._fitted().manifest, "memory")

    def _engine(self) -> Engine:
        """The answering core of the fitted model, made once."""
        checkpoint = self._fitted()
        if self._answering is None or self._answering[0] is not checkpoint:
            self._answering = (checkpoint, engine_of(checkpoint, self._learned()))
        return self._answering[1]

    def _histories(self) -> Histories:
        histories = self._fitted().histories
        if histories is None:
            raise InputError("This run was saved without histories, so users are not known to it. Give a history.")
        return histories

    def _known_history(self, engine: Engine, history: object) -> KnownHistory:
        """A history as the model reads it. Warns of items that are left out."""
        known = engine.given(given_history(history))
        if unknown := known.unknown:
            ids = self.vocabulary.items.to_pylist()
            hints = [nearest_hint(item, ids) for item in unknown[:MAX_HINTS]] + [""] * len(unknown[MAX_HINTS:])
            named = ", ".join(f"{item!r}{hint}" for item, hint in zip(unknown[:10], hints, strict=False))
            warnings.warn(
                f"{len(unknown)} of {len(unknown) + known.num_events} items of the history are not in the catalog and "
                f"were left out: {named}{', …' if len(unknown) > 10 else ''}",
                UserWarning,
                stacklevel=3,
            )
        return known

    def _given_part(self, part: LogPart | Log | None, split: Split) -> tuple[Vocabulary, Part | None]:
        """The vocabulary of the part's users, and the part; None is the test part. Warns of doubtful test files."""
        vocabulary = self.vocabulary
        if part is None or isinstance(part, LogPart):
            return vocabulary, None if part is None else part.part
        refits = self._fitted().config["training"]["refit_fraction"]
        external = ExternalLog(part.histories, part.vocabulary, part.report)
        given = part_of_external_log(split[2], vocabulary, split[2 if refits else 0].known(), external)
        for message in warnings_of(given.protocol["test_file"]):
            warnings.warn(message, UserWarning, stacklevel=3)
        return part.vocabulary, given

    def _user_tables(self, users: Sequence[Id] | None) -> Iterator[pa.Table]:
        checkpoint = self._fitted()
        chosen = None if users is None else id_list(users, "users")
        return user_tables(checkpoint.network, checkpoint.vocabulary, checkpoint.histories, chosen)

    def _split(self) -> Split:
        checkpoint = self._fitted()
        if checkpoint.histories is None or checkpoint.bounds is None:
            raise InputError("This run was saved without histories, so there is nothing to evaluate on.")
        method = {key: checkpoint.manifest["protocol"][key] for key in checkpoint.manifest["split_method"]}
        vocabulary = checkpoint.vocabulary
        histories = marked_targets(checkpoint.histories, vocabulary.behaviors, method.get("targets_of"))
        return split_at(histories, checkpoint.bounds[0], checkpoint.bounds[1], vocabulary.num_items, method)

    def _settings(self, train: LogPart, start: VariationalAttention | None = None) -> Settings:
        properties = LogProperties.of(train.part.known(), train.vocabulary)
        earlier = None if start is None else start._fitted()
        if start is not None and start.size != self.size:
            raise InputError(f"size={self.size!r} does not fit the earlier run. Give its size, {start.size!r}.")
        network = network_config(self.size, properties, ({} if earlier is None else shape_of(earlier)) | self.model)
        training = training_config(properties, network, self.seed, self.training)
        if earlier is not None:
            refuse_other_shape(network, earlier.network.config)
            training = warm_training(training, earlier, self.training)
        refuse_unreachable_kl_target(network, training)
        links = train.items.category_links() if train.items is not None and training.use_categories else None
        begin = None if earlier is None else Start.of(earlier, train.vocabulary)
        return Settings(network, training, links if links is not None and links.num_categories else None, begin)

    def _refuse_to_leak_into(self, train: LogPart, valid: LogPart) -> None:
        """Raises InputError where this run has learned from a test part's events; warns of a validation part's."""
        checkpoint = self._fitted()
        if checkpoint.histories is None:
            warnings.warn(
                "The earlier run was saved without histories. Whether it has learned from events of the validation or "
                "the test part cannot be seen.",
                UserWarning,
                stacklevel=3,
            )
            return
        learned = self._split()[2 if checkpoint.config["training"]["refit_fraction"] else 0].known()
        in_valid, in_test = num_trained_of(valid.part, train.vocabulary, learned, checkpoint.vocabulary)
        until = utc_text(int(learned.timestamp.max()))
        if in_test:
            raise InputError(
                f"The earlier run has learned from {in_test:,} events of the test part, whose figures would be too "
                f"good: its events go on until {until}. Split with a later test part, or with test='none'."
            )
        if in_valid:
            warnings.warn(
                f"The earlier run has learned from {in_valid:,} events of the validation part. Its figures are too "
                f"good, and so are the probabilities that are calibrated on it. Let validation begin after "
                f"{until} (valid).",
                UserWarning,
                stacklevel=3,
            )


def _counted(tables: Iterator[pa.Table], total: int, progress: Callable[[int, int], None]) -> Iterator[pa.Table]:
    done = 0
    for table in tables:
        yield table
        done += table.num_rows
        progress(done, total)


def load(folder: Path | str, device: str = "auto") -> VariationalAttention:
    """The model of a run folder, ready to recommend; needs nothing but the folder.

    Raises CheckpointError when it is missing, damaged or of a later format.
    """
    checkpoint = load_checkpoint(Path(folder))
    refuse_incomplete(checkpoint.manifest, folder)
    Learned.of_manifest(checkpoint.manifest, folder)
    config = checkpoint.config
    model = VariationalAttention(config["size"], config["seed"], device, config["model"], config["training"])
    checkpoint.network.to(model.device)
    model.checkpoint = checkpoint
    return model


def compare(first: Path | str, second: Path | str, metric: str = "ndcg", k: int = 10) -> Comparison:
    """Compare two runs on their common test part, paired by user.

    Args:
        first: Folder of a run.
        second: Folder of another run of the same log and split.
        metric: "ndcg", "recall", "mrr", "nll" or "brier".
        k: Length of the lists.

    Returns:
        The difference first minus second, its 95 % bootstrap interval and its permutation p-value.

    Raises:
        InputError: The runs are of another log or split, or only one of them was refitted.
    """
    name = f"the run {second}"
    results = load(first).evaluate(k=k, compare_with={name: load(second)})
    return compare_evaluations(results.evaluations[0], results[name], metric)
