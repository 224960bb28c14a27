"""What each part of the content is worth: fits with some parts, and one fit without a part that it has learned with.

`python -m benchmarks.content parts` runs it. Each query is the last event of a user. Rare targets are the third of the
queries whose targets have the fewest training events.

- simulated: a shop whose tastes follow text, pictures and tones; some items are new, and ranked among themselves.
- ml-1m-posters: some users of MovieLens-1M, with genres, titles and the colors of posters.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.content_queries import K, TestQueries, fitted
from measurement.datasets import load_dataset
from measurement.records import Record, record_of
from variseq import read
from variseq.comparison import ComparedRun, without_content
from variseq.content.encoders import encoder_named
from variseq.errors import InputError
from variseq.evaluation.groups import SizeThirds
from variseq.evaluation.recommender import Recommender
from variseq.events.simulate import SimulationOptions, simulate
from variseq.log import Log
from variseq.recommend.network_model import ModelRecommender, engine_of
from variseq.terminal.run_config import RunConfig, run_config

SHOP = SimulationOptions(
    num_users=1500,
    num_items=400,
    num_categories=9,
    mean_events=25,
    transition_share=0.2,
    taste_prior_events=1.0,
    content=True,
)
NEW_SHARE, MOST_POPULAR = 0.15, 7
"""The share of new items, of which none is among the most popular."""
NUM_USERS = 1000
OF_SHOP = {
    "model.hidden_size": 64, "model.latent_dim": 64, "model.num_layers": 1, "model.num_heads": 1,
    "model.max_seq_len": 50, "training.max_epochs": 6, "training.batch_tokens": 256, "training.learning_rate": 0.005,
    "training.warmup_steps": 50, "training.exclude_seen": False,
}  # fmt: skip
OF_FILMS = {"model.max_seq_len": 100, "training.max_epochs": 6, "training.batch_tokens": 512}
FIXED = {"size": "tiny", "split.by": "leave-one-out", "training.refit_fraction": 0.0}
ONE_SECOND_APART = pa.timestamp("s", "UTC")
TITLE, CATEGORY, IMAGE, AUDIO = "title", "category", "image_vector", "audio_vector"


@dataclass(frozen=True, eq=False)
class Rows:
    """A log, all columns of its items, and which of them the items of each row have."""

    events: pa.Table
    items: pa.Table
    columns: dict[str, tuple[str, ...]]
    settings: dict[str, Any]
    data: dict[str, Any]
    new: list[Any] = field(default_factory=list)
    """Items without an event but the last ones of histories."""

    def log(self, row: str) -> Log:
        items = self.items.select(["item_id", *self.columns[row]]) if self.columns[row] else None
        return read(self.events, items=items)


def simulated(folder: Path | None, seed: int) -> Rows:
    """A simulated shop of this seed; nothing is read."""
    whole = simulate(replace(SHOP, seed=seed))
    random = np.random.default_rng(seed)
    is_new = (random.random(SHOP.num_items) < NEW_SHARE) & (whole.catalog.rank >= MOST_POPULAR)
    shop = whole.hold_out(is_new)
    with tempfile.TemporaryDirectory() as media:
        items = whole.write_media(media)
        for kind, encoder in (("image", "color"), ("audio", "mel")):
            items = with_vectors(items, kind, encoder, [str(Path(media, path)) for path in items[kind].to_pylist()])
    text = (TITLE, "text")
    columns = {"none": (), "text": text, "image": (IMAGE,), "audio": (AUDIO,), "all": (*text, IMAGE, AUDIO)}
    return Rows(
        shop.events(), items, columns, OF_SHOP, {"name": "simulated"}, np.array(whole.item_ids())[is_new].tolist()
    )


def films(folder: Path | None, seed: int) -> Rows:
    """Users of MovieLens-1M, drawn by the seed; `folder` is that of all data sets."""
    assert folder is not None
    dataset = load_dataset("ml-1m", folder / "ml-1m")
    histories, vocabulary, catalog = dataset.log.histories, dataset.log.vocabulary, dataset.log.items
    assert catalog is not None
    chosen = np.random.default_rng(seed).permutation(vocabulary.num_users)[:NUM_USERS]
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    kept = np.isin(user, chosen)
    events = pa.table({"user_id": user[kept], "item_id": histories.item[kept],
                       "timestamp": pa.array(np.arange(int(kept.sum())), ONE_SECOND_APART)})  # fmt: skip
    paths = [folder / "ml-1m-posters" / "posters" / f"{one}.jpg" for one in vocabulary.items.to_pylist()]
    items = pa.table({
        "item_id": np.arange(len(paths)),
        TITLE: catalog.table.column(TITLE),
        CATEGORY: [list(names) for names in catalog.categories(range(len(paths)))],
    })  # fmt: skip
    items = with_vectors(items, "image", "color", [str(path) if path.exists() else None for path in paths])
    columns = {"none": (), "genres": (CATEGORY,), "titles": (TITLE,), "posters": (IMAGE,),
               "genres and titles": (CATEGORY, TITLE), "all": (CATEGORY, TITLE, IMAGE)}  # fmt: skip
    data = dataset.description | {"num_events": len(events), "num_users": NUM_USERS}
    data["notes"] = [*data["notes"], f"{NUM_USERS:,} users; {sum(path.exists() for path in paths):,} posters."]
    return Rows(events, items, columns, OF_FILMS, data)


SOURCES = {"simulated": simulated, "ml-1m-posters": films}


def with_vectors(items: pa.Table, kind: str, encoder: str, paths: list[str | None]) -> pa.Table:
    """The items with the vectors of their files, null where there is none."""
    rows = encoder_named(kind, encoder).encode(paths)
    vectors = [None if path is None else row for path, row in zip(paths, rows, strict=True)]
    return items.append_column(f"{kind}_vector", pa.array(vectors, pa.list_(pa.float32())))


def chosen_rows(wanted: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """The rows that are wanted, all by default. Raises InputError for one that is not known."""
    rows = list(known)
    if unknown := [row for row in wanted or () if row not in rows]:
        raise InputError(f"There is no row {unknown[0]!r}. There are: {', '.join(rows)}.")
    return [row for row in rows if wanted is None or row in wanted]


def compare_parts(name: str, folder: Path | None, seed: int, rows: Sequence[str] | None = None) -> Iterator[Record]:
    """A record for each row; the others are compared with the first, and forecasts without a part with the last fit.

    `rows` are those that are wanted, all by default; without the first one there is no comparison with it.
    """
    source = SOURCES[name](folder, seed)
    settings = run_config(None, {**FIXED, **source.settings, "seed": seed}, ())
    first: TestQueries | None = None
    for row in chosen_rows(rows, source.columns):
        log = source.log(row)
        model, seconds = fitted(log, settings)
        assert model.checkpoint is not None
        forecast = ModelRecommender(engine_of(model.checkpoint).model)
        queries = TestQueries.of(forecast, model.checkpoint, log, settings)
        further = {"cpu_seconds": seconds} | recall_of_new(forecast, log, settings, source.new)
        first = queries if row == "none" else first
        yield _record(source, name, row, settings, _metrics(queries, first) | further)
    if row != "all":
        return
    for left in without_content(ComparedRun(row, model.checkpoint, forecast)):
        without = TestQueries.of(left, model.checkpoint, log, settings)
        further = {"is_fitted": False} | recall_of_new(left, log, settings, source.new)
        yield _record(source, name, left.name, settings, _metrics(without, queries) | further)


def _metrics(queries: TestQueries, first: TestQueries | None) -> dict[str, Any]:
    known = queries.count > 0
    rare = known & (SizeThirds.of(queries.count, "none").index(queries.count) == int((~known).any()))
    found: dict[str, Any] = {"num_queries": int(known.sum()), "num_rare": int(rare.sum()),
                             "most_events_of_rare": int(queries.count[rare].max())}  # fmt: skip
    for chosen, suffix in ((known, ""), (rare, "_rare")):
        found |= queries.means(chosen, suffix)
        found |= {} if first is None or queries is first else queries.differences(first, chosen, suffix)
    return found


def recall_of_new(recommender: Recommender, log: Log, settings: RunConfig, new: list[Any]) -> dict[str, float]:
    """Recall of those whose next item is new, with the new items ranked alone; ties are broken against it."""
    if not new:
        return {}
    part = log.split(settings.split.by)[2].part
    queries, columns = part.queries(), log.vocabulary.item_positions(new)
    target = part.histories.item[queries.position]
    asking = np.flatnonzero(np.isin(target, columns))
    scores = recommender.scores(part.histories_before(queries).rows(asking)).numpy()
    own = scores[np.arange(len(asking)), target[asking]]
    return {"recall_new": float(((scores[:, columns] >= own[:, None]).sum(axis=1) <= K).mean())}


def _record(source: Rows, name: str, row: str, settings: RunConfig, metrics: dict[str, Any]) -> Record:
    resolved = {"model": settings.model, "training": settings.training, "size": settings.size}
    case = {"data": name, "mode": "parts", "row": row}
    return record_of("content", case, metrics, seed=settings.seed, settings=resolved, data=source.data)
