"""Several evaluations of the same queries into one thing to print, look up and write down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from variseq.atomic import atomic_write
from variseq.errors import InputError
from variseq.evaluation.bootstrap import NUM_RESAMPLES
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.groups import Groups
from variseq.evaluation.paired import difference_sentences, paired_differences
from variseq.evaluation.table import evaluation_table, notes_on, text_table
from variseq.evaluation.values import ValueForecasts
from variseq.ranking.calibration import ConformalThresholds


class Results:
    """A model's evaluation with the baselines beside it; printing it shows the table with its intervals.

    `values` are the first model's forecasts of the targets' values, where the log has them; its row has their numbers.
    `user_groups` has by the name of a column the group of each user of the log (see `group_users`), and `thresholds`
    are those of the first model's conformal sets, whose coverage is then looked at. The `num_rivals` evaluations after
    the first are held against it, paired by user. `notes` are further lines below the table.
    """

    def __init__(
        self,
        evaluations: Sequence[Evaluation],
        values: ValueForecasts | None = None,
        user_groups: Mapping[str, Groups] | None = None,
        thresholds: ConformalThresholds | None = None,
        num_rivals: int = 0,
        notes: Sequence[str] = (),
    ) -> None:
        self.evaluations = list(evaluations)
        self.values = values
        self.user_groups = dict(user_groups or {})
        self.thresholds = thresholds
        self.num_rivals = num_rivals
        self.notes = list(notes)

    def __getitem__(self, model: str) -> Evaluation:
        return self.evaluations[self._place(model)]

    def __str__(self) -> str:
        model = self.evaluations[0]
        notes = [f"{sentence}\n" for sentence in difference_sentences(self.table["comparisons"])]
        notes += [f"{model.model}, {note}\n" for note in notes_on(self.table["rows"][0], model.k)]
        notes += [f"{note}\n" for note in self.notes]
        return text_table(self.table) + "".join(notes) + ("" if self.values is None else f"{self.values}\n")

    @cached_property
    def table(self) -> dict[str, Any]:
        """`{"protocol": {...}, "rows": [{"model": ..., "ndcg@10": ..., "ndcg@10_interval": [...]}, ...], "comparisons":
        [{"model": ..., "beside": ..., "metric": "nll", "difference": ..., "interval": [...], "p_value": ...}, ...]}`.
        """
        table = evaluation_table(self.evaluations, NUM_RESAMPLES, 0, self.user_groups, self.thresholds)
        if self.values is not None:
            table["rows"][0] |= self.values.summary()
        model, *others = self.evaluations
        table["comparisons"] = paired_differences(model, others[: self.num_rivals])
        return table

    def row(self, model: str) -> dict[str, Any]:
        """The numbers of one model. Raises InputError for a row that is not there."""
        row: dict[str, Any] = self.table["rows"][self._place(model)]
        return row

    def _place(self, model: str) -> int:
        names = [evaluation.model for evaluation in self.evaluations]
        if model not in names:
            raise InputError(f"The results have no row {model!r}. They have: {', '.join(names)}.")
        return names.index(model)

    def to_json(self, path: Path | str) -> None:
        """Writes the table; whole or not at all. Raises InputError when it cannot be written."""
        path = Path(path)
        try:
            with atomic_write(path) as unfinished:
                unfinished.write_text(json.dumps(self.table, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"The evaluation cannot be written to {path}: {error.strerror or error}. Give a file in a folder that "
                "exists and has room. Nothing was left there."
            ) from error
