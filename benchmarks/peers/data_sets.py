"""A folder of data sets into files of lines "user item item ...", oldest first, that every system can read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from variseq.atomic import atomic_write
from variseq.errors import InputError

FEWEST_EVENTS = 3


@dataclass(frozen=True)
class DataSet:
    """A data set by its name: its title, its file in a folder of that name, and how lines are made of it."""

    name: str
    title: str
    file: str
    lines: Callable[[Path], Iterable[str]]


@dataclass(frozen=True)
class SequenceFile:
    """A file that was made, with what identifies its content."""

    data: DataSet
    path: Path
    sha256: str
    num_users: int
    num_items: int
    num_events: int

    def described(self) -> dict[str, str | int]:
        """What a record says of its data."""
        return {
            "name": self.data.name,
            "title": self.data.title,
            "sha256": self.sha256,
            "num_users": self.num_users,
            "num_items": self.num_items,
            "num_events": self.num_events,
        }


def as_they_are(path: Path) -> Iterator[str]:
    """The lines of a file that has the form already."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield line.strip() + "\n"


def from_ratings(path: Path) -> Iterator[str]:
    """Rows user, item, rating, time, by tabs: a user's events in the order of time, equal times in that of the file."""
    events: dict[int, list[tuple[int, int]]] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            user, item, _, time = (int(field) for field in line.split("\t"))
            events.setdefault(user, []).append((time, item))
    for user in sorted(events):
        ordered = sorted(events[user], key=lambda event: event[0])
        yield " ".join(map(str, [user, *(item for _, item in ordered)])) + "\n"


DATA_SETS = {
    data.name: data
    for data in (
        DataSet("ml-100k", "MovieLens-100K", "u.data", from_ratings),
        DataSet("amazon-beauty", "Amazon Beauty 2014, 5-core", "Beauty.txt", as_they_are),
        DataSet("ml-1m", "MovieLens-1M, 5-core", "sequences_5core_items.txt", as_they_are),
    )
}


def write_sequences(name: str, folder: Path, out: Path) -> SequenceFile:
    """The lines of a data set, from `<folder>/<name>/<file>` into `<out>/<name>.txt`.

    Raises InputError when there is no such file, or a line is not of the form or has fewer than 3 events.
    """
    data = DATA_SETS[name]
    source = folder / name / data.file
    if not source.is_file():
        raise InputError(f"{source} does not exist. Give with --data the folder that holds {name}/{data.file}.")
    users, items, num_events = set(), set(), 0
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.txt"
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        try:
            for line in data.lines(source):
                user, *history = (int(field) for field in line.split())
                if len(history) < FEWEST_EVENTS or user in users:
                    raise ValueError(f"user {user} has two lines, or fewer than {FEWEST_EVENTS} events")
                users.add(user)
                items.update(history)
                num_events += len(history)
                file.write(line)
        except ValueError as error:
            raise InputError(f"{source} is not the file of {name} ({error}). Needed: {data.file} of it.") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return SequenceFile(data, path, digest, len(users), len(items), num_events)
