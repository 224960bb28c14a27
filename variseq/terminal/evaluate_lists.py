"""`variseq evaluate --exposures`: how runs and baselines rank lists that were shown."""

from __future__ import annotations

from json import dumps
from typing import Any

import numpy as np

from variseq.artifacts.checkpoint import Checkpoint, load_checkpoint
from variseq.atomic import atomic_write
from variseq.comparison import evaluated_part
from variseq.errors import InputError
from variseq.evaluation.baselines import Popular, RecentPopular
from variseq.evaluation.recommender import Recommender
from variseq.evaluation.shown_lists import lines_of, scores_in_lists, summarize_lists
from variseq.pipeline import joined_exposures, split_of
from variseq.recommend.list_offsets import OffsetRecommender
from variseq.recommend.network_model import engine_of
from variseq.terminal.evaluate import refuse_unwritable

OF_THE_CATALOG = {"k": 10, "targets": "last", "exclude_seen": None, "test_file": None, "columns": None, "users": None}
OF_THE_CATALOG |= {"mc_dropout": False, "request_time": False, "all_users": False, "content_parts": False}
"""Options of `variseq evaluate` that are not for lists, as they are where nobody sets them."""


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
    found = joined_exposures(source, evaluated.histories, first.vocabulary)
    lists, histories = found.lists(evaluated.history_end, evaluated.target_end)
    if not len(lists):
        raise InputError(
            f"No list has an event of the {evaluated.name!r} part and an item that was not taken. Give the exposures "
            "of the time of that part."
        )
    num_items = first.vocabulary.num_items
    recommenders: list[Recommender] = []
    for name, one in runs.items():
        model = engine_of(one).model
        recommenders.append(OffsetRecommender(model, name, model.tables.score_offset))
        if model.tables.score_offset is not None:
            recommenders.append(OffsetRecommender(model, f"{name}, without offsets", None))
    recommenders += [kind(num_items).fit(known) for kind in (Popular, RecentPopular)]
    rows = summarize_lists(lists, {one.name: scores_in_lists(one, lists, histories) for one in recommenders})
    is_unknown = lists.item < 0
    is_new = np.bincount(known.item, minlength=num_items)[lists.item] == 0
    of_lists = (
        f"{len(lists):,} lists of the {evaluated.name} part with {len(lists.item):,} items, of which "
        f"{int(lists.is_taken.sum()):,} were taken. {int((is_new & ~is_unknown).sum()):,} items have no training "
        f"event, and {int(is_unknown.sum()):,} are unknown and stand last."
    )
    return {"lists": of_lists, "rows": rows}
