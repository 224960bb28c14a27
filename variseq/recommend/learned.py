"""What validation taught about forecasts into the record of a run, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from variseq.errors import CheckpointError
from variseq.ranking.calibration import Calibration, ConformalThresholds


@dataclass(frozen=True, eq=False)
class Learned:
    """Calibration, thresholds of conformal sets, and the counted share of repeats; `found` is what it came to there."""

    calibration: Calibration
    thresholds: ConformalThresholds
    repeat_share: float
    found: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As it is written into the manifest."""
        return {
            "calibration": self.calibration.to_json(),
            "conformal": self.thresholds.to_json(),
            "repeat_share": self.repeat_share,
            "found": self.found,
        }

    @classmethod
    def of_manifest(cls, manifest: dict[str, Any], folder: Path | str) -> Learned:
        """The inverse of `to_json`, out of a manifest. Raises CheckpointError when it is not there or damaged."""
        try:
            record = manifest["forecast"]
            return cls(
                Calibration.from_json(record["calibration"]),
                ConformalThresholds.from_json(record["conformal"]),
                float(record["repeat_share"]),
                dict(record["found"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The run in {folder} is damaged or was made by an older release (manifest.json, forecast: {error}). "
                "Restore the folder from a copy, or fit again."
            ) from error
