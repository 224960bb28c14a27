"""Several evaluations of the same queries: a table to print, look up and write as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from variseq.atomic import atomic_write
from variseq.errors import InputError
from variseq.evaluation.evaluate import REQUEST_TIME
from variseq.evaluation.evaluation import Evaluation
from variseq.evaluation.groups import Groups
from variseq.evaluation.next_time import GapForecasts
from variseq.evaluation.significance import NUM_RESAMPLES, paired_differences, require_same_protocol
from variseq.evaluation.splits import TEST_FILE
from variseq.evaluation.summary import CONFORMAL, MIN_USERS, SELECTIVE_GAIN, summarize
from variseq.evaluation.value_forecasts import ValueForecasts
from variseq.output.printable import printable
from variseq.ranking.calibration import ConformalThresholds


class Results:
    """The evaluation of a model with its competitors and baselines; printing it shows a table with intervals.

    Attributes:
        evaluations: Results for each query, a model each; the model itself is the first.
        values: Forecasts of the targets' values by the model and by baselines, where the log has values.
        gaps: The forecasts of the time to the next event, where the log has times.
        user_groups: By the name of a column the group of each user of the log.
        thresholds: Those of the model's conformal sets; None where their coverage is not measured.
        num_competitors: The model is compared, paired by user, with so many evaluations after the first.
        notes: Further sentences below the table.
    """

    def __init__(
        self,
        evaluations: Sequence[Evaluation],
        values: ValueForecasts | None = None,
        user_groups: Mapping[str, Groups] | None = None,
        thresholds: ConformalThresholds | None = None,
        num_competitors: int = 0,
        notes: Sequence[str] = (),
        gaps: GapForecasts | None = None,
    ) -> None:
        self.evaluations = list(evaluations)
        self.values = values
        self.gaps = gaps
        self.user_groups = dict(user_groups or {})
        self.thresholds = thresholds
        self.num_competitors = num_competitors
        self.notes = list(notes)

    def __getitem__(self, model: str) -> Evaluation:
        """The evaluation of one model. Raises InputError for a model that is not among the results."""
        return self.evaluations[self._index(model)]

    def __str__(self) -> str:
        model, row = self.evaluations[0], self.table["rows"][0]
        notes = difference_sentences(self.table["comparisons"])
        notes += [f"{model.model}: {note}" for note in notes_on(row, model.k)]
        notes += self.notes
        if self.values is not None:
            notes += str(self.values).splitlines()
        if self.gaps is not None:
            notes.append(str(self.gaps))
        return "\n".join([format_table(self.table), *map(printable, notes), ""])

    @property
    def baselines(self) -> list[Evaluation]:
        """The evaluations after those that the model is compared with."""
        return self.evaluations[1 + self.num_competitors :]

    @cached_property
    def table(self) -> dict[str, Any]:
        """Everything as plain data: `protocol`, `rows` (one for each model) and `comparisons` (paired by user)."""
        table = evaluation_table(self.evaluations, NUM_RESAMPLES, 0, self.user_groups, self.thresholds)
        for forecasts in (self.values, self.gaps):
            table["rows"][0] |= {} if forecasts is None else forecasts.summary()
        model, *others = self.evaluations
        table["comparisons"] = paired_differences(model, others[: self.num_competitors])
        return table

    def row(self, model: str) -> dict[str, Any]:
        """The numbers of one model.

        Args:
            model: Name of the row, such as "variseq" or "popular".

        Returns:
            Each number by its name, such as "ndcg@10", with its interval at "ndcg@10_interval".

        Raises:
            InputError: The results have no such row.
        """
        row: dict[str, Any] = self.table["rows"][self._index(model)]
        return row

    def _index(self, model: str) -> int:
        names = [evaluation.model for evaluation in self.evaluations]
        if model not in names:
            raise InputError(f"The results have no row {model!r}. They have: {', '.join(names)}.")
        return names.index(model)

    def to_json(self, path: Path | str) -> None:
        """Write the table to a file, whole or not at all.

        Args:
            path: A file in a folder that exists.

        Raises:
            InputError: The file cannot be written.
        """
        path = Path(path)
        try:
            with atomic_write(path) as unfinished:
                unfinished.write_text(json.dumps(self.table, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"The evaluation cannot be written to {path}: {error.strerror or error}. Give a file in a folder that "
                "exists and has room. Nothing was left there."
            ) from error


def evaluation_table(
    evaluations: Sequence[Evaluation],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    user_groups: Mapping[str, Groups] | None = None,
    thresholds: ConformalThresholds | None = None,
) -> dict[str, Any]:
    """`{"protocol": {...}, "rows": [{"model": ..., "ndcg@10": ..., "ndcg@10_interval": [...], ...}, ...]}`.

    `thresholds` are those of the first model's conformal sets; the others have none.
    Raises InputError without an evaluation, or when they were not evaluated alike.
    """
    if not evaluations:
        raise InputError("There is no evaluation to put into a table. Give at least one.")
    require_same_protocol(evaluations)
    resampling = {"num_resamples": num_resamples, "bootstrap_seed": seed}
    return {
        "protocol": evaluations[0].protocol | resampling,
        "rows": [
            summarize(evaluation, num_resamples, seed, user_groups, thresholds if index == 0 else None)
            for index, evaluation in enumerate(evaluations)
        ],
    }


def format_table(table: dict[str, Any]) -> str:
    """The main columns as plain text: below each value its interval."""
    protocol, k = table["protocol"], table["protocol"]["k"]
    shown = [f"ndcg@{k}", f"recall@{k}", "mrr", "nll", f"ece_top{k}", f"catalog_coverage@{k}"]
    num_visits = table["rows"][0].get("num_visits")
    if num_visits is not None:
        of_visits = ("ndcg", "recall", "precision", "jaccard", "recall_repeats", "recall_new")
        shown = [*(f"visit_{name}@{k}" for name in of_visits), "nll"]
    names = [printable(row["model"]) for row in table["rows"]]
    cells = [[_cell(row, name) for name in shown] for row in table["rows"]]
    first = max(map(len, ["model", *names]))
    widths = [max(len(name), *(len(text) for row in cells for text in row[i])) for i, name in enumerate(shown)]

    def line(start: str, texts: Sequence[str]) -> str:
        return "  ".join([start.ljust(first), *(text.rjust(width) for text, width in zip(texts, widths, strict=True))])

    part = protocol["part"] if protocol["part"] == TEST_FILE else f"{protocol['part']} part"
    seen = ", but those of the history" if protocol["exclude_seen"] else ", those of the history too"
    when = ", with the time of each request" if protocol.get("request_time") == REQUEST_TIME else ""
    lines = [
        f"{part}, {protocol['method']} split, {table['rows'][0]['num_queries']:,} queries{sample_of(protocol)}, "
        f"targets: {protocol['targets']}, all {protocol['num_items']:,} items are ranked{seen}{when}.",
        "Below each value: its 95 % interval over users.",
        *([] if num_visits is None else [_visits_in_words(num_visits)]),
        "",
        line("model", shown),
        "  ".join("-" * width for width in (first, *widths)),
    ]
    for name, row in zip(names, cells, strict=True):
        values, intervals = zip(*row, strict=True)
        lines += [line(name, values), line("", intervals)]
    return "\n".join(text.rstrip() for text in lines) + "\n"


def sample_of(protocol: dict[str, Any]) -> str:
    """How many users were sampled of how many; empty where all were evaluated.

    >>> sample_of({"num_users_evaluated": 1000, "num_users_with_targets": 43183})
    ' of a random sample of 1,000 of 43,183 users'
    """
    num_users, of_all = protocol["num_users_evaluated"], protocol["num_users_with_targets"]
    return "" if num_users == of_all else f" of a random sample of {num_users:,} of {of_all:,} users"


def _visits_in_words(num_visits: int) -> str:
    return (
        f"A query is an item of a visit. visit_… are means over the {num_visits:,} visits that are not the first of "
        "their user; repeats are items that the user had before, and new items are ranked among new ones alone."
    )


def _cell(row: dict[str, Any], name: str) -> tuple[str, str]:
    value, interval = row[name], row.get(f"{name}_interval")
    if value is None:
        return "-", ""
    digits = 2 if name == "nll" else 4
    return f"{value:.{digits}f}", "" if interval is None else f"{interval[0]:.{digits}f}–{interval[1]:.{digits}f}"


def difference_sentences(records: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each competitor.

    >>> record = {"model": "variseq", "compared_with": "other", "metric": "nll", "difference": -0.0481,
    ...     "interval": [-0.052, -0.0442], "p_value_holm": 0.0002, "num_users": 5000}
    >>> difference_sentences([record])
    ["variseq minus 'other', paired by 5,000 users: nll -0.0481 (-0.0520 to -0.0442), p (Holm) = 0.0002."]
    """
    by_competitor: dict[tuple[str, str, int], list[str]] = {}
    for one in records:
        (low, high), p_value = one["interval"], one["p_value_holm"]
        text = f"{one['metric']} {one['difference']:+.4f} ({low:+.4f} to {high:+.4f}), p (Holm) = {p_value:.4f}"
        by_competitor.setdefault((one["model"], one["compared_with"], one["num_users"]), []).append(text)
    return [
        f"{model} minus {other!r}, paired by {num_users:,} users: {'; '.join(texts)}."
        for (model, other, num_users), texts in by_competitor.items()
    ]


def notes_on(row: dict[str, Any], k: int) -> list[str]:
    """Sentences on one model: selective prediction, conformal sets, and groups of users."""
    notes = []
    if row[SELECTIVE_GAIN] is not None:
        low, high = row[f"{SELECTIVE_GAIN}_interval"]
        notes.append(
            f"On the half of the queries with least entropy ndcg@{k} is {row[f'selective_ndcg@{k}']:.4f}, "
            f"{row[SELECTIVE_GAIN]:+.1%} ({low:+.1%} to {high:+.1%})."
        )
    if row[CONFORMAL] is not None:
        low, high = row[f"{CONFORMAL}_interval"]
        notes.append(
            f"Conformal sets with a level of 90 % contain {row[CONFORMAL]:.1%} of the targets ({low:.1%}–{high:.1%})."
        )
        if (by_chance := row[f"{CONFORMAL}_by_chance"]) is not None:
            low, high = by_chance
            notes[-1] += f" {low:.1%} to {high:.1%} are to be expected if test is like validation."
            if not low <= row[CONFORMAL] <= high:
                notes[-1] += " So it is not, and the level does not hold for what comes later in this log."
    for column, groups in row["by_user_column"].items():
        notes += _notes_on_column(column, groups, row["group_gaps"]["user_column"][column])
    return notes


def _notes_on_column(column: str, groups: list[dict[str, Any]], gaps: dict[str, Any]) -> list[str]:
    notes = []
    for name, gap in gaps.items():
        if gap is not None:
            low, high = gap["gap_interval"]
            notes.append(
                f"By {column}, {name}: worst {gap['worst']:.4f} ({gap['worst_group']}), best {gap['best']:.4f} "
                f"({gap['best_group']}), gap {gap['gap']:.4f} ({low:.4f} to {high:.4f})."
            )
    small = [f"{row['group']} ({row['num_users']})" for row in groups if not row["is_compared"]]
    if small:
        notes.append(f"By {column}, not compared because of fewer than {MIN_USERS} users: {', '.join(small)}.")
    if len(small) > len(groups) - 2:
        notes.append(f"By {column}, fewer than two groups have at least {MIN_USERS} users, so none are compared.")
    return notes
