"""Puts the scripts of faults where tests can import them, as they import each other."""

from __future__ import annotations

import sys
from pathlib import Path

FAULTS = Path(__file__).parents[3] / "benchmarks" / "faults"
if str(FAULTS) not in sys.path:
    sys.path.insert(0, str(FAULTS))
