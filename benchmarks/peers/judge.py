"""Lists of recommended item ids into test NDCG@10 and HR@10 with intervals, the same for every system."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from measure import K, Lists
from sequences import Sequences

from variseq.evaluation.bootstrap import mean_interval
from variseq.evaluation.metrics import ndcg, recall


def judge(lists: Lists, sequences: Sequences) -> dict[str, Any]:
    """Means over users and 95 % bootstrap intervals, and what had to be put right in the lists.

    Items of the user's own history are no candidates: they are struck out and what stands below moves up. A target that
    never occurs in training is a miss, as in `variseq.evaluation`; so is a user without a list.
    """
    trained = Counter(item for history in sequences.train.values() for item in history)
    users = np.array(list(sequences.test))
    rank = np.full(len(users), np.inf)
    num_with_seen = num_short = 0
    for place, user in enumerate(sequences.test):
        given = lists.get(user, [])
        seen, target = set(sequences.before_test[user]), sequences.test[user]
        kept = [item for item in dict.fromkeys(given) if item not in seen][:K]
        num_with_seen += any(item in seen for item in given)
        num_short += len(kept) < K
        if target in kept and trained[target]:
            rank[place] = kept.index(target) + 1
    result: dict[str, Any] = {"num_users": len(users), "lists_with_seen_items": num_with_seen, "lists_short": num_short}
    for name, values in (("ndcg", ndcg(rank, K)), ("hit_rate", recall(rank, K))):
        result[name] = float(values.mean())
        result[f"{name}_interval"] = list(mean_interval(users, values))
    return result
