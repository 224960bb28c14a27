"""Puts the files of the bench against rivals where tests can import them, as its own scripts do."""

from __future__ import annotations

import sys
from pathlib import Path

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
if str(PEERS) not in sys.path:
    sys.path.insert(0, str(PEERS))
