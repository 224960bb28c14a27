"""A simulated clinic: visits of people, each with conditions that a visit holds with a known probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

NUM_CHRONIC, NUM_ACUTE = 60, 40
ACUTE_EACH_VISIT = 1.0
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Clinic:
    """The events in random order inside visits, and how likely each person has each item in a visit."""

    events: pa.Table
    probability: np.ndarray

    def recall(self, user: np.ndarray, holds: np.ndarray, k: int) -> float:
        """The mean recall over visits of the list that is best by the true probabilities."""
        best = np.argsort(-self.probability[user], axis=1, kind="stable")[:, :k]
        return float((np.take_along_axis(holds, best, axis=1).sum(axis=1) / holds.sum(axis=1)).mean())


def clinic(num_people: int = 300, num_visits: int = 8, seed: int = 0) -> Clinic:
    """Each person has five conditions, each in a visit with its own probability, and acute ones that anybody gets."""
    generator = np.random.default_rng(seed)
    probability = np.zeros((num_people, NUM_CHRONIC + NUM_ACUTE))
    share = generator.dirichlet(np.ones(NUM_ACUTE))
    probability[:, NUM_CHRONIC:] = 1 - np.exp(-ACUTE_EACH_VISIT * share)
    for person in range(num_people):
        own = generator.choice(NUM_CHRONIC, 5, replace=False)
        probability[person, own] = [0.95, 0.9, 0.8, 0.6, 0.4]
    person, visit, item = np.nonzero(
        generator.random((num_people, num_visits, probability.shape[1])) < probability[:, None]
    )
    begin = 1_600_000_000 + DAY_SECONDS * (
        30 * visit + generator.integers(0, 20, (num_people, num_visits))[person, visit]
    )
    order = generator.permutation(len(item))
    columns = {
        "user_id": person,
        "item_id": item,
        "timestamp": begin + generator.integers(0, 3_600, len(item)),
        "encounter": [f"p{one}v{number}" for one, number in zip(person, visit, strict=True)],
    }
    return Clinic(pa.table({name: pa.array(column).take(order) for name, column in columns.items()}), probability)
