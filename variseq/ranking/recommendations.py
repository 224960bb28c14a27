"""The result of a recommendation: a table of users and items, for Python, command line, HTTP and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from variseq.atomic import atomic_write
from variseq.errors import InputError
from variseq.events.vocabulary import Id

ITEM_COLUMNS = (
    "item_id", "rank", "score", "probability", "probability_low", "probability_high", "title", "source", "reasons",
    "propensity_at_rank", "propensity_in_list",
)  # fmt: skip
"""The columns that differ from item to item of one list."""


@dataclass(frozen=True, eq=False)
class Recommendations:
    """Recommended items, one row for each user and rank; with `ranks_only` the columns of probabilities are None.

    Args:
        user_id: Whom the item is recommended to; None for a history that was given.
        item_id: The recommended item.
        rank: From 1.
        score: What items are ranked by: log p, boosted where that was asked for.
        probability: Probability that the item is next.
        probability_low: Lower end of the central 90 % of that probability under the posterior.
        probability_high: Upper end.
        title: Title of the item; None where there is none.
        source: "events", or "content" for a new item, of which the model has seen no event.
        reasons: Up to three earlier items (titles, or ids) without which this item would be less probable.
        fallback: Why the answer is made from an empty history; None where the user's history was used.
        uncertainty_total: Entropy of the distribution over the next item, in nats.
        uncertainty_aleatoric: The part that stays when the posterior is a point.
        uncertainty_epistemic: The part that comes from the width of the posterior.
        propensity_at_rank: Probability with which strategy="softmax" drew the item at its rank, given those above it;
            1 for a pinned item. None for another strategy.
        propensity_in_list: Probability with which it drew the item into the list, at any rank.
    """

    user_id: Sequence[Id | None]
    item_id: Sequence[Id]
    rank: Int[np.ndarray, " row"]
    score: Float[np.ndarray, " row"]
    probability: Float[np.ndarray, " row"] | None
    probability_low: Float[np.ndarray, " row"] | None
    probability_high: Float[np.ndarray, " row"] | None
    title: Sequence[str | None]
    source: Sequence[str]
    reasons: Sequence[list[str]] | None
    fallback: Sequence[str | None]
    uncertainty_total: Float[np.ndarray, " row"] | None
    uncertainty_aleatoric: Float[np.ndarray, " row"] | None
    uncertainty_epistemic: Float[np.ndarray, " row"] | None
    propensity_at_rank: Float[np.ndarray, " row"] | None = None
    propensity_in_list: Float[np.ndarray, " row"] | None = None
    id_types: tuple[pa.DataType, pa.DataType] = (pa.string(), pa.string())
    """The Arrow types of user ids and item ids."""

    def __len__(self) -> int:
        return len(self.rank)

    def to_arrow(self) -> pa.Table:
        """The columns that are not None as an Arrow table; ids have the type of the log."""
        types = {"user_id": self.id_types[0], "item_id": self.id_types[1], "title": pa.string()}
        types |= {"source": pa.string(), "reasons": pa.list_(pa.string()), "fallback": pa.string()}
        columns = {name: getattr(self, name) for name in COLUMNS if getattr(self, name) is not None}
        return pa.table({name: pa.array(column, types.get(name)) for name, column in columns.items()})

    def to_pandas(self) -> pd.DataFrame:
        """The columns that are not None as a data frame."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_dicts(self, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One dictionary a row, of the columns that are not None or of those that are named."""
        names = [name for name in columns or COLUMNS if getattr(self, name) is not None]
        values = [getattr(self, name) for name in names]
        plain = [column.tolist() if isinstance(column, np.ndarray) else column for column in values]
        return [dict(zip(names, row, strict=True)) for row in zip(*plain, strict=True)]


COLUMNS = tuple(one.name for one in fields(Recommendations) if one.name != "id_types")


def write_tables(
    tables: Iterator[pa.Table],
    path: Path,
    what: str = "Recommendations",
    endings: Sequence[str] = (".parquet", ".csv"),
) -> int:
    """Writes tables to one file as they come, whole or not at all; returns the number of rows.

    In CSV the reasons are joined with "; ". Raises InputError for another ending than `endings`, and when the file
    cannot be written.
    """
    if path.suffix not in endings:
        raise InputError(
            f"{what} cannot be written to {path.name!r}. Allowed: a name ending in {' or '.join(endings)}."
        )
    is_csv = path.suffix == ".csv"
    tables = map(_flat, tables) if is_csv else tables
    kind = pa_csv.CSVWriter if is_csv else pq.ParquetWriter
    num_rows = 0
    try:
        first = next(tables, None)
        if first is None:
            return 0
        with atomic_write(path) as unfinished, kind(str(unfinished), first.schema) as writer:
            for table in chain([first], tables):
                writer.write_table(table)
                num_rows += table.num_rows
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}. Nothing was left there.") from error
    return num_rows


def _flat(table: pa.Table) -> pa.Table:
    if "reasons" not in table.column_names:
        return table
    index = table.schema.get_field_index("reasons")
    return table.set_column(index, "reasons", pc.binary_join(table.column("reasons"), "; "))
