"""`variseq evaluate --exposures`: how runs and baselines rank lists that were shown."""

from __future__ import annotations

from json import dumps
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from variseq.artifacts.checkpoint import Checkpoint, load_checkpoint
from variseq.atomic import atomic_write
from variseq.comparison import evaluated_part
from variseq.errors import InputError
from variseq.evaluation.baselines import Popular, RecentPopular
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.shown_lists import ListQueries, lines_of, rank_lists, summarize_lists
from variseq.evaluation.splits import Part
from variseq.exposures.table import Exposures
from variseq.exposures.taken import TakenEvents
from variseq.pipeline import joined_exposures, split_of
from variseq.recommend.network_model import ModelRecommender, engine_of
from variseq.sequences.histories import Histories, ragged_index
from variseq.terminal.evaluate import refuse_unwritable

OF_THE_CATALOG = {"k": 10, "targets": "last", "exclude_seen": None, "test_file": None, "columns": None, "users": None}
OF_THE_CATALOG |= {"mc_dropout": False, "request_time": False, "all_users": False}
"""Options of `variseq evaluate` that are not for lists, as they are where nobody sets them."""


class _AsRecommended(ModelRecommender):
    """Scores by which `recommend` ranks: log p, and what was learned from rewards."""

    def scores(self, histories: Histories) -> Float[Tensor, "history item"]:
        found, offset = super().scores(histories), self.model.tables.score_offset
        return found if offset is None else found + Tensor(offset)


def evaluate_lists(typed: dict[str, Any]) -> str:
    """The table of runs and baselines on the lists of the test part, by the options of `variseq evaluate`.

    Raises InputError for an option that is not for lists, where runs are of different logs or splits, and where the
    test part has no list.
    """
    for name, usual in OF_THE_CATALOG.items():
        if typed[name] != usual:
            raise InputError(f"--{name.replace('_', '-')} is not for --exposures. Leave one of the two out.")
    json = typed["json"]
    refuse_unwritable(json)
    runs = {str(one): load_checkpoint(one) for one in (typed["run"], *(typed["compare_with"] or []))}
    table = table_of_lists(runs, typed["exposures"])
    if json is not None:
        with atomic_write(json) as unfinished:
            unfinished.write_text(dumps(table, indent=2), encoding="utf-8")
    return "\n".join([table["lists"], "Below each value: its 95 % interval over users.", "", lines_of(table["rows"])])


def table_of_lists(runs: dict[str, Checkpoint], source: object, part: int = 2) -> dict[str, Any]:
    """The rows of `summarize_lists`, runs first and then baselines; "lists" says which lists they are of.

    Args:
        runs: Runs of one log and split by name.
        source: The exposures.
        part: 2 for the test part, 1 for validation.

    Raises:
        InputError: The runs are of different logs or splits, or the part has no list.
    """
    first = next(iter(runs.values()))
    split = split_of(first)
    for name, other in runs.items():
        if split_of(other)[2].protocol["split_hash"] != split[2].protocol["split_hash"]:
            raise InputError(f"{name} is a run of another log or split. Give runs of the same ones.")
        if other.is_refitted != first.is_refitted:
            raise InputError(f"{name} is refitted and the others are not, or the reverse. Give runs of one kind.")
    evaluated, known = evaluated_part(split, split[part], first.is_refitted)
    exposures, found = joined_exposures(source, evaluated.histories, first.vocabulary)
    queries = queries_of(exposures, found, evaluated)
    num_items = first.vocabulary.num_items
    recommenders: list[Recommender] = [_AsRecommended(engine_of(one).model, name) for name, one in runs.items()]
    recommenders += [kind(num_items).fit(known) for kind in (Popular, RecentPopular)]
    rows = summarize_lists(queries, {one.name: rank_lists(one, queries) for one in recommenders})
    is_new = np.bincount(known.item, minlength=num_items)[queries.item] == 0
    lists = (
        f"{len(queries):,} lists of the {evaluated.name} part with {len(queries.item):,} items, of which "
        f"{int(queries.is_taken.sum()):,} were taken; {int((is_new | (queries.item < 0)).sum()):,} have no training "
        f"event, {int((queries.item < 0).sum()):,} are unknown and stand last."
    )
    return {"lists": lists, "rows": rows}


def queries_of(exposures: Exposures, found: TakenEvents, part: Part) -> ListQueries:
    """The lists whose taken events are all in a part, with the events of the person before each list.

    Raises InputError where there is none with a taken item and another.
    """
    histories, of_event = part.histories, found.lists.of_event
    targets = ragged_index(part.history_end, part.target_end - part.history_end)
    num_lists = exposures.num_exposures
    in_part, in_log = (np.bincount(one[one >= 0], minlength=num_lists) for one in (of_event[targets], of_event))
    num_taken = np.bincount(exposures.row_exposure, exposures.reward > 0, num_lists)
    chosen = np.flatnonzero((in_part > 0) & (in_part == in_log) & (num_taken < exposures.lengths))
    if not len(chosen):
        raise InputError(
            f"No list has an event of the {part.name!r} part and an item that was not taken. Give the exposures of the "
            "time of that part."
        )
    user = found.user[chosen]
    end = [
        first + np.searchsorted(histories.timestamp[first:last], time)
        for first, last, time in zip(
            histories.offsets[user].tolist(), histories.offsets[user + 1].tolist(), exposures.time[chosen], strict=True
        )
    ]
    lengths = exposures.lengths[chosen]
    rows = ragged_index(exposures.offsets[chosen], lengths)
    return ListQueries(
        histories.select(histories.offsets[user], np.array(end, dtype=np.int64)),
        user,
        np.concatenate([[0], np.cumsum(lengths)]),
        found.item[rows],
        exposures.reward[rows] > 0,
    )
