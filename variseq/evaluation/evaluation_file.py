"""Writes an evaluation's per-query results as Parquet and reads them back, so that two runs can be compared later."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from variseq.errors import InputError
from variseq.evaluation.evaluation import Evaluation, Forecasts

_METADATA_KEY = b"variseq.evaluation"
_PLAIN = ("user", "target", "history_length", "target_count", "target_was_seen", "rank", "novelty")
_FORECASTS = ("nll", "brier", "entropy")


def save_evaluation(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Writes one row a query; model name and protocol go into the file's metadata. Appears whole or not at all."""
    columns: dict[str, Any] = {name: getattr(evaluation, name) for name in _PLAIN}
    columns["top_item"] = _lists(evaluation.top_item)
    if evaluation.diversity is not None:
        columns["diversity"] = evaluation.diversity
    if evaluation.forecasts is not None:
        columns |= {name: getattr(evaluation.forecasts, name) for name in _FORECASTS}
        columns["top_probability"] = _lists(evaluation.forecasts.top_probability)
        columns["top_is_target"] = _lists(evaluation.forecasts.top_is_target)
    about = json.dumps({"model": evaluation.model, "protocol": evaluation.protocol}).encode()
    table = pa.table(columns).replace_schema_metadata({_METADATA_KEY: about})
    final = Path(path)
    temporary = final.with_name(f"{final.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, temporary, compression="zstd")
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def load_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """Reads what `save_evaluation` wrote. Raises InputError when the file is missing or something else."""
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[_METADATA_KEY])
        return _evaluation(table, about)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(
            f"{os.fspath(path)} cannot be read as a saved evaluation ({type(error).__name__}). "
            "Give a Parquet file that save_evaluation wrote."
        ) from error


def _evaluation(table: pa.Table, about: dict[str, Any]) -> Evaluation:
    def column(name: str) -> Shaped[np.ndarray, " query"]:
        values: Shaped[np.ndarray, " query"] = table[name].to_numpy()
        return values

    def rows(name: str) -> Shaped[np.ndarray, "query k"]:
        flat: Shaped[np.ndarray, " place"] = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(table.num_rows, -1)

    forecasts = None
    if "nll" in table.column_names:
        forecasts = Forecasts(
            **{name: column(name) for name in _FORECASTS},
            top_probability=rows("top_probability"),
            top_is_target=rows("top_is_target"),
        )
    return Evaluation(
        model=about["model"],
        protocol=about["protocol"],
        **{name: column(name) for name in _PLAIN},
        top_item=rows("top_item"),
        diversity=column("diversity") if "diversity" in table.column_names else None,
        forecasts=forecasts,
    )


def _lists(values: Shaped[np.ndarray, "query k"]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
