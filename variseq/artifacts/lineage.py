"""Which earlier runs the weights of a run began with (`fit --from`), by the SHA-256 of those weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save

from variseq.artifacts.checkpoint import Checkpoint, load_checkpoint
from variseq.artifacts.folder import HISTORIES, MANIFEST, WEIGHTS, Manifest, needs_refit, read_manifest
from variseq.errors import CheckpointError

STARTED_FROM = "started_from"
"""In the manifest: the weights of the run that it began with, of the run before that, and so on."""
REPLACES = "replaces"
"""In the manifest: the weights that the run had before it was fitted again, the latest first."""


def weights_digest(checkpoint: Checkpoint) -> str:
    """The SHA-256 of the weights, as the manifest of its folder has it."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.network.state_dict().items()}
    return hashlib.sha256(save(state)).hexdigest()


def started_from(earlier: Checkpoint) -> dict[str, list[str]]:
    """What the manifest of a run has where it began with an earlier one."""
    return {STARTED_FROM: [weights_digest(earlier), *earlier.manifest.get(STARTED_FROM, [])]}


def replaces(before: Checkpoint) -> dict[str, list[str]]:
    """What the manifest of a run has where it is a fit of another one again."""
    return {REPLACES: [weights_digest(before), *before.manifest.get(REPLACES, [])]}


def weights_of(manifest: Manifest) -> set[str]:
    """The weights that a run has, and those that it had."""
    return {str(one) for one in (manifest.get("sha256", {}).get(WEIGHTS), *manifest.get(REPLACES, [])) if one}


def begins_elsewhere(manifest: Manifest, known: set[str]) -> bool:
    """Whether a run began with one whose weights are not among these."""
    return bool(manifest.get("is_warm_start")) and not known >= set(manifest.get(STARTED_FROM, [""]))


def earlier_run(manifest: Manifest, roots: Sequence[Path]) -> Checkpoint | None:
    """The run with histories below some folders that another one began with; one that needs no refit where there is.

    None for a run that began with none, and where the run is not found.
    """
    found: list[tuple[bool, Path]] = []
    for path in (path for root in roots for path in sorted(root.rglob(MANIFEST)) if manifest.get(STARTED_FROM)):
        try:
            other = read_manifest(path.parent)
        except CheckpointError:
            continue
        is_run = HISTORIES in other.get("sha256", {}) and not path.parent.name.startswith(".")
        if is_run and manifest[STARTED_FROM][0] in weights_of(other):
            found.append((needs_refit(other), path.parent))
    return load_checkpoint(min(found)[1]) if found else None
