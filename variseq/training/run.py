"""Starts, resumes and finishes a training run: network, folder, best epoch and refits."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from variseq.atomic import atomic_write
from variseq.errors import InputError, PosteriorCollapseWarning
from variseq.evaluation.splits import Part
from variseq.events.items import CategoryLinks
from variseq.model.network import Network, NetworkConfig
from variseq.sequences.histories import Histories
from variseq.training.callbacks import MetricsFile, TensorBoardFile, TrainingCallback
from variseq.training.config import TrainingConfig
from variseq.training.diagnosis import diagnose, flat_settings
from variseq.training.refit import refit
from variseq.training.trainer import STATE, Trainer, TrainingData, Validation
from variseq.training.warm_start import Start, take_over


@dataclass(frozen=True)
class Settings:
    """The settings that determine the result of a run; `links` are the categories of items, `start` is a warm start."""

    network: NetworkConfig
    training: TrainingConfig
    links: CategoryLinks | None = None
    start: Start | None = None


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
    for recommendations: `chosen`, or the result of the refits.
    """

    chosen: Network
    network: Network
    metrics: list[dict[str, Any]]
    seconds: float


def train_network(train: Part, valid: Part, settings: Settings, context: RunContext) -> Trained:
    """Train on the training part, choose the best epoch on the validation part, then refit on both.

    The caller's random generators are not changed. Warns with PosteriorCollapseWarning when the chosen network does not
    use its latent. Raises InputError for a folder with an unfinished run without `resume`, or with other settings or
    data.
    """
    _refuse_other_parts(train, valid)
    with own_random_numbers(context.device):
        return _train(train, valid, settings, context)


@contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """Restore the random generators of torch at the end."""
    seeds_gpus = device.type == "cuda" or torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if seeds_gpus else []):
        yield


def _train(train: Part, valid: Part, settings: Settings, context: RunContext) -> Trained:
    known = train.history()
    network = new_network(settings, known).to(context.device)
    validation = Validation(valid, settings.training)
    later = settings.training.num_refits * settings.training.refit_epochs
    trainer = Trainer(network, TrainingData(known, validation), settings.training, context.folder, later)
    callbacks: list[TrainingCallback] = []
    with _run_folder(context, _fingerprint(settings, train)) as folder:
        if folder is not None:
            if (folder / STATE).exists():
                trainer.resume()
            metrics_file = MetricsFile(folder / "metrics.jsonl", trainer.progress.epoch)
            trainer.records.extend(metrics_file.kept)
            callbacks.append(metrics_file)
            if context.tensorboard:
                callbacks.append(TensorBoardFile(folder / "tensorboard"))
        trainer.run([*callbacks, context.callback])
        _warn_of_collapse(trainer.records, settings)
        chosen = copy.deepcopy(network.folded()) if settings.training.refit_fraction else network.folded()
        seconds = trainer.progress.total_seconds
        if settings.training.refit_fraction:
            going_on = settings.training.model_copy(update={"beta": trainer.progress.beta})
            refit_folder = None if folder is None else folder / "refit"
            seconds += refit(network, valid.history_with_targets(), going_on, refit_folder, context.callback)
    return Trained(chosen, network.folded(), trainer.records, seconds)


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
    values = known.value[np.isfinite(known.value)]
    if settings.network.has_values and len(values):
        network.embedding.set_value_scale(float(values.mean()), float(values.std()))
    if settings.start is not None:
        take_over(network, settings.start)
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
def _run_folder(context: RunContext, fingerprint: dict[str, Any]) -> Iterator[Path | None]:
    """The folder of an unfinished run, if any; it is removed when the run fails before its first state."""
    folder = context.folder
    if folder is not None:
        _open_folder(folder, context.resume, fingerprint)
    try:
        yield folder
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
        "earlier run": None if start is None else _digest(*weights),
    }


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _warn_of_collapse(metrics: list[dict[str, Any]], settings: Settings) -> None:
    found = diagnose(metrics, flat_settings(settings.network.model_dump(), settings.training.model_dump()))
    if not found.is_used:
        warnings.warn(found.paragraph(), PosteriorCollapseWarning, stacklevel=4)


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
