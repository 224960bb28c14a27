"""Starts, resumes and finishes a training run: network, folder, best epoch and refits."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from variseq.atomic import atomic_write
from variseq.content.item_content import ItemContent
from variseq.errors import InputError, PosteriorCollapseWarning
from variseq.evaluation.splits import Part
from variseq.events.items import CategoryLinks
from variseq.model.network import Network, NetworkConfig
from variseq.model.processes import process_index
from variseq.ranking.new_items import NewItemVectors
from variseq.sequences.histories import Histories
from variseq.training.callbacks import MetricsFile, TensorBoardFile, TrainingCallback
from variseq.training.config import TrainingConfig
from variseq.training.diagnosis import diagnose, flat_settings, is_deterministic
from variseq.training.new_items import folded_with_new_items
from variseq.training.state import load_network, network_tensors
from variseq.training.trainer import STATE, Trainer, Validation
from variseq.training.warm_start import Start, take_over

SEEDS_APART = 1_000_003
"""Between the seeds of refits, so that no refit has the seed of a run with a neighboring seed."""


@dataclass(frozen=True)
class Settings:
    """The settings that determine the result of a run.

    Args:
        network: The shape of the network.
        training: How it is trained.
        links: The categories of items.
        start: A warm start.
        content: The content vectors of items.
        encoder: What gave the content vectors.
        by_hand: The names of the settings of network and training that do not follow from the size and the log.
    """

    network: NetworkConfig
    training: TrainingConfig
    links: CategoryLinks | None = None
    start: Start | None = None
    content: Float[np.ndarray, "item content"] | None = None
    encoder: ItemContent | None = None
    by_hand: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RunContext:
    """The device, callback and folder of a run; without a `folder` there is no state to resume from."""

    device: torch.device
    callback: TrainingCallback
    folder: Path | None = None
    resume: bool = False
    tensorboard: bool = False


@dataclass(frozen=True)
class Trained:
    """Two networks, the record of each epoch, and the seconds of all epochs.

    `chosen` was trained on the training part and chosen on validation; it is used for calibration. `network` is used
    for recommendations: `chosen`, or the result of the refits; `new_item_vectors` gives its new items their vectors.
    """

    chosen: Network
    network: Network
    metrics: list[dict[str, Any]]
    seconds: float
    new_item_vectors: NewItemVectors | None


def train_network(train: Part, valid: Part, settings: Settings, context: RunContext) -> Trained:
    """Train on the training part, choose the best epoch on the validation part, then refit on both.

    The caller's random generators are not changed. Warns with PosteriorCollapseWarning when the chosen network does not
    use its latent. Raises InputError for a folder with an unfinished run without `resume`, or with other settings or
    data.
    """
    _refuse_other_parts(train, valid)
    config, device, folder = settings.training, context.device, context.folder
    if config.only_new_targets:
        train, valid = (replace(part, histories=_only_new_targets(part.histories)) for part in (train, valid))
    seeds_gpus = device.type == "cuda" or torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = range(torch.cuda.device_count()) if seeds_gpus else []
    with torch.random.fork_rng(devices=gpus), _run_folder(context, _fingerprint(settings, train)):
        known = train.history()
        network = new_network(settings, known).to(device)
        later = config.num_refits * config.refit_epochs
        trainer = Trainer(network, known, Validation(valid, config), config, folder, later)
        trainer.run([*_files(trainer, context), context.callback])
        _warn_of_collapse(trainer.records, settings)
        seconds = trainer.progress.total_seconds
        described = (() if settings.links is None else settings.links.names, settings.encoder)
        chosen, new_item_vectors = folded_with_new_items(network, known, config, *described)
        final = chosen
        if config.refit_fraction:
            chosen, latest = copy.deepcopy(chosen), valid.history_with_targets()
            going_on = config.model_copy(update={"beta": trainer.progress.beta})
            if is_deterministic(trainer.records):
                going_on = going_on.model_copy(update={"deterministic_fraction": 1.0})
            seconds += refit(network, latest, going_on, context)
            final, new_item_vectors = folded_with_new_items(network, latest, config, *described)
    return Trained(chosen, final, trainer.records, seconds, new_item_vectors)


def _only_new_targets(histories: Histories) -> Histories:
    are_new = histories.are_new()
    return replace(histories, is_target=are_new if histories.is_target is None else are_new & histories.is_target)


def _files(trainer: Trainer, context: RunContext) -> list[TrainingCallback]:
    """What writes the metrics; a run that is resumed gets the records of the epochs before."""
    if context.folder is None or process_index() > 0:
        return []
    metrics_file = MetricsFile(context.folder / "metrics.jsonl", trainer.progress.epoch)
    trainer.records.extend(metrics_file.kept)
    return [metrics_file, *([TensorBoardFile(context.folder / "tensorboard")] if context.tensorboard else [])]


def refit(network: Network, histories: Histories, config: TrainingConfig, context: RunContext) -> float:
    """Train `network` again with the validation events added, `config.num_refits` times; it becomes the mean of them.

    Each refit begins with the chosen network and has its own seed. The weights are averaged (Wortsman et al. 2022,
    "Model soups"). Noise is on from the first step, except for a deterministic run; β begins at `config.beta`; item
    vectors decay `config.refit_weight_decay_multiplier` times as much, as no validation shows overfitting. What each
    of these is worth is in docs/development/log.md. Returns the seconds of all refits.
    """
    noise = {"deterministic_fraction": 0.0, "kl_anneal_fraction": 0.0} if config.deterministic_fraction < 1 else {}
    decay = config.refit_weight_decay_multiplier * config.item_weight_decay
    of_refit = {"max_epochs": config.refit_epochs, "item_weight_decay": decay, **noise}
    network.set_known(histories)
    chosen, refitted, seconds = network_tensors("network", network), [], 0.0
    for number in range(config.num_refits):
        # The first refit has the seed of the run.
        again = config.model_copy(update={"seed": config.seed + number * SEEDS_APART, **of_refit})
        load_network("network", network, chosen)
        context.callback.on_refit(number, config.num_refits)
        folder = None if context.folder is None else context.folder / "refit" / str(number)
        later = (config.num_refits - 1 - number) * config.refit_epochs
        trainer = Trainer(network, histories, None, again, folder, later)
        trainer.run([context.callback])
        seconds += trainer.progress.total_seconds
        refitted.append(network_tensors("network", network))
    load_network("network", network, mean_of(refitted))
    return seconds


def mean_of(networks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor over networks; of counters, which have no mean, the first.

    >>> mean_of([{"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}])
    {'w': tensor([0.5000, 3.0000])}
    """
    return {
        name: torch.stack([network[name] for network in networks]).mean(dim=0) if first.is_floating_point() else first
        for name, first in networks[0].items()
    }


def new_network(settings: Settings, known: Histories) -> Network:
    """A network with random weights, or with those of an earlier run. Raises InputError for histories of one event."""
    if not (known.lengths >= 2).any():
        raise InputError(
            "No user has two events in the training part, so there is no order to learn from. Give a longer log, or "
            "another split."
        )
    torch.manual_seed(settings.training.seed)
    network = Network(settings.network)
    if settings.links is not None:
        network.embedding.use_categories(settings.links)
    if settings.content is not None:
        network.embedding.use_content(settings.content)
    values = known.value[np.isfinite(known.value)]
    if settings.network.has_values and len(values):
        is_two_valued = settings.network.value_loss == "logistic"
        low, size = (values.min(), np.ptp(values)) if is_two_valued else (values.mean(), values.std())
        network.embedding.set_value_scale(float(low), float(size))
    if settings.start is not None:
        take_over(network, settings.start)
    network.set_known(known)
    return network


def _refuse_other_parts(train: Part, valid: Part) -> None:
    # With parts of two splits, the best epoch would be chosen on training events.
    alike = train.protocol["split_hash"] == valid.protocol["split_hash"]
    if not alike or (train.name, valid.name) != ("train", "valid"):
        other = "" if alike else " of another log or split"
        raise InputError(
            f"fit was given a {train.name!r} part and a {valid.name!r} part{other}. "
            "Give the train and the valid part of one split: train, valid, test = log.split()."
        )


@contextmanager
def _run_folder(context: RunContext, fingerprint: dict[str, Any]) -> Iterator[None]:
    """The folder of an unfinished run, if any, is made or checked; it is removed when the run fails before a state."""
    # One process writes.
    folder = context.folder if process_index() == 0 else None
    if folder is not None:
        _open_folder(folder, context.resume, fingerprint)
    try:
        yield
    except BaseException as error:
        if folder is not None and not (folder / STATE).exists():
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise InputError(
                f"The run cannot be written to {folder}: {error}. Free some space, or choose another folder."
            ) from error
        raise


def _open_folder(folder: Path, resume: bool, fingerprint: dict[str, Any]) -> None:
    described = folder / "settings.json"
    if resume:
        if not described.exists():
            raise InputError(f"There is no unfinished run in {folder}. Start it without --resume.")
        try:
            before = json.loads(described.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"The unfinished run in {folder} is damaged: {described.name} cannot be read ({error}). Remove the "
                "folder and start again."
            ) from error
        different = sorted(key for key in fingerprint.keys() | before.keys() if fingerprint.get(key) != before.get(key))
        if different:
            raise InputError(
                f"The unfinished run in {folder} was made with other settings or data ({', '.join(different)}). "
                "Resume it with what it was started with, or remove the folder and start again."
            )
        return
    if folder.exists():
        raise InputError(f"{folder} holds an unfinished run. Go on with --resume, or remove the folder to start again.")
    try:
        folder.mkdir(parents=True)
        with atomic_write(described) as unfinished:
            unfinished.write_text(json.dumps(fingerprint, indent=2), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"The run folder {folder} cannot be made: {error.strerror or error}.") from error


def _fingerprint(settings: Settings, train: Part) -> dict[str, Any]:
    """The settings and digests of the data, which have to be equal when a run is resumed."""
    histories, links, start = train.histories, settings.links, settings.start
    weights = [] if start is None else [tensor.cpu().numpy() for tensor in start.network.state_dict().values()]
    return flat_settings(settings.network.model_dump(), settings.training.model_dump()) | {
        "data.split_hash": train.protocol["split_hash"],
        "data.events": _digest(histories.timestamp, histories.behavior, histories.value),
        "data.categories": None if links is None else _digest(links.offsets, links.category),
        "data.content": None if settings.content is None else _digest(settings.content),
        "earlier run": None if start is None else _digest(*weights),
    }


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _warn_of_collapse(metrics: list[dict[str, Any]], settings: Settings) -> None:
    if process_index() > 0:
        return
    found = diagnose(metrics, flat_settings(settings.network.model_dump(), settings.training.model_dump()))
    if not found.is_used:
        warnings.warn(found.paragraph(), PosteriorCollapseWarning, stacklevel=3)


def choose_device(name: str) -> torch.device:
    """The device "cpu", "cuda", or "auto" (a GPU if there is one). Raises InputError for one that is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"There is no device {name!r}. Allowed: 'auto', 'cpu', 'cuda'.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device='cuda' is not available: torch finds no GPU. Use device='auto', or install a CUDA build."
        )
    return torch.device(name)
