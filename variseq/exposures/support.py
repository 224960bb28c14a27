"""What propensities allow to conclude of other policies than the one that made the lists."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from variseq.exposures.table import Exposures

FEW = 100
"""Below this effective sample size nothing is concluded."""


@dataclass(frozen=True)
class Support:
    """Of the rows that were not pinned.

    Args:
        num_rows: How many there are.
        num_known: How many have a propensity at their rank that is possible.
        smallest: The smallest propensity; NaN where none is known.
        is_deterministic: Whether all known propensities are 1.
        uniform_weight: Mean weight (probability of a uniform policy over the same items, by the propensity). It is 1
            where every item could be listed, and less where some could not.
        standard_error: Of that mean, over lists.
        effective_sample: (Σw)² / Σw² of these weights (Kish, 1965).
        num_contradicting: Rows at the first rank that are less probable in the list than at that rank.
    """

    num_rows: int
    num_known: int
    smallest: float
    is_deterministic: bool
    uniform_weight: float
    standard_error: float
    effective_sample: float
    num_contradicting: int


def support(exposures: Exposures) -> Support:
    """The support of exposures; a propensity that is impossible counts as unknown.

    A uniform policy draws among the items of the pool, or among all items of the table, without those above.
    """
    is_possible = (exposures.propensity_at_rank > 0) & (exposures.propensity_at_rank <= 1)
    known = ~exposures.is_pinned & is_possible
    propensity, of_list = exposures.propensity_at_rank[known], exposures.row_exposure[known]
    above = np.arange(len(exposures)) - exposures.offsets[exposures.row_exposure]
    num_items = np.full(exposures.num_exposures, len(exposures.item_ids))
    if exposures.context is not None:
        pools = [context["policy"].get("pool", len(exposures.item_ids)) for context in exposures.context]
        num_items = np.minimum(num_items, np.array(pools, dtype=np.int64))
    left = np.maximum(num_items[of_list] - above[known], 1)
    weight = 1 / (propensity * left)
    num_lists = len(np.unique(of_list))
    mean = math.nan if not len(weight) else float(weight.mean())
    of_lists = np.bincount(of_list, weight - mean, minlength=1) if len(weight) else np.zeros(1)
    error = math.sqrt((of_lists**2).sum()) / len(weight) if num_lists > 1 else math.nan
    contradicts = exposures.propensity_in_list[known] < propensity * (1 - 1e-6)
    return Support(
        num_rows=int((~exposures.is_pinned).sum()),
        num_known=len(propensity),
        smallest=float(propensity.min()) if len(propensity) else math.nan,
        is_deterministic=bool(len(propensity)) and bool((propensity == 1).all()),
        uniform_weight=mean,
        standard_error=error,
        effective_sample=float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0,
        num_contradicting=int((contradicts & (exposures.rank[known] == 1)).sum()),
    )


def conclusions(exposures: Exposures, found: Support) -> list[str]:
    """What can be concluded from exposures, and what cannot, in sentences."""
    sentences = []
    if not found.num_known:
        sentences.append(
            "There are no propensities: only the mean reward of the policy that made these lists can be estimated, and "
            "no other policy. Propensities cannot be had afterwards: serve with strategy softmax and --exposures, or "
            "log the probability of each choice."
        )
    elif found.is_deterministic:
        sentences.append(
            "All propensities are 1: the policy is deterministic, and nothing can be concluded of any other. Serve "
            "with strategy softmax."
        )
    else:
        sentences += _of_weights(found)
    if found.num_known < found.num_rows and found.num_known:
        share = 1 - found.num_known / found.num_rows
        sentences.append(
            f"{share:.1%} of the rows have no propensity: what they were worth counts for no other policy."
        )
    if found.num_contradicting:
        sentences.append(
            f"{found.num_contradicting:,} items at rank 1 are less probable in the list than at that rank, which is "
            "impossible: propensity_at_rank and propensity_in_list are confused, or wrong."
        )
    if not exposures.reward.any():
        sentences.append("No row has a reward: there is nothing to compare. Are events or rewards missing?")
    if all(user is None for user in exposures.user):
        sentences.append(
            "No user is known: intervals treat lists as independent, and are too narrow where they are not."
        )
    return sentences


def _of_weights(found: Support) -> list[str]:
    sentences = []
    if found.uniform_weight - 3 * found.standard_error > 1:
        sentences.append(
            f"The mean weight of a uniform policy is {found.uniform_weight:.3g} ± {found.standard_error:.2g}, and "
            "cannot be above 1: these are not the probabilities with which the lists were chosen."
        )
    if found.effective_sample < FEW:
        sentences.append(
            f"A uniform policy has an effective sample of {found.effective_sample:,.0f} of {found.num_known:,} rows: "
            "only policies much closer to the logging policy can be evaluated."
        )
    elif not sentences:
        sentences.append("Policies that list items which these lists could have had can be evaluated.")
    return sentences
