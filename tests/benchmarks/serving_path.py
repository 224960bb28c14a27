"""Puts the folder of the serving benchmarks where its files find each other, as when they are run."""

from __future__ import annotations

import sys
from pathlib import Path

SERVING = Path(__file__).parents[2] / "benchmarks" / "serving"
sys.path.append(str(SERVING))
