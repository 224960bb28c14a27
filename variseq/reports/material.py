"""A fitted model into what its report is made of: the evaluation, counts and names, gathered once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.evaluation.results import Results
from variseq.model.checkpoint import Checkpoint

NO_TEST = "The run was fitted without a test part, so there is nothing to judge it on."
NO_HISTORIES = "The run was saved without histories, so there is nothing to evaluate on and no user to show."


@dataclass(frozen=True, eq=False)
class Material:
    """`train_count` is None for a run without histories, `results` also for one without a test part.

    `categories` is None where no item has one.
    """

    model: VariationalAttention
    checkpoint: Checkpoint
    k: int
    names: list[str]
    categories: list[tuple[str, ...]] | None
    results: Results | None
    train_count: Int[np.ndarray, " item"] | None

    @property
    def why_no_results(self) -> str:
        return NO_HISTORIES if self.train_count is None else NO_TEST


def gather(model: VariationalAttention, k: int) -> Material:
    """Evaluates the model and its baselines on the test part, if the run has one.

    Raises InputError when the model is not fitted, or k does not fit the catalog.
    """
    checkpoint = model.checkpoint
    if checkpoint is None:
        raise InputError("The model is not fitted, so there is nothing to report. Call fit, or load a run.")
    num_items = checkpoint.vocabulary.num_items
    if not 1 <= k <= num_items:
        raise InputError(f"k={k} is not possible. Allowed: 1 to {num_items}, the size of the catalog.")
    categories = None if checkpoint.items is None else checkpoint.items.all_categories()
    results, train_count = None, None
    if checkpoint.histories is not None and checkpoint.bounds is not None:
        if checkpoint.manifest["protocol"]["num_test_events"]:
            results = model.evaluate(k=k)
        trained = checkpoint.histories.select(checkpoint.histories.offsets[:-1], checkpoint.bounds[0])
        train_count = np.bincount(trained.item, minlength=num_items)
    return Material(model, checkpoint, k, _names(checkpoint), categories, results, train_count)


def _names(checkpoint: Checkpoint) -> list[str]:
    """The title of each item, its id where there is none."""
    every = range(checkpoint.vocabulary.num_items)
    ids = checkpoint.vocabulary.item_ids(every)
    titles = [None] * len(ids) if checkpoint.items is None else checkpoint.items.titles(every)
    return [title or str(item_id) for item_id, title in zip(ids, titles, strict=True)]
