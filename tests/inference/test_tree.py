"""Histories that share their beginnings are encoded as if each stood alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from variseq.inference.encoder import padded_batch, prefix_tree
from variseq.inference.engine import load_engine
from variseq.sequences.histories import Histories, without_items

ITEMS = st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=1, max_size=6)


@given(ITEMS, st.data())
def test_each_branch_sees_its_own_history_and_nothing_else(items: list[list[int]], data: st.DataObject) -> None:
    tokens = padded_batch(Histories.of_items(items), 7, num_items=5)
    rows = data.draw(st.lists(st.integers(0, 2), min_size=len(items), max_size=len(items)))
    row = np.unique(np.array(rows), return_inverse=True)[1]
    tree = prefix_tree(tokens, row)
    for history, length in enumerate(tokens.length.tolist()):
        place = tree.row[history]
        end = tree.query[place, tree.index[history]]
        distance = tree.distance[place, end]
        order = np.argsort(-distance, kind="stable")[:length]
        assert distance[order].tolist() == list(range(length - 1, -1, -1))
        assert (distance >= 0).sum() == length
        for name, column in tree.cells.items():
            np.testing.assert_array_equal(column[place, order], getattr(tokens, name)[history, :length])
        # What a seen token sees is what stood before it in this history.
        for query in range(length):
            seen = tree.distance[place, order[query]]
            assert sorted(np.flatnonzero(seen >= 0).tolist()) == sorted(order[: query + 1].tolist())


def test_what_is_shared_stands_in_a_row_once() -> None:
    tokens = padded_batch(Histories.of_items([list(range(20)), [*range(18), 19], list(range(19))]), 50, num_items=30)
    assert prefix_tree(tokens, np.zeros(3, dtype=np.int64)).distance.shape == (1, 22, 22)


def test_copies_encoded_together_are_as_each_alone(bundle_folder: Path) -> None:
    engine = load_engine(bundle_folder)
    generator = np.random.default_rng(3)
    items = [generator.integers(0, 12, size=length).tolist() for length in (1, 5, 19, 30)]
    context = Histories.of_items(items)
    source = np.repeat(np.arange(4), 3)
    dropped = generator.integers(0, 12, size=(12, 1))
    copies = context.joined(without_items(context, source, dropped))
    of = np.concatenate([np.arange(4), source])
    encoder = engine.model.encoder
    mean = engine.model.noise(0)
    together, alone = encoder.encode(copies, mean, of), encoder.encode(copies, mean)
    np.testing.assert_allclose(together.preference, alone.preference, atol=2e-6)
    np.testing.assert_allclose(together.log_variance, alone.log_variance, atol=2e-6)
