"""YooChoose (clicks of shopping sessions) into a run: sessions as users, the last day is the test."""

from __future__ import annotations

import sys
from pathlib import Path

from command import command
from data_files import find_files
from record import Experiment, Record, Request, run, split

from variseq.log import read

NOTE = (
    "One query a session: its last click, from all clicks before it. People come back to items within a session, so "
    "items of the history are ranked too."
)


def yoochoose(data: Path, request: Request) -> Record:
    """Sessions are users; the last day is test, the day before validation, the rest trains.

    DATA holds one file `*_train_full.txt` and one `*_test.txt` (SessionId, ItemId, Time with tabs between them); they
    are read as one log and cut again by time. Nearly every session lies on one side of a cut, so the first event after
    the cut has no history: the last click of each session is asked for, in validation and in test.
    """
    settings = request.settings({"size": "small", "split.by": "time", "split.test": "1d", "split.valid": "1d"})
    files = find_files(data, "*_train_full.txt", "*_test.txt")
    log = read(files, options=settings.read)
    train, valid, test = split(log, settings)
    experiment = Experiment("yoochoose", "YooChoose clicks", files, settings, notes=[NOTE])
    return run(experiment, log, (train, valid, test), request)


if __name__ == "__main__":
    sys.exit(command(yoochoose))
