"""A finished run into the record that says how it was made."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from variseq.errors import CheckpointError


def run_manifest(
    protocol: dict[str, Any], log: dict[str, Any], seconds: float, forecast: dict[str, Any]
) -> dict[str, Any]:
    """Protocol of the split, record of the reading, and what was chosen on validation; can be written as JSON."""
    protocol = {key: value for key, value in protocol.items() if key != "part"}
    method = [key for key in protocol if key in ("method", "targets_of") or key.endswith("_microseconds")]
    return {
        "forecast": forecast,
        "protocol": protocol,
        "split_method": method,
        "log": log,
        "seconds": round(seconds, 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("variseq", "torch", "numpy")},
        "hardware": {"machine": platform.machine(), "threads": torch.get_num_threads()},
    }


def refuse_incomplete(manifest: dict[str, Any], folder: Path | str) -> None:
    """Raises CheckpointError for a manifest without what `run_manifest` wrote."""
    try:
        dict(manifest["log"]["behaviors"])
        [manifest["protocol"][key] for key in manifest["split_method"]]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The run in {folder} is damaged (manifest.json: {error}). Restore the folder from a copy, or fit again."
        ) from error
