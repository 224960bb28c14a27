"""What validation taught about a network, as numbers: temperatures and the gate between its voices. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from variseq.evaluation.groups import LENGTH_EDGES, length_group

NUM_SAMPLES = 8
"""Samples of the posterior that a forecast is averaged over."""
NORMAL_90 = 1.645
"""How many standard deviations the central 90 % of a normal distribution reach to each side."""


@dataclass(frozen=True)
class Gate:
    """How much each of four voices is heard: the network, counted transitions, the trend, and "anything".

    Their shares are the softmax of 0 (the network) and, for each of the others, bias + certainty · log Z + spread ·
    mean log σ². The network is surer the larger its log-partition function log Z is (preferences have one length, so it
    grows only with how well they fit some items), and the narrower its posterior. The trend is what many take of late.
    "Anything" is alike for all items and changes no order; it says how often people do what nobody would have thought
    of.
    """

    transitions: tuple[float, float, float] = (-math.inf, 0.0, 0.0)
    trend: tuple[float, float, float] = (-math.inf, 0.0, 0.0)
    anything: tuple[float, float, float] = (-math.inf, 0.0, 0.0)

    def odds(self, log_mass: Any, log_variance: Any) -> list[Any]:
        """The log odds of each voice in the order above against the network, for arrays of any kind."""
        return [w[0] + w[1] * log_mass + w[2] * log_variance for w in astuple(self)]


@dataclass(frozen=True)
class Calibration:
    """What validation taught about a network: a temperature for each group of history lengths, and the gate.

    `num_samples` of the posterior are averaged over; 0 is the posterior mean alone.
    """

    num_samples: int = NUM_SAMPLES
    temperatures: tuple[float, ...] = (1.0,) * len(LENGTH_EDGES)
    gate: Gate = Gate()

    def to_json(self) -> dict[str, Any]:
        """As it is written into the manifest; the bias of a voice that is never heard is None."""
        gate = {name: [None if math.isinf(w) else w for w in weights] for name, weights in asdict(self.gate).items()}
        return {"num_samples": self.num_samples, "temperatures": list(self.temperatures), "gate": gate}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Calibration:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for a record that is not one."""
        gate = {}
        for name in asdict(Gate()):
            bias, certainty, spread = record["gate"][name]
            gate[name] = (-math.inf if bias is None else float(bias), float(certainty), float(spread))
        temperatures = tuple(float(value) for value in record["temperatures"])
        if len(temperatures) != len(LENGTH_EDGES) or not all(0 < value < math.inf for value in temperatures):
            raise ValueError(f"{len(LENGTH_EDGES)} positive temperatures are needed, not {temperatures}")
        return cls(int(record["num_samples"]), temperatures, Gate(**gate))

    def temperature(self, lengths: Int[np.ndarray, " history"]) -> Float[np.ndarray, " history"]:
        """The temperature of histories of these lengths."""
        return np.array(self.temperatures, dtype=np.float32)[length_group(lengths)]
