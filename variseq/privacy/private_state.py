"""The state of an unfinished private fit: what was released so far, and the network between two steps."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from variseq.atomic import atomic_write
from variseq.errors import CheckpointError, InputError
from variseq.privacy.accounting import Ledger
from variseq.privacy.private_steps import PrivateTraining
from variseq.privacy.release import PrivacyOptions, Release

STATE = "state.safetensors"
FORMAT_VERSION = 1
SECONDS_APART = 60.0
"""At least so long after a writing the next one follows."""


@dataclass(eq=False)
class PrivateState:
    """The file with the state of a private fit. It holds nothing of the log but what was released with its noise.

    Each mechanism is run once. A fit that goes on takes the release from here, as a second one would cost as much
    again. Steps that were taken after the last writing are taken again: nobody has seen their sums.

    Args:
        folder: Where the state of an unfinished fit is.
        options: The budget of the fit.
        catalog: A digest of the public catalog.
        seconds_apart: See `save`.
    """

    folder: Path
    options: PrivacyOptions
    catalog: str
    seconds_apart: float = SECONDS_APART
    _written: float = 0.0

    @contextmanager
    def begun(self, resume: bool) -> Iterator[None]:
        """The folder of a new fit, or that of an unfinished one. It is removed where a new fit fails before a state.

        Raises:
            InputError: A new fit finds the state of an unfinished one, or the folder cannot be made.
        """
        if not resume:
            if self.folder.exists():
                raise InputError(
                    f"{self.folder} holds an unfinished private fit, whose release has spent its budget. Go on with "
                    "--resume. A new fit spends the budget once more: for one, remove the folder."
                )
            try:
                self.folder.mkdir(parents=True)
            except OSError as error:
                raise InputError(f"The folder {self.folder} cannot be made: {error.strerror or error}.") from error
        try:
            yield
        except BaseException:
            if not (self.folder / STATE).exists():
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def remove(self) -> None:
        """Remove the state of a fit that is written as a run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def save(self, released: Release, training: PrivateTraining) -> None:
        """Write the release and the training, whole or not at all; nothing soon after the last writing.

        Raises:
            InputError: The file cannot be written.
        """
        if self._written and time.monotonic() - self._written < self.seconds_apart:
            return
        tensors = {name: torch.from_numpy(getattr(released, name)) for name in ("popularity", "chosen", "pairs")}
        tensors |= {f"training.{name}": tensor for name, tensor in training.tensors().items()}
        of_release = {"kind": released.kind, "ledger": asdict(released.ledger)}
        metadata = {
            "format": str(FORMAT_VERSION),
            "fit": json.dumps(self._fit()),
            "release": json.dumps(of_release),
            "step": str(training.step),
        }
        try:
            with atomic_write(self.folder / STATE) as unfinished:
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, metadata)
        except (OSError, SafetensorError) as error:
            raise InputError(f"The state cannot be written to {self.folder}: {error}. Free some room.") from error
        self._written = time.monotonic()

    def load(self) -> tuple[Release, dict[str, Tensor], int]:
        """What `save` wrote: the release, the tensors of the training and the number of its steps.

        Raises:
            InputError: There is no state, or one of another catalog or other options.
            CheckpointError: The file is damaged, or of another version.
        """
        path = self.folder / STATE
        if not path.exists():
            raise InputError(f"There is no unfinished private fit in {self.folder}. Start it without --resume.")
        try:
            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
            if int(metadata["format"]) != FORMAT_VERSION:
                raise ValueError(f"format {metadata['format']}")
            before, of_release = (json.loads(metadata[name]) for name in ("fit", "release"))
            step = int(metadata["step"])
            popularity, chosen, pairs = (tensors[name].numpy() for name in ("popularity", "chosen", "pairs"))
            released = Release(popularity, chosen, pairs, of_release["kind"], Ledger.from_json(of_release["ledger"]))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"The state {path} cannot be read ({error}). Resume with the version that wrote it."
            ) from error
        fit = self._fit()
        if different := sorted(name for name in fit if fit[name] != before.get(name)):
            raise InputError(
                f"The unfinished private fit in {self.folder} was begun with other options ({', '.join(different)}). "
                "Resume it with what it was begun with."
            )
        prefix = "training."
        return released, {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}, step

    def _fit(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self.options))) | {"catalog": self.catalog}
