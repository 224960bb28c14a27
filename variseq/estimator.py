"""The model as its users meet it: fit, evaluate, recommend, save."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from variseq.artifacts.checkpoint import load_checkpoint, save_checkpoint
from variseq.artifacts.lineage import started_from
from variseq.atomic import refuse_existing, unfinished
from variseq.comparison import ComparedRun, evaluated_part, named_forecasts, refuse_same_names, with_attributes
from variseq.errors import InputError
from variseq.evaluation.baselines import baselines
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.external_log import ExternalLog, part_of_external_log, sentences_of, warnings_of
from variseq.evaluation.groups import group_users
from variseq.evaluation.next_time import forecast_gaps
from variseq.evaluation.results import Results
from variseq.evaluation.significance import Comparison
from variseq.evaluation.significance import compare as compare_evaluations
from variseq.evaluation.splits import TEST_FILE, Part, Split
from variseq.evaluation.user_sample import sampled_users
from variseq.events.items import read_users
from variseq.events.vocabulary import Id, Vocabulary
from variseq.log import Log, LogPart
from variseq.output.console import console
from variseq.output.printable import printable
from variseq.output.progress import ProgressPrinter
from variseq.pipeline import fit, joined_exposures, refuse_leak, run_settings, split_of
from variseq.ranking.engine import NO_HISTORY
from variseq.ranking.known_users import histories_at, known_history, recommend_users
from variseq.ranking.options import RecommendOptions, id_list
from variseq.ranking.recommendations import Recommendations, write_tables
from variseq.ranking.when import WITHIN, WhenOptions
from variseq.recommend.changing_catalog import ChangingCatalog
from variseq.recommend.network_model import NAME, ModelRecommender
from variseq.recommend.values import forecast_values
from variseq.recommend.vectors import item_table, user_tables
from variseq.sequences.histories import Histories
from variseq.threads import short_waits_when_busy
from variseq.training.callbacks import TrainingCallback
from variseq.training.defaults import SIZES, Size, refuse_bad_settings
from variseq.training.run import RunContext, Settings, choose_device


class VariationalAttention(ChangingCatalog):
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
        self.checkpoint = None

    def __repr__(self) -> str:
        if self.checkpoint is None:
            return f"<VariationalAttention size={self.size}, not fitted>"
        config = self.checkpoint.network.config
        return f"<VariationalAttention size={self.size}, {config.num_items:,} items, hidden_size {config.hidden_size}>"

    @short_waits_when_busy()
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
        exposures: object | None = None,
    ) -> VariationalAttention:
        """Train on a part of a split log, calibrate on the validation part and go on with both.

        Args:
            train: The training part of `log.split()`.
            valid: The validation part of the same split; the best epoch is chosen on it.
            folder: Where the finished run is saved. The state of an unfinished one is in `<folder>.unfinished`.
            resume: Go on with an unfinished run, after Ctrl-C or a crash, to the same result.
            verbose: 0 for no output, 1 for a bar and a line for each epoch, 2 for KL, β and noise too.
            tensorboard: Also write TensorBoard files to the folder.
            start: An earlier run that training goes on from, with 0.3 of the epochs unless `max_epochs` is set. The log
                is the whole newer one, old events and new ones. Known items and behaviors keep their weights; new items
                begin at the mean of their categories, or of all items. Size and shape are those of the earlier run.
            callback: Receives the progress in place of the terminal.
            exposures: Lists that were shown: a folder of `variseq serve --exposures`, or a table with a row for each
                shown item. What was taken from them is ranked higher than what was not.

        Returns:
            The fitted model itself.

        Raises:
            InputError: For a folder that exists, settings that do not fit the earlier run, and an earlier run that has
                learned from events of the test part. One that has learned from the validation part gives a warning.
            TrainingDivergedError: When the loss is no number.
        """
        folder = None if folder is None else Path(folder)
        state = None if folder is None else unfinished(folder)
        if folder is not None:
            refuse_existing(folder)
        elif resume or tensorboard:
            raise InputError("A run without a folder leaves nothing to resume from or to look at. Give a folder.")
        settings = self.settings(train, start)
        if start is not None:
            refuse_leak(start._fitted(), train, valid)
        if settings.encoder is not None and callback is None:
            for note in settings.encoder.notes:
                console(quiet=verbose == 0).print(printable(note), soft_wrap=True)
        shown = None
        if exposures is not None:
            shown = joined_exposures(exposures, train.part.histories, train.vocabulary)
            console(quiet=verbose == 0).print(str(shown), soft_wrap=True)
        context = RunContext(self.device, callback or ProgressPrinter(verbose), state, resume, tensorboard)
        fitted = fit(train, valid, self.size, settings, context, shown)
        if start is not None:
            earlier = start._fitted()
            manifest = fitted.manifest | started_from(earlier)
            fitted = replace(fitted, manifest=manifest, changes=earlier.changes)
        self.checkpoint = fitted
        if folder is not None and state is not None:
            self.save(folder)
            if (state / "tensorboard").exists():
                shutil.move(state / "tensorboard", folder / "tensorboard")
            shutil.rmtree(state)
        return self

    def settings(self, train: LogPart, start: VariationalAttention | None = None) -> Settings:
        """The settings that `fit` trains with on a training part; see `variseq.pipeline.run_settings`."""
        earlier = None if start is None else start._fitted()
        return run_settings(train, self.size, self.seed, self.model, self.training, earlier)

    @short_waits_when_busy()
    def evaluate(
        self,
        part: LogPart | Log | None = None,
        k: int = 10,
        targets: str = "last",
        exclude_seen: bool | None = None,
        users: object | None = None,
        compare_with: Mapping[str, VariationalAttention] | None = None,
        mc_dropout: bool = False,
        request_time: bool = False,
        all_users: bool = False,
        content_parts: bool = False,
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
                group "unknown". For a run that was fitted with attributes a row "..., attributes" uses them.
            compare_with: Other models of the same log and split by name; each is compared with this one, paired by
                user.
            mc_dropout: Whether to add a row "..., dropout" for every model: the same network with dropout left on.
            request_time: Whether the models know the time of each target, as `recommend(at=...)` does; a track of its
                own, with the baseline own-by-hour.
            all_users: Whether a large log is evaluated whole, and not on a fixed sample of users, see `sampled_users`.
            content_parts: Whether to add a row "..., without ..." for each part of the content, not fitted again.

        Returns:
            A table with intervals to print, look up and write as JSON.

        Raises:
            InputError: The models cannot be evaluated on this part, or not compared with each other.

        Warns:
            UserWarning: Events of a log are training events, or earlier than these.
        """
        checkpoint = self._fitted()
        calibrated, split = checkpoint.calibrated, split_of(checkpoint)
        vocabulary, given = self._given_part(part, split)
        columns = {} if users is None else read_users(users, vocabulary)
        groups = group_users(columns)
        evaluated, known = evaluated_part(split, given, checkpoint.is_refitted)
        named = {} if compare_with is None else compare_with
        if not isinstance(named, Mapping) or not all(isinstance(run, VariationalAttention) for run in named.values()):
            raise InputError(
                "compare_with needs models by name, such as compare_with={'other': variseq.load('runs/other')}."
            )
        runs = [
            ComparedRun(name, model._fitted(), ModelRecommender(model._engines()[0].trained.model))
            for name, model in [(NAME, self), *named.items()]
        ]
        forecasts = named_forecasts(runs, split[1], mc_dropout, content_parts)
        evaluated, forecasts = with_attributes(runs, forecasts, evaluated, columns)
        if request_time:
            for run in runs:
                run.forecast.model.calibration.require_at_request(run.name)
        calendar = checkpoint.config["training"]["calendar"] if request_time else None
        recommenders = [*forecasts, *baselines(checkpoint.vocabulary.num_items, known, calendar)]
        refuse_same_names(recommenders)
        categories = None if checkpoint.items is None else checkpoint.items.all_categories()
        excludes = self._excludes(exclude_seen)
        options = EvaluationOptions(k, targets, excludes, calibrated.repeat_share, categories, request_time)
        sample = evaluated if all_users else sampled_users(evaluated, targets)
        evaluations = [evaluate(recommender, sample, options) for recommender in recommenders]
        # Thresholds hold for the way of ranking that they were fitted with.
        fitted = calibrated.thresholds_at_request if request_time else calibrated.thresholds
        thresholds = fitted if excludes == self._excludes(None) else None
        values = forecast_values(checkpoint.network, sample, known, targets)
        fit = checkpoint.next_time
        gaps = None if fit is None or evaluated.name == TEST_FILE else forecast_gaps(fit, split[0], evaluated)
        notes = sentences_of(evaluated, targets) if evaluated.name == TEST_FILE else []
        return Results(evaluations, values, groups, thresholds, len(forecasts) - 1, notes, gaps)

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
            history: In place of users: item ids, oldest first, or events, as mappings or a table with item_id and, if
                known, timestamp (seconds since 1970, or text with a zone), event and value. Items without times are a
                second apart; unknown items are left out with a UserWarning.
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
            known = known_history(engine, history)
            fallback = None if known.num_events else NO_HISTORY
            return engine.recommend(known.at_request(wanted), [None], [fallback], wanted)
        if users is None:
            raise InputError(
                "Give users=[...] or history=[...]. For all users give users=model.vocabulary.users.to_pylist(), or "
                "write a file with recommend_to_file."
            )
        ids = id_list(users, "users")
        if not ids:
            raise InputError("The list of users is empty. Give at least one user id.")
        return next(recommend_users(engine, self._histories(), ids, wanted, size=len(ids)))

    def when(
        self,
        users: Sequence[Id] | None = None,
        history: Sequence[Mapping[str, Any]] | pd.DataFrame | pa.Table | None = None,
        *,
        at: str | float | datetime | None = None,
        level: float = 0.9,
        within: Sequence[str] = WITHIN,
    ) -> pd.DataFrame:
        """When the next event of these users, or of somebody with this history, is expected.

        In a split that is not by time, all is given that there is a next event.

        Args:
            users: User ids; unknown ones get no times.
            history: In place of users: events with their times, see `recommend`.
            at: From when on the answer counts, given that nothing happened since the last event: "now", seconds
                since 1970, text with a zone, or a datetime. None: from the last event.
            level: Probability of the interval, from 0.5 to 0.99.
            within: Durations, each of which gets the probability of an event.

        Returns:
            One row a user: user_id, last_event, low, median, high (UTC) and a column "within 7d" for each duration.

        Raises:
            InputError: Without users and history, for a log or a history without times, and for other values.
        """
        options, engine = WhenOptions(at=at, level=level, within=within), self._engine()
        if (users is None) == (history is None):
            raise InputError("Give either users=[...] or history=[...], not both and not neither.")
        if users is None:
            known = known_history(engine, history)
            if not known.has_times:
                raise InputError("The history has items without times. Give events with item_id and timestamp.")
            return engine.when(known.histories, options).to_pandas([None], within)
        ids = id_list(users, "users")
        histories = histories_at(self._histories(), self.vocabulary.user_positions(ids))
        return engine.when(histories, options).to_pandas(ids, within)

    @short_waits_when_busy()
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

    def similar_items(self, item_ids: Sequence[Id], k: int = 10, by: str = "events") -> pd.DataFrame:
        """The items most like each of these.

        Args:
            item_ids: Item ids of the catalog.
            k: How many for each, at most the number of other items.
            by: "events" for what people did, "content" for what is known of the items, "both" for the mean of the two.

        Returns:
            A frame with item_id, similar_item_id, rank, score (cosine of the vectors) and title.

        Raises:
            InputError: For unknown items, another k, and content that the model does not have.
        """
        catalog, ids = self._engine().catalog, id_list(item_ids, "item_ids")
        catalog.known_items(ids, "item_ids")
        rows = [
            {"item_id": item, "similar_item_id": one.pop("item_id"), **one}
            for item in ids
            for one in catalog.similar(item, k, by)
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

        `progress` receives how many rows are done, and of how many. Raises InputError for another ending or another
        `of`, and when the file cannot be written; then nothing is left there.
        """
        if of not in ("items", "users"):
            raise InputError(f"of={of!r} is not possible. Allowed: 'items' and 'users'.")
        vocabulary = self._fitted().vocabulary
        total = vocabulary.num_items if of == "items" else vocabulary.num_users
        tables = iter([self.item_vectors()]) if of == "items" else self._user_tables(None)
        counted = tables if progress is None else _counted(tables, total, progress)
        return write_tables(counted, Path(path), f"Vectors of {of}", (".parquet",))

    def save(self, folder: Path | str, with_histories: bool = True) -> None:
        """Write the run in open formats, without pickle, whole or not at all.

        Args:
            folder: A folder that does not exist yet.
            with_histories: Without them the folder names no user and holds nobody's events, so that known users cannot
                be asked for. The weights and the counted transitions stay.

        Raises:
            InputError: When the folder exists or cannot be written.
        """
        checkpoint = self._fitted()
        save_checkpoint(checkpoint if with_histories else checkpoint.without_histories(), Path(folder))

    @property
    def vocabulary(self) -> Vocabulary:
        """The translator between outside ids and positions; items that were added come last."""
        return self._engine().vocabulary

    def _excludes(self, exclude_seen: bool | None) -> bool:
        """The choice of the caller, or what the log suggested: in some logs people repeat themselves."""
        suggested: bool = self._fitted().manifest["exclude_seen"]
        return suggested if exclude_seen is None else exclude_seen

    def _histories(self) -> Histories:
        histories = self._fitted().histories
        if histories is None:
            raise InputError("This run was saved without histories, so users are not known to it. Give a history.")
        return histories

    def _given_part(self, part: LogPart | Log | None, split: Split) -> tuple[Vocabulary, Part | None]:
        """The vocabulary of the part's users, and the part; None is the test part. Warns of doubtful test files."""
        vocabulary = self._fitted().vocabulary
        if part is None or isinstance(part, LogPart):
            return vocabulary, None if part is None else part.part
        fitted_on = split[2 if self._fitted().is_refitted else 0].history()
        external = ExternalLog(part.histories, part.vocabulary, part.report)
        given = part_of_external_log(split[2], vocabulary, fitted_on, external)
        for message in warnings_of(given.protocol["test_file"]):
            warnings.warn(message, UserWarning, stacklevel=3)
        return part.vocabulary, given

    def _user_tables(self, users: Sequence[Id] | None) -> Iterator[pa.Table]:
        checkpoint = self._fitted()
        chosen = None if users is None else id_list(users, "users")
        return user_tables(checkpoint.network, checkpoint.vocabulary, checkpoint.histories, chosen)


def _counted(tables: Iterator[pa.Table], total: int, progress: Callable[[int, int], None]) -> Iterator[pa.Table]:
    done = 0
    for table in tables:
        yield table
        done += table.num_rows
        progress(done, total)


def load(folder: Path | str, device: str = "auto") -> VariationalAttention:
    """Load a run; nothing but its folder is needed.

    Args:
        folder: What `variseq fit --out`, `fit(folder=…)` or `save` wrote.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".

    Returns:
        The fitted model.

    Raises:
        CheckpointError: For a folder that is missing, damaged, of another format, or an export without weights.
    """
    checkpoint = load_checkpoint(Path(folder))
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
