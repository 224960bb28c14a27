"""Clusters of content: what is near is together, and each has a central item of its own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from variseq.ranking.content_table import ContentTable


def test_groups_that_are_far_from_each_other_are_the_clusters() -> None:
    random = np.random.default_rng(1)
    group = random.permutation(np.repeat(np.arange(5), 20))
    rows = np.eye(12)[group] + 0.1 * random.normal(size=(100, 12))
    rows[7] = 0
    cluster, central = ContentTable.of(rows).clusters(np.arange(100), 5)
    assert cluster[7] == -1
    known = np.arange(100) != 7
    assert len({*zip(group[known].tolist(), cluster[known].tolist(), strict=True)}) == len(set(cluster[known])) == 5
    assert cluster[central].tolist() == [0, 1, 2, 3, 4]


@given(st.lists(st.sampled_from([(0, 0), (1, 0), (0, 1), (-1, 0), (3, 4)]), max_size=12), st.integers(1, 8))
def test_every_known_item_is_in_the_cluster_of_a_central_item(rows: list[tuple[int, int]], num_clusters: int) -> None:
    table, item = ContentTable.of(np.array([*rows, (1, 1)], np.float64)), np.arange(len(rows), -1, -1)
    cluster, central = table.clusters(item, num_clusters)
    assert ((cluster >= 0) == table.codes[item].any(axis=1)).all()
    assert 1 <= len(central) <= num_clusters
    of_item = dict(zip(item.tolist(), cluster.tolist(), strict=True))
    assert [of_item[one] for one in central.tolist()] == list(range(len(central)))
    again = table.clusters(item, num_clusters)
    assert (again[0] == cluster).all()
    assert (again[1] == central).all()
