"""One run from a split log: settings, training, calibration, refit and transfer; and what evaluation needs of a run."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from variseq.artifacts.checkpoint import Checkpoint
from variseq.content.item_content import ItemContent
from variseq.errors import InputError
from variseq.evaluation.external_log import num_trained_of
from variseq.evaluation.splits import Split, marked_targets, split_at
from variseq.events.coordinates import degrees_of
from variseq.events.report import utc_text
from variseq.events.vocabulary import Id, Vocabulary
from variseq.exposures.folder import hashed_user, read_key
from variseq.exposures.read import read_exposures
from variseq.exposures.rewards import RewardOptions
from variseq.exposures.table import Exposures
from variseq.exposures.taken import TakenEvents, taken_events
from variseq.log import LogPart
from variseq.ranking.calibration import NUM_SAMPLES, Calibration, CalibrationResult
from variseq.ranking.content_table import ContentTable
from variseq.ranking.mixture import MixtureModel
from variseq.ranking.near_items import COORDINATES
from variseq.recommend.attributes import fit_attributes
from variseq.recommend.calibrate import calibrate
from variseq.recommend.network_model import CONTENT, count_events, mixture_model
from variseq.recommend.next_time import fit_next_time
from variseq.recommend.transfer import transferred
from variseq.recommend.values import calibrate_spread
from variseq.sequences.histories import Histories
from variseq.sequences.shown_lists import ShownLists
from variseq.training.defaults import FROM_THE_LOG, LogProperties, Size, network_config, training_config
from variseq.training.diagnosis import chosen_epoch
from variseq.training.run import RunContext, Settings, Trained, train_network
from variseq.training.schedule import refuse_unreachable_kl_target
from variseq.training.trainer import Validation
from variseq.training.warm_start import Start, refuse_other_shape, shape_of, warm_training


def run_settings(
    train: LogPart,
    size: Size,
    seed: int = 0,
    model: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    earlier: Checkpoint | None = None,
    shown: ShownLists | None = None,
) -> Settings:
    """The settings of a run, from the size, the training part and what is set by hand.

    Args:
        train: The training part of a split log.
        size: The size of the network, which other settings follow from.
        seed: Seed of everything random.
        model: Fields of `NetworkConfig` that are set by hand.
        training: Fields of `TrainingConfig` that are set by hand.
        earlier: The run that a warm start begins from; its shape is kept.
        shown: The lists that events of the log were taken from, see `shown_lists`.

    Raises:
        InputError: For settings that do not fit the log or the earlier run.
    """
    model, training = model or {}, training or {}
    properties = LogProperties.of(train.part.history(), train.vocabulary)
    if earlier is not None and earlier.config["size"] != size:
        raise InputError(f"size={size!r} does not fit the earlier run. Give its size, {earlier.config['size']!r}.")
    network = network_config(size, properties, ({} if earlier is None else shape_of(earlier)) | model)
    config = training_config(properties, network, seed, training)
    if earlier is not None:
        refuse_other_shape(network, earlier.network.config)
        config = warm_training(config, earlier, training)
    refuse_unreachable_kl_target(network, config)
    links = train.items.category_links() if train.items is not None and config.use_categories else None
    links = links if links is not None and links.num_categories else None
    start = None if earlier is None else Start.of(earlier, train.vocabulary)
    content = encoder = None
    if train.items is not None and config.use_content:
        table, ids = train.items.table, train.vocabulary.items.to_pylist()
        # Items without training events are new ones, of which the fit may know nothing.
        is_known = np.bincount(train.part.history().item, minlength=len(ids)) > 0
        encoder = ItemContent.fit(table, is_known, ids=ids)
        content = None if encoder is None else encoder.encode(table, ids)
    return Settings(network, config, links, start, content, encoder, shown, frozenset(model | training))


def joined_exposures(source: object, histories: Histories, vocabulary: Vocabulary) -> tuple[Exposures, TakenEvents]:
    """Exposures, and the events of a log that were taken from them. Raises InputError where none can be joined.

    Args:
        source: A folder of `variseq serve --exposures`, or a table with a row for each item that was shown.
        histories: All events of the log.
        vocabulary: Its users and items.
    """
    exposures, _ = read_exposures(source)
    name_of_user: Callable[[Id], str] = str
    if exposures.context is not None:
        path = Path(str(source))
        name_of_user = partial(hashed_user, read_key(path if path.is_dir() else path.parent))
    return exposures, taken_events(exposures, histories, vocabulary, RewardOptions().window_microseconds, name_of_user)


def shown_lists(source: object, train: LogPart) -> tuple[ShownLists, list[str]]:
    """The lists that events of a log were taken from, and what became of the rows of the exposures, in sentences.

    Args:
        source: A folder of `variseq serve --exposures`, or a table with a row for each item that was shown.
        train: The training part of the log.

    Raises:
        InputError: The exposures cannot be read, or not be joined to the log.
    """
    histories = train.part.histories
    exposures, found = joined_exposures(source, histories, train.vocabulary)
    counts = ", ".join(f"{number:,} {outcome}" for outcome, number in found.rows.items() if number)
    in_training = found.lists.within(histories, train.part.history_end)
    num_without = len(found.lists.item) - len(in_training.item)
    return found.lists, [
        f"Exposures: {len(exposures):,} rows of {exposures.num_exposures:,} lists: {counts}.",
        f"{found.lists.num_lists:,} lists have a taken event, {in_training.num_lists:,} of them in training alone. "
        f"{num_without:,} rows that were not taken are of items without training events, and are left out.",
    ]


def fit(train: LogPart, valid: LogPart, size: Size, settings: Settings, context: RunContext) -> Checkpoint:
    """Train, refit and calibrate.

    Args:
        train: The training part of a split log.
        valid: The validation part of the same split.
        size: The size that the settings follow from; it is written down.
        settings: See `run_settings`.
        context: Device, callback, and the folder of the unfinished run.

    Returns:
        The run, on the device that it was trained on.

    Raises:
        InputError: For parts of different splits, and for a folder that holds another unfinished run.
        TrainingDivergedError: When the loss is no number.
    """
    trained = train_network(train.part, valid.part, settings, context)
    calibrate_spread(trained.chosen, trained.network, Validation(valid.part, settings.training).part)
    calibrated, counts = _calibrated(train, valid, settings, trained)
    is_refitted = bool(settings.training.refit_fraction)
    if (next_time := fit_next_time(train.part, valid.part, is_refitted, settings.training.seed)) is not None:
        counts |= {name: torch.from_numpy(array) for name, array in next_time.tensors().items()}
    if trained.new_item_vectors is not None:
        tensors = trained.new_item_vectors.tensors()
        counts |= {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
    config = {
        "size": size,
        "seed": settings.training.seed,
        "model": settings.network.model_dump(exclude=set(FROM_THE_LOG)),
        "training": settings.training.model_dump(),
    }
    return Checkpoint(
        network=trained.network.eval(),
        vocabulary=train.vocabulary,
        items=train.items,
        histories=replace(train.part.histories, is_target=None),
        bounds=np.stack([train.part.target_end, valid.part.target_end]),
        counts=counts,
        manifest=_manifest(train, settings, trained, calibrated),
        config=config,
        metrics=trained.metrics,
    )


def _calibrated(
    train: LogPart, valid: LogPart, settings: Settings, trained: Trained
) -> tuple[CalibrationResult, dict[str, Tensor]]:
    """Calibrate the chosen network on validation, and transfer the result to the refitted one; with its counts."""
    config, content = settings.training, settings.content
    further = {} if content is None else {CONTENT: torch.from_numpy(ContentTable.of(content).codes)}
    if train.items is not None and (degrees := degrees_of(train.items.table, train.vocabulary.items)) is not None:
        further |= {} if np.isnan(degrees).all() else {COORDINATES: torch.from_numpy(degrees)}
    validation, known = Validation(valid.part, config), train.part.history()
    # A network that was trained without noise has no spread that means anything.
    num_samples = NUM_SAMPLES if config.deterministic_fraction < 1 else 0
    counts = count_events(train.part.num_items, known) | further
    untuned = mixture_model(trained.chosen, counts, Calibration(num_samples))
    calibrated = calibrate(untuned, validation.part, validation.options, config.calendar)
    latest = valid.part.history_with_targets() if config.refit_fraction else known
    if train.users:
        tuned = MixtureModel(untuned.encoder, untuned.tables, calibrated.calibration)
        if (attributes := fit_attributes(train.users, tuned, valid.part, latest)) is not None:
            further |= {name: torch.from_numpy(array) for name, array in attributes.tensors().items()}
    if not config.refit_fraction:
        return calibrated, counts | further
    calibrated = transferred(calibrated, (trained.chosen, known), (trained.network, latest))
    return calibrated, count_events(train.part.num_items, latest) | further


def _manifest(train: LogPart, settings: Settings, trained: Trained, calibrated: CalibrationResult) -> dict[str, Any]:
    protocol = {key: value for key, value in train.part.protocol.items() if key != "part"}
    method = [
        key for key in protocol if key in ("method", "test", "valid", "targets_of") or key.endswith("_microseconds")
    ]
    report = train.report
    counts = {name: count for name, count in report.behaviors.items() if name not in report.low_behaviors}
    chosen = chosen_epoch(trained.metrics)
    return {
        "calibration": calibrated.to_json(),
        "usual_behavior": train.vocabulary.behaviors.index(max(counts, key=lambda name: counts[name])),
        "exclude_seen": settings.training.exclude_seen,
        "latent": {"posterior": chosen["health"], "alarms": chosen["alarms"]},
        "protocol": protocol,
        "split_params": method,
        "is_warm_start": settings.start is not None,
        "set_by_hand": sorted(settings.by_hand),
        "log": report.to_json(),
        "seconds": round(trained.seconds, 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("variseq", "torch", "numpy")},
        "hardware": {"machine": platform.machine(), "threads": torch.get_num_threads()},
    }


def split_of(checkpoint: Checkpoint) -> Split:
    """The training, validation and test part of a run. Raises InputError for one saved without histories."""
    if checkpoint.histories is None or checkpoint.bounds is None:
        raise InputError("This run was saved without histories, so there is nothing to evaluate on.")
    method = {key: checkpoint.manifest["protocol"][key] for key in checkpoint.manifest["split_params"]}
    vocabulary = checkpoint.vocabulary
    histories = marked_targets(checkpoint.histories, vocabulary.behaviors, method.get("targets_of"))
    return split_at(histories, checkpoint.bounds[0], checkpoint.bounds[1], vocabulary.num_items, method)


def refuse_leak(earlier: Checkpoint, train: LogPart, valid: LogPart) -> None:
    """Raises InputError where an earlier run has learned from a test part's events or from people who were erased.

    Warns where it has learned from a validation part's events.
    """
    if earlier.needs_refit:
        raise InputError(
            "The earlier run has learned from people who were erased since, and a run that starts from it would too. "
            "Fit it again first: variseq erase --refit"
        )
    if earlier.histories is None:
        warnings.warn(
            "The earlier run was saved without histories. Whether it has learned from events of the validation or "
            "the test part cannot be seen.",
            UserWarning,
            stacklevel=3,
        )
        return
    trained = split_of(earlier)[2 if earlier.is_refitted else 0].history()
    in_valid, in_test = num_trained_of(valid.part, train.vocabulary, trained, earlier.vocabulary)
    until = utc_text(int(trained.timestamp.max()))
    if in_test:
        raise InputError(
            f"The earlier run has learned from {in_test:,} events of the test part, whose figures would be too good: "
            f"its events go on until {until}. Split with a later test part, or with test='none'."
        )
    if in_valid:
        warnings.warn(
            f"The earlier run has learned from {in_valid:,} events of the validation part. Its figures are too good, "
            f"and so are the probabilities that are calibrated on it. Let validation begin after {until} (valid).",
            UserWarning,
            stacklevel=3,
        )
