"""Visits that a column of the log names: their events get one time and stand together."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from variseq.errors import InputError
from variseq.events.report import utc_text
from variseq.events.session import Session
from variseq.events.table import EventTable
from variseq.events.vocabulary import Vocabulary

_VISITS = """
    SELECT CAST(raw.visit AS VARCHAR) FROM kept JOIN users ON kept.user_code = users.user_code
    JOIN raw ON kept.input_row = raw.input_row ORDER BY users.user_position, kept.time_us, kept.input_row
"""
"""The visit of each event, in the order of the statement `ordered`."""


def by_visit(session: Session, table: EventTable, vocabulary: Vocabulary) -> EventTable:
    """The events in the order of visits, all at the time when their visit began; an event without one is a visit alone.

    Two visits of a user that begin at one time are a microsecond apart, so that times tell them apart. Raises
    InputError where a visit begins before an earlier one of the same user has ended.
    """
    visit = pa.concat_arrays(batch.column(0) for batch in session.stream(_VISITS)).dictionary_encode()
    code = visit.indices.to_numpy(zero_copy_only=False).astype(np.float64)
    code = np.where(np.isnan(code), len(visit.dictionary) + np.arange(len(table)), code).astype(np.int64)
    # Events are in the order of time, so the first one of a visit is its earliest.
    _, first, number = np.unique(table.user * (code.max() + 1) + code, return_index=True, return_inverse=True)
    user, begin = table.user[first], table.timestamp[first]
    in_order = np.lexsort((first, begin, user))
    rank = np.empty_like(in_order)
    rank[in_order] = np.arange(len(first))
    visit_of = rank[number]
    order = np.argsort(visit_of, kind="stable")
    time, of_user = table.timestamp[order], table.user[order]
    overlaps = np.flatnonzero((of_user[1:] == of_user[:-1]) & (time[1:] < time[:-1]))
    if len(overlaps):
        one, other = order[overlaps[0]], order[overlaps[0] + 1]
        names = [visit[int(event)].as_py() for event in (one, other)]
        whose, until = vocabulary.user_ids(table.user[[one]])[0], utc_text(int(table.timestamp[one]))
        raise InputError(
            f"Visits overlap: visit {names[0]!r} of user {whose!r} goes on until {until}, after visit {names[1]!r} has "
            "begun. Give visits one after the other, or make them of gaps with visit_gap (--visit-gap 30m)."
        )
    user, begin = user[in_order], begin[in_order]
    is_first = np.concatenate([[True], (user[1:] != user[:-1]) | (begin[1:] != begin[:-1])])
    index = np.arange(len(begin))
    begin = begin + index - np.maximum.accumulate(np.where(is_first, index, 0))
    timestamp = begin[visit_of][order]
    return EventTable(of_user, table.item[order], timestamp, table.behavior[order], table.value[order])
