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
from variseq.artifacts.folder import IMPROVEMENT
from variseq.content.item_content import ItemContent
from variseq.errors import InputError
from variseq.evaluation.external_log import num_trained_of
from variseq.evaluation.shown_lists import ShownLists
from variseq.evaluation.splits import Split, marked_targets, split_at
from variseq.events.coordinates import degrees_of
from variseq.events.report import utc_text
from variseq.events.vocabulary import Id, Vocabulary
from variseq.exposures.folder import hashed_user, read_key
from variseq.exposures.read import read_exposures
from variseq.exposures.rewards import RewardOptions
from variseq.exposures.taken import TakenEvents, taken_events
from variseq.log import LogPart
from variseq.ranking.calibration import NUM_SAMPLES, Calibration, CalibrationResult
from variseq.ranking.content_table import ContentTable
from variseq.ranking.mixture import SCORE_OFFSET, MixtureModel
from variseq.ranking.near_items import COORDINATES
from variseq.recommend.attributes import fit_attributes
from variseq.recommend.calibrate import calibrate
from variseq.recommend.list_offsets import ListOffsets, choose_list_offsets, fit_list_offsets, of_known_items
from variseq.recommend.network_model import CONTENT, count_events, mixture_model
from variseq.recommend.next_time import fit_next_time
from variseq.recommend.transfer import transferred
from variseq.recommend.values import calibrate_spread
from variseq.sequences.histories import Histories
from variseq.training.defaults import FROM_THE_LOG, LogProperties, Size, network_config, training_config
from variseq.training.diagnosis import chosen_epoch, is_deterministic
from variseq.training.run import RunContext, Settings, Trained, train_network
from variseq.training.schedule import refuse_unreachable_kl_target
from variseq.training.trainer import Validation
from variseq.training.warm_start import Start, refuse_other_shape, shape_of, warm_training

SHOWN_LISTS = "shown_lists"
"""What the manifest has of lists that were shown."""


def run_settings(
    train: LogPart,
    size: Size,
    seed: int = 0,
    model: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    earlier: Checkpoint | None = None,
) -> Settings:
    """The settings of a run, from the size, the training part and what is set by hand.

    Args:
        train: The training part of a split log.
        size: The size of the network, which other settings follow from.
        seed: Seed of everything random.
        model: Fields of `NetworkConfig` that are set by hand.
        training: Fields of `TrainingConfig` that are set by hand.
        earlier: The run that a warm start begins from; its shape is kept.

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
    return Settings(network, config, links, start, content, encoder, frozenset(model | training))


def joined_exposures(source: object, histories: Histories, vocabulary: Vocabulary) -> TakenEvents:
    """Exposures, and the events of a log that were taken from them.

    Args:
        source: A folder of `variseq serve --exposures`, or a table with a row for each item that was shown.
        histories: All events of the log.
        vocabulary: Its users and items.

    Raises:
        InputError: The exposures cannot be read, or not be joined to the log.
    """
    exposures, _ = read_exposures(source)
    name_of_user: Callable[[Id], str] = str
    if exposures.context is not None:
        path = Path(str(source))
        name_of_user = partial(hashed_user, read_key(path if path.is_dir() else path.parent))
    return taken_events(exposures, histories, vocabulary, RewardOptions().window_microseconds, name_of_user)


def fit(
    train: LogPart,
    valid: LogPart,
    size: Size,
    settings: Settings,
    context: RunContext,
    shown: TakenEvents | None = None,
) -> Checkpoint:
    """Train, refit and calibrate; learn offsets of items from lists that were shown.

    Args:
        train: The training part of a split log.
        valid: The validation part of the same split.
        size: The size that the settings follow from; it is written down.
        settings: See `run_settings`.
        context: Device, callback, and the folder of the unfinished run.
        shown: The lists that events of the log were taken from, see `joined_exposures`.

    Returns:
        The run, on the device that it was trained on.

    Raises:
        InputError: For parts of different splits, and for a folder that holds another unfinished run.
        TrainingDivergedError: When the loss is no number.
    """
    if shown is not None:
        _lists_of_parts(train, valid, shown)  # before a training that a mistake would waste
    trained = train_network(train.part, valid.part, settings, context)
    calibrate_spread(trained.chosen, trained.network, Validation(valid.part, settings.training).part)
    calibrated, counts, improvement = _calibrated(train, valid, settings, trained, shown)
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
        manifest=_manifest(train, settings, trained, calibrated) | improvement,
        config=config,
        metrics=trained.metrics,
    )


def _calibrated(
    train: LogPart, valid: LogPart, settings: Settings, trained: Trained, shown: TakenEvents | None
) -> tuple[CalibrationResult, dict[str, Tensor], dict[str, Any]]:
    """Calibrate the chosen network on validation, and transfer the result to the refitted one; with its counts."""
    config, content = settings.training, settings.content
    further = {} if content is None else {CONTENT: torch.from_numpy(ContentTable.of(content).codes)}
    if train.items is not None and (degrees := degrees_of(train.items.table, train.vocabulary.items)) is not None:
        further |= {} if np.isnan(degrees).all() else {COORDINATES: torch.from_numpy(degrees)}
    validation, known = Validation(valid.part, config), train.part.history()
    # A network that was trained without noise has no spread that means anything.
    num_samples = 0 if is_deterministic(trained.metrics) else NUM_SAMPLES
    counts = count_events(train.part.num_items, known) | further
    untuned = mixture_model(trained.chosen, counts, Calibration(num_samples))
    calibrated = calibrate(untuned, validation.part, validation.options, config.calendar)
    latest = valid.part.history_with_targets() if config.refit_fraction else known
    improvement: dict[str, Any] = {}
    if shown is not None:
        hurdle = calibrated.hurdle(config.exclude_seen)
        tuned = MixtureModel(untuned.encoder, untuned.tables, calibrated.calibration, hurdle)
        found, offset = list_offsets(tuned, train, valid, latest, shown, validation)
        improvement = {SHOWN_LISTS: str(found)}
        if offset is not None:
            improvement[IMPROVEMENT] = found.to_json()
            further[SCORE_OFFSET] = offset
    if train.users:
        tuned = MixtureModel(untuned.encoder, untuned.tables, calibrated.calibration)
        if (attributes := fit_attributes(train.users, tuned, valid.part, latest)) is not None:
            further |= {name: torch.from_numpy(array) for name, array in attributes.tensors().items()}
    if not config.refit_fraction:
        return calibrated, counts | further, improvement
    calibrated = transferred(calibrated, (trained.chosen, known), (trained.network, latest))
    return calibrated, count_events(train.part.num_items, latest) | further, improvement


def _lists_of_parts(
    train: LogPart, valid: LogPart, shown: TakenEvents
) -> tuple[ShownLists, tuple[ShownLists, Histories]]:
    """Lists to learn from, and lists to choose by with their histories. Raises InputError where a part has none."""
    part, histories = train.part, train.part.histories
    lists = of_known_items(shown.lists(histories.offsets[:-1], part.history_end)[0], part.history(), part.num_items)
    of_valid = shown.lists(valid.part.history_end, valid.part.target_end)
    if not len(lists) or not len(of_valid[0]):
        raise InputError(
            f"{len(lists):,} lists with a taken item and another are of the training part, and {len(of_valid[0]):,} of "
            "the validation part. Both are needed: give exposures of a longer time, or another split."
        )
    return lists, of_valid


def list_offsets(
    model: MixtureModel,
    train: LogPart,
    valid: LogPart,
    latest: Histories,
    shown: TakenEvents,
    validation: Validation,
) -> tuple[ListOffsets, Tensor | None]:
    """Offsets of items from shown lists, which validation chooses, and the tensor of them; None where there are none.

    Args:
        model: The calibrated model before a refit.
        train: The training part.
        valid: The validation part.
        latest: What the final model is trained on; after a refit lists of the validation part are learned from too.
        shown: See `joined_exposures`.
        validation: The queries that choose.

    Raises:
        InputError: A part has no list.
    """
    num_items, begin, end = train.part.num_items, train.part.histories.offsets[:-1], valid.part.target_end
    lists, of_valid = _lists_of_parts(train, valid, shown)
    found = choose_list_offsets(model, lists, of_valid, validation.part, validation.options)
    if found.chosen is None:
        return found, None
    if latest.num_events > train.part.history_end.sum() - begin.sum():
        lists = of_known_items(shown.lists(begin, end)[0], latest, num_items)
    offset = found.chosen.factor * fit_list_offsets(lists, num_items, found.chosen.strength)
    return found, torch.from_numpy(offset.astype(np.float32))


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
