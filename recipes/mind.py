"""MIND (news: impressions with clicks, and what was clicked before) into a run: leave-one-out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from command import command
from data_files import find_files, lines_of
from record import Experiment, Record, Request, run, split

from variseq.errors import InputError
from variseq.log import read

TIME_FORMAT = "%m/%d/%Y %I:%M:%S %p"
NOTE = (
    "The history of a user has an order and no times: its events were placed one second apart before the first "
    "impression of the log. Time gaps within it mean nothing."
)
Click = tuple[str, str, int]
"""User, news, time in seconds."""


def mind(data: Path, request: Request) -> Record:
    """Clicks as events; the last click of each user is the target, ranked among all news of the log.

    DATA holds `behaviors.tsv` (impression, user, time, history, "N1-0 N2-1") and `news.tsv` (id, category, subcategory,
    title, ...), both without a header.

    Said plainly: history events carry **no time** in this data set. They are placed before the first impression of the
    log, one second apart, which keeps their order and invents their times (the history of a user is the same in all of
    the user's impressions, so it is older than them). Hence the split by order, leave-one-out. For most users, who have
    one impression, validation asks for the last event of the history and test for a click days later, on news that are
    often new: a quarter of the test targets never occur in training. The whole catalog is ranked, not the few news
    that an impression showed, so figures are not to be compared with those of the MIND task. News without a line in
    `news.tsv` have no title and no category.
    """
    settings = request.settings(
        {"size": "small", "split.by": "leave-one-out", "read.time_unit": "seconds", "training.max_epochs": 12}
    )
    files = find_files(data, "behaviors.tsv", "news.tsv")
    clicks = list(_clicks(files[0]))
    columns = zip(("user_id", "item_id", "timestamp"), zip(*clicks, strict=True), strict=False)
    log = read(
        pa.table({name: pa.array(values) for name, values in columns}), items=_news(files[1]), options=settings.read
    )
    experiment = Experiment("mind", "MIND, 5,000 impressions", files, settings, notes=[NOTE])
    return run(experiment, log, split(log, settings), request)


def _clicks(path: Path) -> Iterator[Click]:
    """History and clicks of every user. A user's history is that of the first impression."""
    impressions = sorted(_impressions(path), key=lambda impression: impression[1])
    if not impressions:
        raise InputError(f"{path} is empty. Impressions, one a line, are needed.")
    known: set[str] = set()
    for user, second, history, shown in impressions:
        if user not in known:
            known.add(user)
            begin = impressions[0][1] - len(history)
            yield from ((user, news, begin + place) for place, news in enumerate(history))
        yield from ((user, news.removesuffix("-1"), second) for news in shown if news.endswith("-1"))


def _impressions(path: Path) -> Iterator[tuple[str, int, list[str], list[str]]]:
    for number, line in lines_of(path):
        try:
            _, user, time, history, shown = line.split("\t")
            second = int(datetime.strptime(time, TIME_FORMAT).replace(tzinfo=UTC).timestamp())
        except ValueError as error:
            raise InputError(
                f"{path}, line {number} is not of the form impression, user, time (11/12/2019 2:14:46 PM), history, "
                f"impressions with tabs between them ({error})."
            ) from error
        yield user, second, history.split(), shown.split()


def _news(path: Path) -> pa.Table:
    """item_id, title, category (category and subcategory), one row a news."""
    rows = []
    for number, line in lines_of(path):
        fields = line.split("\t")
        if len(fields) < 4:
            raise InputError(
                f"{path}, line {number} has {len(fields)} fields. Needed: id, category, subcategory, title."
            )
        news, category, subcategory, title = fields[:4]
        rows.append({"item_id": news, "title": title, "category": [category, subcategory]})
    return pa.Table.from_pylist(rows)


if __name__ == "__main__":
    sys.exit(command(mind))
