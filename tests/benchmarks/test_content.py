from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.content import hold_out
from benchmarks.content_unordered import K, Videos
from variseq.events.simulate import Simulation
from variseq.log import read


@pytest.mark.parametrize("num_kept", [1, 2])
def test_held_out_items_have_no_events_but_the_last_ones_and_other_items_keep_theirs(
    shop: Simulation, num_kept: int
) -> None:
    log = read(shop.events(), items=shop.items())
    left, is_out = hold_out(log, 0, 0.2, num_kept)
    whole, histories = log.histories, left.histories
    for user in range(len(histories)):
        before, after = (one.history(user).item.tolist() for one in (whole, histories))
        early, late = before[:-num_kept], before[-num_kept:]
        assert after == [item for item in early if not is_out[item]] + late
    assert 0 < is_out.sum() < len(is_out)


def test_hidden_items_are_counted_for_those_who_have_known_ones_too(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    user, item = (random.integers(high, size=2000) for high in (50, 400))
    pairs = pa.table({"part": ["train", "test"] * 1000, "user": user, "item": item})
    for name in ("audio", "image"):
        np.save(tmp_path / f"{name}.npy", random.normal(size=(400, 20)).astype(np.float16))
    videos = Videos.of(pairs, [tmp_path / "audio.npy", tmp_path / "image.npy"], 0)
    assert len(videos.cold) == 40
    assert not np.isin(videos.item[~videos.is_hidden], videos.cold).any()
    assert np.isin(item, videos.cold).sum() == videos.is_hidden.sum(), "hidden pairs of all parts are asked for"
    listed = np.tile(videos.cold[:K], (len(videos.asking), 1))
    recall = videos.recall(listed)
    for row, one in enumerate(videos.asking.tolist()):
        wanted = item[(user == one) & np.isin(item, videos.cold)]
        assert recall[row] == pytest.approx(np.isin(wanted, videos.cold[:K]).mean())
    assert videos.recall(videos.popular()).mean() >= recall.mean()
    assert set(videos.nearest(("audio_vector",)).ravel().tolist()) <= set(videos.cold.tolist())
