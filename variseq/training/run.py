"""A split log and settings into a trained network: starting, resuming and finishing a run."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from variseq.errors import CollapseWarning, InputError
from variseq.evaluation.splits import Part
from variseq.model.network import Network, NetworkConfig
from variseq.training.display import Display
from variseq.training.metrics_file import MetricsFile, TensorBoardFile
from variseq.training.settings import TrainingConfig
from variseq.training.temperature import best_temperature
from variseq.training.trainer import Trainer, TrainingData
from variseq.training.validation import Validation


@dataclass(frozen=True)
class Settings:
    """What decides the result of a run."""

    network: NetworkConfig
    training: TrainingConfig


@dataclass(frozen=True)
class Workplace:
    """Where and how a run works: on a device, with its state in `folder` (kept in memory only where None)."""

    device: torch.device
    display: Display
    folder: Path | None = None
    resume: bool = False
    tensorboard: bool = False


@dataclass(frozen=True)
class Trained:
    """The best network, its temperature, the record of each epoch, and the seconds it took."""

    network: Network
    temperature: float
    metrics: list[dict[str, Any]]
    seconds: float


def train_network(train: Part, valid: Part, settings: Settings, workplace: Workplace) -> Trained:
    """Train on what the training part knows, choose the best epoch on the validation part.

    Warns with CollapseWarning when the chosen network does not use its latent. Raises InputError when the folder holds
    an unfinished run and `resume` was not asked for, or when that run was made with other settings or data.
    """
    begun = time.monotonic()
    torch.manual_seed(settings.training.seed)
    network = Network(settings.network)
    known = train.known()
    values = known.value[np.isfinite(known.value)]
    if settings.network.has_values and len(values):
        network.embedding.set_value_scale(float(values.mean()), float(values.std()))
    network.to(workplace.device)
    validation = Validation(valid, settings.training.validation_users, seed=settings.training.seed)
    trainer = Trainer(network, TrainingData(known, validation), settings.training, workplace.folder)
    metrics: list[dict[str, Any]] = []
    recorders: list[Callable[[dict[str, Any]], None]] = [metrics.append]
    if workplace.folder is not None:
        _open_folder(workplace.folder, workplace.resume, _fingerprint(settings, train))
        if workplace.resume and (workplace.folder / "state.safetensors").exists():
            trainer.resume()
        metrics_file = MetricsFile(workplace.folder / "metrics.jsonl", trainer.progress.epoch)
        metrics.extend(metrics_file.kept)
        recorders.append(metrics_file)
        if workplace.tensorboard:
            recorders.append(TensorBoardFile(workplace.folder / "tensorboard"))
    trainer.run(recorders, workplace.display)
    _warn_of_collapse(metrics, trainer.progress.best_epoch)
    return Trained(network, best_temperature(network, valid), metrics, time.monotonic() - begun)


def _open_folder(folder: Path, resume: bool, fingerprint: dict[str, Any]) -> None:
    described = folder / "settings.json"
    if resume:
        if not described.exists():
            raise InputError(f"There is no unfinished run in {folder}. Start it without --resume.")
        before = json.loads(described.read_text(encoding="utf-8"))
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
        partial = folder / "settings.json.partial"
        partial.write_text(json.dumps(fingerprint, indent=2), encoding="utf-8")
        os.replace(partial, described)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"The run folder {folder} cannot be made: {error.strerror or error}.") from error


def _fingerprint(settings: Settings, train: Part) -> dict[str, Any]:
    flat = {f"model.{key}": value for key, value in settings.network.model_dump().items()}
    flat |= {f"training.{key}": value for key, value in settings.training.model_dump().items()}
    return flat | {"data.split_hash": train.protocol["split_hash"]}


def _warn_of_collapse(metrics: list[dict[str, Any]], best_epoch: int) -> None:
    chosen = next((record for record in metrics if record["epoch"] == best_epoch), metrics[-1])
    if chosen["alarms"]:
        warnings.warn(
            f"The posterior has collapsed: {'; '.join(chosen['alarms'])}. Lower training.beta, raise "
            "training.target_rate, or set model.mean_scale.",
            CollapseWarning,
            stacklevel=4,
        )
