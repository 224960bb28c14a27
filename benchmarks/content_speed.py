"""Seconds to encode the titles of a catalog, and to add items to a run.

`python -m benchmarks.content speed` runs it, with one thread. The sentence encoder is measured where it is installed.
The run is a short one of size tiny. The added items have titles of the catalog and ids of their own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from measurement.datasets import LoadedDataset
from measurement.records import ROOT, Record, record_of
from variseq import VariationalAttention, load
from variseq.content.encoders import encoder_named
from variseq.content.item_content import ItemContent
from variseq.errors import MissingDependencyError
from variseq.events.simulate import write_table

NUM_ADDED, K = 1000, 10
FIRST_ID = 10_000_000
SHORT = {"max_epochs": 1, "refit_fraction": 0.0}
COMMAND = "import sys; from variseq.cli import main; sys.argv = ['variseq', 'items', 'add', *sys.argv[1:]]; main()"


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of the clock and of the processor; of this process alone."""
    begun, of_processor = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - of_processor}


def encode_default(items: pa.Table) -> None:
    """What a fit does with titles: words and characters, reduced and whitened."""
    content = ItemContent.fit(items, np.ones(len(items), dtype=bool))
    assert content is not None
    content.encode(items)


def measure_speed(dataset: LoadedDataset, name: str) -> Iterator[Record]:
    """A record for each job. The answer after items are added has to have some of them."""
    log = dataset.log
    assert log.items is not None
    titles = pa.table({"title": log.items.table.column("title")})

    def record(what: str, metrics: dict[str, Any]) -> Record:
        case = {"data": name, "mode": "speed", "what": what}
        return record_of("content", case, metrics, data=dataset.description)

    jobs = {"encode, tfidf": lambda: encode_default(titles)}
    try:
        sentence = encoder_named("text", "sentence")
        sentence.encode(["a title"])
        texts = [text for text in titles.column("title").to_pylist() if text]
        jobs["encode, sentence"] = lambda: sentence.encode(texts)
    except MissingDependencyError as error:
        print(error, file=sys.stderr)
    for what, job in jobs.items():
        yield record(what, {"num_items": len(titles), **timed(job)})
    train, valid, _ = log.split("leave-one-out")
    model = VariationalAttention("tiny", training=SHORT, device="cpu").fit(train, valid, verbose=0)
    ids = pa.array(FIRST_ID + np.arange(NUM_ADDED)).cast(log.vocabulary.items.type)
    added = pa.table({"item_id": ids, "title": titles.column("title")[:NUM_ADDED]})
    with tempfile.TemporaryDirectory() as folder:
        run, file = Path(folder, "run"), Path(folder, "added.parquet")
        model.save(run)
        write_table(added, file)
        loaded, user = load(run, "cpu"), log.vocabulary.users[0].as_py()
        metrics = timed(lambda: loaded.add_items(added))
        answer: dict[str, list[Any]] = {}
        metrics["answer_seconds"] = timed(
            lambda: answer.update(ids=loaded.recommend([user], k=K, new_items_share=0.3).item_id)
        )["seconds"]
        num_named = len(set(answer["ids"]) & set(ids.to_pylist()))
        yield record("add, Python", {"num_items": NUM_ADDED, **metrics, "num_named": num_named})
        words = [sys.executable, "-c", COMMAND, str(run), str(file)]
        seconds = timed(lambda: subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL))["seconds"]
        yield record("add, command", {"num_items": NUM_ADDED, "seconds": seconds})
