"""A simulation in, the Recommender that knows its rules out: nobody who sees the same histories can do better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from variseq.events.simulate import BEHAVIORS, Simulation
from variseq.sequences.histories import Histories


class Oracle:
    """The true log probabilities, with a vocabulary's numbers on the outside.

    `item_ids` and `behaviors` are the vocabulary's, in its order. Items of the simulation that the vocabulary lacks
    get no score, so the probabilities of a vocabulary that is not complete sum to less than 1.
    """

    name = "oracle"
    gives_probabilities = True

    def __init__(self, simulation: Simulation, item_ids: Sequence[str], behaviors: Sequence[str]) -> None:
        number = {item_id: item for item, item_id in enumerate(simulation.item_ids())}
        self._simulation = simulation
        self._item = np.array([number[item_id] for item_id in item_ids])
        self._behavior = np.array([BEHAVIORS.index(behavior) for behavior in behaviors])

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        log_probability = self._simulation.log_probabilities(
            histories.offsets,
            self._item[histories.item],
            histories.timestamp,
            self._behavior[histories.behavior],
        )
        return torch.from_numpy(log_probability[:, self._item].astype(np.float32))
