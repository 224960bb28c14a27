"""What has been learned from into the trivial recommenders that every model is judged beside."""

from __future__ import annotations

from variseq.evaluation.recommender import Recommender
from variseq.recommend.baselines import LastItemTransitions, Popular, RecentPopular
from variseq.recommend.item_knn import ItemKNN
from variseq.sequences.histories import Histories


def yardsticks(num_items: int, known: Histories) -> list[Recommender]:
    """Popular, recent-popular, last-item transitions and item-kNN, fitted on the same events as the model."""
    return [kind(num_items).fit(known) for kind in (Popular, RecentPopular, LastItemTransitions, ItemKNN)]
