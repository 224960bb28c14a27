"""The model as its users meet it: fit, evaluate, recommend, save."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from variseq.errors import InputError
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.results import Results
from variseq.evaluation.splits import Split, split_at
from variseq.evaluation.user_groups import read_user_groups
from variseq.events.vocabulary import Id, Vocabulary
from variseq.log import LogPart
from variseq.model.checkpoint import Checkpoint, load_checkpoint, refuse_existing, save_checkpoint
from variseq.recommend.answers import Answers
from variseq.recommend.calibrate import calibrate
from variseq.recommend.calibration import NUM_SAMPLES, Calibration
from variseq.recommend.forecast import Forecast
from variseq.recommend.learned import Learned
from variseq.recommend.lists import Lists
from variseq.recommend.manner import Manner
from variseq.recommend.memory import Memory
from variseq.recommend.output import write_tables
from variseq.recommend.rivals import Rival, judged_on, named_forecasts, refuse_same_names
from variseq.recommend.transfer import transferred
from variseq.recommend.values import forecast_values
from variseq.recommend.vectors import item_table, user_tables
from variseq.recommend.wishes import Filters, Wishes, id_list
from variseq.recommend.yardsticks import yardsticks
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
from variseq.training.rate_control import refuse_unreachable_rate
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
        config, known = settings.training, train.part.known()
        validation = Validation(valid.part, config)
        # A network that was trained without noise has no spread that means anything.
        num_samples = NUM_SAMPLES if config.deterministic_share < 1 else 0
        memory = Memory(train.part.num_items)
        untuned = Forecast(trained.chosen, memory.fit(known), Calibration(num_samples))
        learned = calibrate(untuned, validation.part, validation.options)
        if config.refit_share:
            latest = valid.part.known_after()
            memory.fit(latest)
            learned = transferred(learned, (trained.chosen, known), (trained.network, latest))
        begins = np.stack([train.part.target_end, valid.part.target_end])
        self.checkpoint = Checkpoint(
            network=trained.network.eval(),
            vocabulary=train.vocabulary,
            items=train.items,
            histories=train.part.histories,
            bounds=begins,
            memory=memory.state(),
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
        part: LogPart | None = None,
        k: int = 10,
        targets: str = "last",
        exclude_seen: bool | None = None,
        users: object | None = None,
        beside: Mapping[str, VariationalAttention] | None = None,
        dropout: bool = False,
    ) -> Results:
        """The model on a part of the split (the test part by default), with the baselines beside it.

        `targets` is "last" (each user's last event there), "next" (the first) or "successive" (all). `exclude_seen`
        leaves out items of the user's own history; None is what the log suggested when the model was fitted. `users` is
        a table with user_id and further columns, whose groups are compared (users without a row: "unknown"). `beside`
        names other models of the same log and split, and `dropout` adds a row "..., dropout" for every model (the same
        network with dropout left on); what they differ by is paired by user.

        All have learned from the same events: those of the training part, and after a refit those of the validation
        part too (`learned_from` in the protocol), which is then no part to be judged on. A query shows the whole
        history before its target.
        """
        checkpoint, learned = self._fitted(), self._learned()
        groups = read_user_groups(users, checkpoint.vocabulary)
        config, split = TrainingConfig(**checkpoint.config["training"]), self._split()
        judged, known = judged_on(split, None if part is None else part.part, bool(config.refit_share))
        named = {} if beside is None else beside
        if not isinstance(named, Mapping) or not all(isinstance(run, VariationalAttention) for run in named.values()):
            raise InputError("beside needs models by name, such as beside={'twin': variseq.load('runs/twin')}.")
        runs = [(Forecast.name, self), *named.items()]
        rivals = [Rival(name, run._fitted(), run._forecast()) for name, run in runs]
        forecasts = named_forecasts(rivals, split[1], dropout)
        recommenders = [*forecasts, *yardsticks(checkpoint.vocabulary.num_items, known)]
        refuse_same_names(recommenders)
        categories = None if checkpoint.items is None else checkpoint.items.all_categories()
        options = EvaluationOptions(k, targets, self._excludes(exclude_seen), learned.repeat_share, categories)
        evaluations = [evaluate(recommender, judged, options) for recommender in recommenders]
        # Thresholds are those of the way of ranking that they were learned with.
        thresholds = learned.thresholds if options.exclude_seen == config.exclude_seen else None
        values = forecast_values(checkpoint.network, judged, targets)
        return Results(evaluations, values, groups, thresholds, len(forecasts) - 1)

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
        (90 % of what the user may be like by the belief), title, because (the earlier items without which it
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
        """The output vectors of all items: item_id, title, vector (float32 of fixed width) and bias.

        The network's logit of an item is the inner product of a user's vector with the item's, plus the bias. The
        cosine of two item vectors is the score of `similar_items`.
        """
        checkpoint = self._fitted()
        return item_table(checkpoint.network, checkpoint.vocabulary, checkpoint.items)

    def user_vectors(self, users: Sequence[Id] | None = None) -> pa.Table:
        """The preference of users after their latest event, at the mean of the belief: user_id and vector.

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

    def _forecast(self) -> Forecast:
        checkpoint = self._fitted()
        return Forecast(checkpoint.network, Memory.from_state(checkpoint.memory), self._learned().calibration)

    def _answers(self) -> Answers:
        checkpoint = self._fitted()
        learned = self._learned()
        lists = Lists(self._forecast(), learned)
        wishes = Wishes(checkpoint.vocabulary, checkpoint.items, learned.repeat_share, self._excludes(None))
        return Answers(lists, wishes, checkpoint.histories, checkpoint.usual_behaviour)

    def _user_tables(self, users: Sequence[Id] | None) -> Iterator[pa.Table]:
        checkpoint = self._fitted()
        chosen = None if users is None else id_list(users, "users")
        return user_tables(checkpoint.network, checkpoint.vocabulary, checkpoint.histories, chosen)

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
        training = training_config(properties, network, self.seed, self.training)
        refuse_unreachable_rate(network, training)
        links = train.items.category_links() if train.items is not None and training.use_categories else None
        return Settings(network, training, links if links is not None and links.num_categories else None)


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
