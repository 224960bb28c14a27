"""Micro-videos that nobody has watched yet, ranked by the vectors of their pictures and sounds.

`python -m benchmarks.content unordered tiktok-mm` runs it. A tenth of the items is held out of training with all of
their pairs, and added to the fitted run as new items. They are ranked among themselves for each user who has one of
them and a pair of training with another item. The log has no order and no times: the events of a user are put into a
random order, which the model takes for the true one.

- random: the expectation of a random order, which is that of popularity too, as all are equally unknown.
- popular, as if known: by the number of the hidden pairs themselves, which nobody could know.
- nearest: the likeness of content to that of the history.
- run: a run that has the items added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from jaxtyping import Bool, Float, Int

from benchmarks.content_queries import fitted
from measurement.files import find_files
from measurement.records import Record, record_of, sha256_of
from variseq import read
from variseq.content.item_content import ItemContent
from variseq.evaluation.significance import mean_interval
from variseq.ranking.content_table import ContentTable
from variseq.sequences.histories import Histories
from variseq.terminal.run_config import RunConfig, run_config

K, HELD_OUT_SHARE = 20, 0.1
FILES = ("interactions.csv.gz", "audio_feat.npy", "image_feat.npy")
SETTINGS = {
    "size": "tiny", "split.by": "leave-one-out", "split.test": "none", "training.refit_fraction": 0.0,
    "training.max_epochs": 6, "training.batch_tokens": 512,
}  # fmt: skip
AUDIO, IMAGE = "audio_vector", "image_vector"


@dataclass(frozen=True, eq=False)
class Videos:
    """Known pairs of users and items, hidden ones, and a table of all items; `asking` have pairs of both kinds."""

    user: Int[np.ndarray, " pair"]
    item: Int[np.ndarray, " pair"]
    is_hidden: Bool[np.ndarray, " pair"]
    items: pa.Table
    cold: Int[np.ndarray, " cold"]
    asking: Int[np.ndarray, " user"]

    @classmethod
    def of(cls, pairs: pa.Table, paths: list[Path], seed: int) -> Videos:
        """`pairs` with part, user and item, and the files of their vectors."""
        user, item = (pairs.column(name).to_numpy() for name in ("user", "item"))
        audio, image = (np.load(path).astype(np.float32) for path in paths)
        random = np.random.default_rng(seed)
        cold = np.sort(random.choice(len(audio), round(HELD_OUT_SHARE * len(audio)), replace=False))
        # The order of the rows becomes that of the events.
        order = random.permutation(len(user))
        user, item = user[order], item[order]
        is_hidden = np.isin(item, cold)
        kept = is_hidden | (pairs.column("part").to_numpy(zero_copy_only=False)[order] == "train")
        user, item, is_hidden = user[kept], item[kept], is_hidden[kept]
        vectors = {name: pa.array(list(rows), pa.list_(pa.float32())) for name, rows in
                   ((AUDIO, audio), (IMAGE, image))}  # fmt: skip
        items = pa.table({"item_id": np.arange(len(audio)), **vectors})
        asking = np.intersect1d(user[is_hidden], user[~is_hidden])
        return cls(user, item, is_hidden, items, cold, asking)

    def recall(self, listed: Int[np.ndarray, "user k"]) -> Float[np.ndarray, " user"]:
        """The share of the hidden items of each asking user that is in the list."""
        found = np.zeros(len(self.asking))
        for row, user in enumerate(self.asking.tolist()):
            wanted = self.item[self.is_hidden & (self.user == user)]
            found[row] = np.isin(wanted, listed[row]).mean()
        return found

    def popular(self) -> Int[np.ndarray, "user k"]:
        """The cold items with the most hidden pairs, for all users alike."""
        count = np.bincount(self.item[self.is_hidden], minlength=len(self.items))[self.cold]
        return np.tile(self.cold[np.argsort(-count, kind="stable")[:K]], (len(self.asking), 1))

    def nearest(self, columns: tuple[str, ...]) -> Int[np.ndarray, "user k"]:
        """The cold items whose content is likest to that of the history."""
        table = self.items.select(["item_id", *columns])
        content = ItemContent.fit(table, ~np.isin(np.arange(len(table)), self.cold))
        assert content is not None
        codes = ContentTable.of(content.encode(table))
        known = [~self.is_hidden & (self.user == user) for user in self.asking.tolist()]
        of_users = Histories.of_items([self.item[one].tolist() for one in known])
        likeness = codes.likeness(codes.of_histories(of_users), self.cold)
        return self.cold[np.argsort(-likeness, axis=1, kind="stable")[:, :K]]

    def of_run(self, columns: tuple[str, ...], settings: RunConfig) -> Int[np.ndarray, "user k"]:
        """What a run recommends that has the cold items added."""
        known = ~self.is_hidden
        events = pa.table({"user_id": self.user[known], "item_id": self.item[known],
                           "timestamp": pa.array(np.arange(int(known.sum())), pa.timestamp("s", "UTC"))})  # fmt: skip
        table = self.items.select(["item_id", *columns])
        is_cold = pa.array(np.isin(np.arange(len(table)), self.cold))
        warm, cold = table.filter(pa.compute.invert(is_cold)), table.filter(is_cold)
        model, _ = fitted(read(events, items=warm), settings)
        model.add_items(cold)
        listed = np.zeros((len(self.asking), K), np.int64)
        ids = self.cold.tolist()
        for first in range(0, len(self.asking), 500):
            users = self.asking[first : first + 500]
            answer = model.recommend(users=users.tolist(), k=K, candidates=ids, ranks_only=True)
            listed[first : first + 500] = np.array(answer.item_id).reshape(len(users), K)
        return listed


def compare_unordered(folder: Path, seed: int) -> Iterator[Record]:
    """A record for each row, with the difference to a random order."""
    paths = find_files(folder, *FILES)
    pairs = pa.csv.read_csv(paths[0])
    videos, settings = Videos.of(pairs, paths[1:], seed), run_config(None, {**SETTINGS, "seed": seed}, ())
    by_chance = np.full(len(videos.asking), K / len(videos.cold))
    rows: dict[str, Callable[[], Float[np.ndarray, " user"]]] = {
        "random": lambda: by_chance,
        "popular, as if known": lambda: videos.recall(videos.popular()),
        "nearest, audio": lambda: videos.recall(videos.nearest((AUDIO,))),
        "nearest, image": lambda: videos.recall(videos.nearest((IMAGE,))),
        "nearest, all": lambda: videos.recall(videos.nearest((AUDIO, IMAGE))),
        "run, all": lambda: videos.recall(videos.of_run((AUDIO, IMAGE), settings)),
    }
    data = {
        "name": "tiktok-mm", "title": "TikTok micro-videos", "sha256": {path.name: sha256_of(path) for path in paths},
        "num_events": len(pairs), "num_users": len(pairs.column("user").unique()), "num_items": len(videos.items),
        "notes": ["The log has no order and no times."],
    }  # fmt: skip
    for row, recall_of in rows.items():
        found = recall_of()
        metrics: dict[str, Any] = {
            "num_users": len(videos.asking), "num_cold": len(videos.cold),
            "num_pairs": int((videos.is_hidden & np.isin(videos.user, videos.asking)).sum()),
            "recall": float(found.mean()), "recall_interval": list(mean_interval(videos.asking, found)),
        }  # fmt: skip
        if row != "random":
            difference = found - by_chance
            metrics |= {"recall_difference": float(difference.mean()),
                        "recall_difference_interval": list(mean_interval(videos.asking, difference))}  # fmt: skip
        case = {"data": "tiktok-mm", "mode": "unordered", "row": row}
        yield record_of("content", case, metrics, seed=seed, settings=SETTINGS, data=data)
