"""A bundle, histories and questions into answers: what stands behind every request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from variseq.artifacts.bundle import Bundle, read_bundle
from variseq.errors import InputError
from variseq.events.vocabulary import Id
from variseq.inference.browse import Catalog
from variseq.inference.encoder import OnnxEncoder
from variseq.inference.forecast import FastForecast
from variseq.inference.index import ItemIndex
from variseq.inference.lists import FastLists, Listed
from variseq.inference.question import Answer, Question, Recommendation
from variseq.recommend.manner import Manner
from variseq.recommend.wishes import NO_HISTORY, Filters, Wish, Wishes
from variseq.sequences.given_history import GivenEvent, HistoryRow, as_histories, history_rows
from variseq.sequences.histories import Histories


@dataclass(frozen=True, eq=False)
class KnownHistory:
    """Somebody's events as the model reads them, oldest first; `num_unknown` have items that it does not know."""

    histories: Histories
    num_unknown: int
    latest: int | None

    @property
    def num_events(self) -> int:
        return self.histories.num_events

    @property
    def nbytes(self) -> int:
        """The memory of its arrays."""
        columns = (self.histories.item, self.histories.behavior, self.histories.timestamp, self.histories.value)
        return sum(column.nbytes for column in columns)


class Engine:
    """An exported model that answers. One thread at a time may ask."""

    def __init__(self, bundle: Bundle, exact: bool = False) -> None:
        facts = bundle.facts
        self.bundle, self.version = bundle, bundle.version
        self.vocabulary, self.items = bundle.vocabulary, bundle.items
        self.wishes = Wishes(bundle.vocabulary, bundle.items, facts.calibrated.repeat_share, facts.exclude_seen)
        encoder = OnnxEncoder(bundle.encoder, bundle.tables.distance_biases, bundle.vocabulary.num_items)
        forecast = FastForecast(bundle.tables, facts.calibrated.calibration)
        index = None if exact or bundle.index is None else ItemIndex(bundle.index, forecast.vectors)
        self.lists = FastLists(encoder, forecast, facts, index)
        self.catalog = Catalog(bundle)

    @classmethod
    def load(cls, folder: Path, exact: bool = False) -> Engine:
        """The engine of an exported folder. Raises CheckpointError for one that is missing or damaged.

        `exact` looks at the whole catalog also where the export has an index.
        """
        return cls(read_bundle(folder), exact)

    def history(self, events: Iterable[HistoryRow]) -> KnownHistory:
        """Somebody's events, oldest first, as the model reads them. Raises InputError for ids of the other type.

        Items that the model does not know are left out, and so are, from far back, events that it cannot reach. A
        behavior that it does not know is taken for the usual one.
        """
        rows = list(events)
        histories, unknown = as_histories(rows, self.vocabulary, self.bundle.facts.usual_behavior)
        return KnownHistory(histories, len(unknown), rows[-1][1] if rows else None)

    def given(self, history: Sequence[Id | GivenEvent]) -> KnownHistory:
        """A history as a caller gives it, as `recommend` reads it too. Raises InputError; see `history_rows`."""
        return self.history(history_rows(history))

    def answer(self, asked: Sequence[tuple[KnownHistory, Question]]) -> list[Answer | InputError]:
        """All questions in as few passes as they allow; a question that is not possible gets its error."""
        answers: list[Answer | InputError | None] = [None] * len(asked)
        alike: dict[tuple[Any, ...], list[tuple[int, Wish]]] = {}
        for place, (_, question) in enumerate(asked):
            try:
                wish, manner = self._understood(question)
            except InputError as error:
                answers[place] = error
                continue
            alike.setdefault((manner, question.because), []).append((place, wish))
        for (manner, because), members in alike.items():
            histories = _together([asked[place][0].histories for place, _ in members])
            listed = self.lists.make(histories, [wish for _, wish in members], manner, because)
            for (place, _), one in zip(members, listed, strict=True):
                answers[place] = self._answer(one, *asked[place])
        return [answer for answer in answers if answer is not None]

    def _understood(self, question: Question) -> tuple[Wish, Manner]:
        """Raises InputError for what is not possible."""
        filters = Filters(
            *(question.k, [*question.exclude, *question.shown], question.only, question.category),
            *(question.exclude_seen, question.boost_items, question.boost_categories, question.pin),
        )
        manner = Manner(question.explore, question.seed, question.diversity, question.coverage)
        manner.check(filters)
        if manner.coverage is not None:
            self.bundle.facts.calibrated.thresholds.at(manner.coverage)
        return self.wishes.wish(filters), manner

    def _answer(self, listed: Listed, history: KnownHistory, question: Question) -> Answer:
        first = len(question.shown) + 1
        catalog = self.catalog
        recommendations = [
            Recommendation(
                *(catalog.ids[item], first + place, score, probability, low, high, catalog.titles[item]),
                [catalog.name(reason) for reason in reasons],
            )
            for place, (item, score, probability, low, high, reasons) in enumerate(listed.rows())
        ]
        attention = None
        if question.attention:
            # The window begins with the start token where it reaches that far; older events have no weight.
            weights = [0.0] * history.num_events + listed.attention.tolist()
            attention = weights[-history.num_events :] if history.num_events else []
        fallback = None if history.num_events else NO_HISTORY
        return Answer(
            *(recommendations, fallback, listed.total, listed.aleatoric, listed.epistemic),
            approximate=listed.approximate,
            attention=attention,
        )


def _together(histories: Sequence[Histories]) -> Histories:
    """Histories of one each as one table."""
    offsets = np.cumsum([0, *(one.num_events for one in histories)]).astype(np.int64)
    columns = ("item", "behavior", "timestamp", "value")
    return Histories(offsets, *(np.concatenate([getattr(one, name) for one in histories]) for name in columns))
