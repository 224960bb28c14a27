"""What is asked of a served model, and what it answers, in outside ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from variseq.events.vocabulary import Id


@dataclass(frozen=True)
class Question:
    """What may be recommended, and how the list is made of it.

    `only` and `category` keep, `exclude` drops; `shown` are items of earlier pages, which are left out and whose number
    the ranks go on from. `exclude_seen` None is what the log suggested. `explore`, `seed`, `diversity` and `coverage`
    are those of `variseq.recommend.manner.Manner`. `boost_items` and `boost_categories` multiply what items are ranked
    by, `pin` puts items at ranks; neither changes a probability.
    """

    k: int = 10
    exclude: Sequence[Id] = ()
    only: Sequence[Id] | None = None
    category: Sequence[str] | None = None
    exclude_seen: bool | None = None
    explore: str | None = None
    seed: int = 0
    diversity: float = 0.0
    coverage: float | None = None
    boost_items: Mapping[Id, float] = field(default_factory=dict)
    boost_categories: Mapping[str, float] = field(default_factory=dict)
    pin: Mapping[int, Id] = field(default_factory=dict)
    shown: Sequence[Id] = ()
    because: bool = True
    attention: bool = False


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One item of an answer; the fields are those of `VariationalAttention.recommend`."""

    item_id: Id
    rank: int
    score: float
    probability: float
    low: float
    high: float
    title: str | None
    because: list[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A list and what is known of it. Uncertainties in nats; `attention` is one weight an event of the history.

    `approximate` says that an index chose the candidates and that probabilities were estimated from a sample.
    """

    recommendations: list[Recommendation]
    fallback: str | None
    total: float
    aleatoric: float
    epistemic: float
    approximate: bool
    attention: list[float] | None
