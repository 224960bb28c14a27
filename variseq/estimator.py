"""The model as its users meet it: fit, evaluate, recommend, save."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from variseq.artifacts.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from variseq.artifacts.folder import refuse_existing
from variseq.comparison import ComparedRun, evaluated_part, forecast_values, named_forecasts, refuse_same_names
from variseq.errors import InputError
from variseq.evaluation.baselines import baselines
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.external_log import (
    ExternalLog,
    part_of_external_log,
    sentences_of,
    warnings_of,
)
from variseq.evaluation.groups import read_user_groups
from variseq.evaluation.results import Results
from variseq.evaluation.significance import Comparison
from variseq.evaluation.significance import compare as compare_evaluations
from variseq.evaluation.splits import TEST_FILE, Part, Split
from variseq.events.vocabulary import Id, Vocabulary
from variseq.log import Log, LogPart
from variseq.output.progress import ProgressPrinter
from variseq.pipeline import fit, forecast_of, refuse_leak, run_settings, split_of
from variseq.recommend.answers import Answers
from variseq.recommend.forecast import Forecast
from variseq.recommend.lists import Lists
from variseq.recommend.manner import Manner
from variseq.recommend.output import write_tables
from variseq.recommend.vectors import item_table, user_tables
from variseq.recommend.wishes import Filters, Wishes, id_list
from variseq.training.callbacks import TrainingCallback
from variseq.training.defaults import (
    SIZES,
    Size,
    refuse_bad_settings,
)
from variseq.training.run import RunContext, Settings, choose_device


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

        Returns:
            The fitted model itself.

        Raises:
            InputError: For a folder that exists, settings that do not fit the earlier run, and an earlier run that has
                learned from events of the test part. One that has learned from the validation part gives a warning.
            TrainingDivergedError: When the loss is no number.
        """
        folder = None if folder is None else Path(folder)
        unfinished = None if folder is None else folder.with_name(folder.name + ".unfinished")
        if folder is not None:
            refuse_existing(folder)
        elif resume or tensorboard:
            raise InputError("A run without a folder leaves nothing to resume from or to look at. Give a folder.")
        settings = self.settings(train, start)
        if start is not None:
            refuse_leak(start._fitted(), train, valid)
        context = RunContext(self.device, callback or ProgressPrinter(verbose), unfinished, resume, tensorboard)
        self.checkpoint = fit(train, valid, self.size, settings, context)
        if folder is not None and unfinished is not None:
            self.save(folder)
            if (unfinished / "tensorboard").exists():
                shutil.move(unfinished / "tensorboard", folder / "tensorboard")
            shutil.rmtree(unfinished)
        return self

    def settings(self, train: LogPart, start: VariationalAttention | None = None) -> Settings:
        """The settings that `fit` trains with on a training part; see `variseq.pipeline.run_settings`."""
        earlier = None if start is None else start._fitted()
        return run_settings(train, self.size, self.seed, self.model, self.training, earlier)

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
        checkpoint = self._fitted()
        calibrated, split = checkpoint.calibrated, split_of(checkpoint)
        vocabulary, given = self._given_part(part, split)
        groups = read_user_groups(users, vocabulary)
        evaluated, known = evaluated_part(split, given, checkpoint.is_refitted)
        named = {} if compare_with is None else compare_with
        if not isinstance(named, Mapping) or not all(isinstance(run, VariationalAttention) for run in named.values()):
            raise InputError(
                "compare_with needs models by name, such as compare_with={'other': variseq.load('runs/other')}."
            )
        models = [(Forecast.name, self), *named.items()]
        runs = [ComparedRun(name, model._fitted(), forecast_of(model._fitted())) for name, model in models]
        forecasts = named_forecasts(runs, split[1], mc_dropout)
        recommenders = [*forecasts, *baselines(checkpoint.vocabulary.num_items, known)]
        refuse_same_names(recommenders)
        categories = None if checkpoint.items is None else checkpoint.items.all_categories()
        options = EvaluationOptions(k, targets, self._excludes(exclude_seen), calibrated.repeat_share, categories)
        evaluations = [evaluate(recommender, evaluated, options) for recommender in recommenders]
        # Thresholds hold for the way of ranking that they were fitted with.
        thresholds = calibrated.thresholds if options.exclude_seen == self._excludes(None) else None
        values = forecast_values(checkpoint.network, evaluated, targets)
        notes = sentences_of(evaluated, targets) if evaluated.name == TEST_FILE else []
        return Results(evaluations, values, groups, thresholds, len(forecasts) - 1, notes)

    def recommend(
        self,
        users: Sequence[Id] | None = None,
        history: Sequence[Id | Mapping[str, Any]] | pd.DataFrame | pa.Table | None = None,
        k: int = 10,
        exclude: Sequence[Id] = (),
        only: Sequence[Id] | None = None,
        category: str | Sequence[str] | None = None,
        exclude_seen: bool | None = None,
        explore: str | None = None,
        seed: int = 0,
        diversity: float = 0.0,
        coverage: float | None = None,
        boost: Mapping[Id, float] | None = None,
        boost_categories: Mapping[str, float] | None = None,
        pin: Mapping[int, Id] | None = None,
        ranks_only: bool = False,
    ) -> pd.DataFrame:
        """What these users, or somebody with this history, will want next; all users by default.

        `history` is item ids, oldest first, or events: a list of mappings or a table with item_id and, if known,
        timestamp (seconds since 1970, or text with a zone), event and value. Items without times are a second apart.
        `explore`, `seed`, `diversity`, `coverage`, `ranks_only`: see `Manner`; `boost`, `boost_categories`, `pin`: see
        `Filters`. A row per user and rank: user_id, item_id, rank, score, probability (of being next), low and high
        (90 % of what the user may be like by the posterior), title, because (the earlier items without which it
        would be less probable), source (says when an answer is a fallback), uncertainty (nats; aleatoric + epistemic).
        """
        filters = Filters(k, exclude, only, category, exclude_seen, boost or {}, boost_categories or {}, pin or {})
        manner = Manner(explore, seed, diversity, coverage, ranks_only)
        if history is not None:
            if users is not None:
                raise InputError("Give either users or a history, not both.")
            return self._answers().for_history(history, filters, manner).to_pandas()
        tables = [table.to_pandas() for table in self._answers().for_users(users, filters, manner)]
        if not tables:
            raise InputError("The list of users is empty. Give at least one user id, or None for all users.")
        return pd.concat(tables, ignore_index=True)

    def recommend_to_file(self, path: Path | str, filters: Filters | None = None, manner: Manner | None = None) -> int:
        """Recommendations for all users to a .parquet or .csv file, written as they come; the number of rows."""
        tables = self._answers().for_users(None, filters or Filters(), manner or Manner())
        return write_tables(tables, Path(path))

    def similar_items(self, item_ids: Sequence[Id], k: int = 10) -> pd.DataFrame:
        """The items most like each of these: item_id, similar_item_id, rank, score (cosine), title."""
        return self._answers().similar(item_ids, k).to_pandas()

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
        """The translator between outside ids and positions."""
        return self._fitted().vocabulary

    def _fitted(self) -> Checkpoint:
        if self.checkpoint is None:
            raise InputError("The model is not fitted. Call fit(train, valid) first, or load a run with variseq.load.")
        return self.checkpoint

    def _excludes(self, exclude_seen: bool | None) -> bool:
        """The wish, or what the log suggested: people who repeat themselves may be shown the same again."""
        suggested: bool = self._fitted().manifest["exclude_seen"]
        return suggested if exclude_seen is None else exclude_seen

    def _given_part(self, part: LogPart | Log | None, split: Split) -> tuple[Vocabulary, Part | None]:
        """The vocabulary of the part's users, and the part; None is the test part. Warns of doubtful test files."""
        vocabulary = self.vocabulary
        if part is None or isinstance(part, LogPart):
            return vocabulary, None if part is None else part.part
        fitted_on = split[2 if self._fitted().is_refitted else 0].history()
        external = ExternalLog(part.histories, part.vocabulary, part.report)
        given = part_of_external_log(split[2], vocabulary, fitted_on, external)
        for message in warnings_of(given.protocol["test_file"]):
            warnings.warn(message, UserWarning, stacklevel=3)
        return part.vocabulary, given

    def _answers(self) -> Answers:
        checkpoint = self._fitted()
        calibrated = checkpoint.calibrated
        lists = Lists(forecast_of(checkpoint), calibrated)
        wishes = Wishes(checkpoint.vocabulary, checkpoint.items, calibrated.repeat_share, self._excludes(None))
        return Answers(lists, wishes, checkpoint.histories, checkpoint.usual_behavior)

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
