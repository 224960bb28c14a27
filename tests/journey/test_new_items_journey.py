"""A model finds from text, pictures and tones alone which new item a simulated user takes next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from jaxtyping import Float

from tests.journey.test_simulated_journey import NETWORK, TRAINING
from variseq.content.encoders import encoder_named
from variseq.estimator import VariationalAttention
from variseq.evaluation.splits import Part
from variseq.events.simulate import Simulation, SimulationOptions, simulate
from variseq.log import read
from variseq.ranking.options import RecommendOptions

pytestmark = pytest.mark.slow

OPTIONS = SimulationOptions(
    num_users=1500,
    num_items=400,
    num_categories=9,
    mean_events=25,
    transition_share=0.2,
    taste_prior_events=1.0,
    content=True,
)
SETTINGS = TRAINING | {"max_epochs": 4, "batch_tokens": 256, "refit_fraction": 0.0}
K = 10
LEAST_SHARE = 0.8


def with_vectors(shop: Simulation, folder: Path) -> pa.Table:
    items = shop.write_media(folder)
    for kind, name in (("image", "color"), ("audio", "mel")):
        vectors = encoder_named(kind, name).encode([str(folder / path) for path in items[kind].to_pylist()])
        items = items.append_column(f"{kind}_vector", pa.array(list(vectors), pa.list_(pa.float32())))
    return items


def recall_of_model(shop: Simulation, is_new: np.ndarray, items: pa.Table) -> float:
    """Of users whose next item is new, with the new items ranked alone."""
    log = read(shop.events(), items=items)
    train, valid, test = log.split("leave-one-out")
    model = VariationalAttention("tiny", seed=0, device="cpu", model=NETWORK, training=SETTINGS)
    model.fit(train, valid, verbose=0)
    part: Part = test.part
    new = np.array(shop.item_ids())[is_new].tolist()
    queries = part.queries()
    target = np.array(log.vocabulary.items.to_pylist())[part.histories.item[queries.position]]
    asking = np.flatnonzero(np.isin(target, new))
    histories = part.histories_before(queries).rows(asking)
    options = RecommendOptions(k=K, candidates=new, ranks_only=True)
    found = model._engine().recommend(histories, asking.tolist(), [None] * len(asking), options)
    return float((np.array(found.item_id) == target[np.array(found.user_id)]).sum() / len(asking))


def recall_of_scores(scores: Float[np.ndarray, "query item"], target: np.ndarray) -> float:
    """Ties are broken at random."""
    tied = scores * (1 + 1e-9 * np.random.default_rng(0).random(scores.shape))
    rank = (tied >= tied[np.arange(len(target)), target][:, None]).sum(axis=1)
    return float((rank <= K).mean())


@pytest.fixture(scope="module")
def recalls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    pytest.importorskip("PIL")
    whole = simulate(OPTIONS)
    is_new = (np.random.default_rng(0).random(OPTIONS.num_items) < 0.15) & (whole.catalog.rank > 6)
    shop, items = whole.hold_out(is_new), with_vectors(whole, tmp_path_factory.mktemp("media"))
    position = shop.offsets[1:][np.diff(shop.offsets) > 0] - 1
    position = position[is_new[shop.item[position]]]
    target = np.searchsorted(np.flatnonzero(is_new), shop.item[position])
    return {
        "oracle": recall_of_scores(shop.new_item_distribution(position - 1, is_new)[:, is_new], target),
        "random": K / int(is_new.sum()),
        "all": recall_of_model(shop, is_new, items),
        "text": recall_of_model(shop, is_new, items.select(["item_id", "title", "text"])),
    }


def test_content_finds_new_items_and_all_kinds_of_it_more_than_text(recalls: dict[str, float]) -> None:
    assert recalls["all"] > 2 * recalls["random"]
    assert recalls["all"] > 1.2 * recalls["text"] > 1.2 * recalls["random"]
    assert recalls["all"] < 1.02 * recalls["oracle"], "no ranking can be better than the true one"


def test_new_items_are_ranked_nearly_as_by_the_oracle(recalls: dict[str, float]) -> None:
    assert recalls["all"] >= LEAST_SHARE * recalls["oracle"]
