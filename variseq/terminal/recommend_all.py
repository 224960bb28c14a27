"""Recommendations for all users of a run, written to a file as they come; in several processes if wanted."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.progress import Progress, TimeElapsedColumn

from variseq.artifacts.checkpoint import load_checkpoint
from variseq.errors import InputError
from variseq.events.vocabulary import Vocabulary
from variseq.inference.engine import load_engine
from variseq.output.console import console
from variseq.ranking.changed_engine import ChangeableEngine
from variseq.ranking.engine import Engine
from variseq.ranking.known_users import USERS_AT_ONCE, recommend_rows
from variseq.ranking.options import RecommendOptions
from variseq.ranking.recommendations import write_tables
from variseq.recommend.network_model import engine_of
from variseq.sequences.histories import Histories
from variseq.threads import use_threads

Opened = tuple[Engine, Histories, pa.Array]
"""What answers, the histories, and the ids of the users."""


def opened(run: Path, approximate: bool) -> Opened:
    """A run to answer from, or with `approximate` its export, whose index chooses the candidates.

    Raises InputError for a run without histories, and for an approximate answer without an index.
    """
    checkpoint = load_checkpoint(run)
    if checkpoint.histories is None:
        raise InputError("This run was saved without histories, so there is nobody to recommend to.")
    trained = load_engine(run) if approximate else engine_of(checkpoint)
    if approximate and trained.index is None:
        raise InputError(
            f"--approximate needs an index, and a catalog of {trained.vocabulary.num_items:,} items has none. Leave it "
            "out: all items are looked at."
        )
    return ChangeableEngine(trained).engine(checkpoint.changes), checkpoint.histories, checkpoint.vocabulary.users


_of_worker: list[Opened] = []
"""What a worker has opened, once."""


def recommend_all(
    run: Path, out: Path, read: Callable[[Vocabulary], RecommendOptions], approximate: bool = False, workers: int = 1
) -> int:
    """Write the recommendations of all users to a .parquet or .csv file, whole or not at all.

    Args:
        run: The folder of the run.
        out: The file; it is the same for any number of workers.
        read: The options for ids of a vocabulary.
        approximate: Whether the index of an exported run chooses the candidates.
        workers: How many processes answer.

    Returns:
        The number of rows.

    Raises:
        InputError: For what cannot be opened or written, and where a worker has ended.
    """
    if approximate:
        use_threads(1)  # products with a shortlist are too small to share
    of_run = opened(run, approximate)
    options = read(of_run[0].vocabulary)
    of_run[0].constraints(options)  # what is not possible is known before processes are started
    firsts = list(range(0, len(of_run[2]), USERS_AT_ONCE))
    shown = console(stderr=True)
    bar = Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=shown, transient=True)
    if workers == 1:
        tables: AbstractContextManager[Iterator[pa.Table]] = nullcontext(
            _answered(options, USERS_AT_ONCE, first, of_run) for first in firsts
        )
    else:
        tables = _of_workers(run, approximate, workers, options, firsts)
    with bar if shown.is_terminal else nullcontext(), tables as found:
        return write_tables(iter(bar.track(found, len(firsts), description="Recommendations")), out)


@contextmanager
def _of_workers(
    run: Path, approximate: bool, workers: int, options: RecommendOptions, firsts: list[int]
) -> Iterator[Iterator[pa.Table]]:
    """The answers for the users from each number on, in order, of several processes."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_open, initargs=(run, approximate)) as pool:
        try:
            yield pool.map(partial(_answered, options, USERS_AT_ONCE), firsts)
        except BrokenProcessPool as error:
            raise InputError(
                "A worker has ended, probably for want of memory, and nothing was written. Give fewer --workers."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _open(run: Path, approximate: bool) -> None:
    use_threads(1)
    _of_worker.append(opened(run, approximate))


def _answered(options: RecommendOptions, size: int, first: int, of_run: Opened | None = None) -> pa.Table:
    engine, histories, users = of_run or _of_worker[0]
    ids = users[first : first + size].to_pylist()
    return recommend_rows(engine, histories, np.arange(first, first + len(ids)), ids, options).to_arrow()
