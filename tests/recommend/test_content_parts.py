"""A run evaluated without each part of the content of its items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import BASELINES, small_model
from variseq.comparison import ComparedRun, without_content
from variseq.errors import InputError
from variseq.estimator import VariationalAttention
from variseq.events.simulate import Simulation
from variseq.log import read
from variseq.ranking.mixture import MixtureModel
from variseq.recommend.network_model import CONTENT, ModelRecommender, engine_of
from variseq.reports.tables import evaluation_grids

pytestmark = pytest.mark.slow
ROWS = ["variseq", "variseq, without text", "variseq, without looks", "variseq, without all content"]


@pytest.fixture(scope="module")
def model(shop: Simulation) -> VariationalAttention:
    """Texts, and vectors named `looks` that are drawn at random."""
    items = shop.items()
    looks = np.random.default_rng(0).normal(size=(len(items), 6)).astype(np.float32)
    items = items.append_column("looks", pa.array(list(looks), pa.list_(pa.float32())))
    train, valid, _ = read(shop.events(), items=items).split("leave-one-out")
    return small_model(max_epochs=3).fit(train, valid, verbose=0)


def test_every_part_is_a_row_that_is_compared_and_the_report_shows_the_rare_ones(model: VariationalAttention) -> None:
    results = model.evaluate(k=5, content_parts=True)
    assert [one.model for one in results.evaluations] == [*ROWS, *BASELINES]
    assert [one.model for one in results.baselines] == list(BASELINES)
    assert [one["compared_with"] for one in results.table["comparisons"]][::2] == ROWS[1:]
    assert results.row(ROWS[3])["nll"] != results.row("variseq")["nll"]
    of_ndcg, of_nll = (one for one in evaluation_grids(results) if "content" in one.title)
    rarest = results.row(ROWS[1])["by_item_popularity"][0]
    for grid, shown in ((of_ndcg, f"{rarest['ndcg@5']:.4f}"), (of_nll, f"{rarest['nll']:.3f}")):
        assert [name for name, _ in grid.rows] == ROWS
        assert grid.headings[1] == f"{rarest['group']} training events"
        assert grid.rows[1][1][1].value == shown


def test_parts_add_up_and_new_items_lose_their_own_map(model: VariationalAttention) -> None:
    checkpoint = model.checkpoint
    assert checkpoint is not None
    forecast = ModelRecommender(engine_of(checkpoint).model)
    is_new = np.arange(checkpoint.vocabulary.num_items) < 3
    tables = replace(forecast.model.tables, is_new=is_new)
    forecast.model = MixtureModel(forecast.model.encoder, tables, forecast.model.calibration)
    *parts, everything = [one.model.tables for one in without_content(ComparedRun("variseq", checkpoint, forecast))]
    removed = [tables.vectors - one.vectors for one in (*parts, everything)]
    np.testing.assert_allclose(removed[0] + removed[1], removed[2], atol=1e-5)
    vectors = checkpoint.new_item_vectors
    assert vectors is not None
    assert vectors.encoder is not None
    encoded = vectors.encoder.encode(checkpoint.items.table)
    expected = np.where(is_new[:, None], encoded @ vectors.content, encoded @ vectors.content_of_known)
    np.testing.assert_allclose(removed[2][:, :-1], expected, atol=1e-5)
    assert not everything.content.codes.any()
    assert parts[0].content.codes.any()


def test_run_without_content_and_one_of_an_earlier_version_are_refused(
    fitted: VariationalAttention, model: VariationalAttention
) -> None:
    checkpoint = fitted.checkpoint
    assert checkpoint is not None
    without = replace(checkpoint, counts={name: one for name, one in checkpoint.counts.items() if name != CONTENT})
    assert model.checkpoint is not None
    counts = {name: one for name, one in model.checkpoint.counts.items() if "of_known" not in name}
    for changed, message in (
        (without, "'variseq' was fitted without content of items"),
        (replace(model.checkpoint, counts=counts), "by an earlier version, which did not keep each part. Fit it again"),
    ):
        run = ComparedRun("variseq", changed, ModelRecommender(engine_of(changed).model))
        with pytest.raises(InputError, match=message):
            without_content(run)
