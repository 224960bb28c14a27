"""An export with compressed item vectors: the same answers as the decoded vectors give, by both doors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from tests.artifacts.test_export_folder import Arrays, damaged
from variseq.artifacts.checkpoint import load_checkpoint
from variseq.artifacts.folder import TABLES
from variseq.cli import app
from variseq.errors import CheckpointError, InputError
from variseq.export import _codes, export
from variseq.inference.engine import load_engine
from variseq.ranking.engine import Answer, Request
from variseq.ranking.item_codes import ItemCodes
from variseq.ranking.options import RecommendOptions
from variseq.recommend.network_model import mixture_model


@pytest.fixture(scope="module", params=["int8", "pq"])
def compressed(request: pytest.FixtureRequest, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run_folder, tmp_path_factory.mktemp("compressed") / request.param, request.param)


def test_answers_are_those_of_the_decoded_vectors(compressed: Path, bundle_folder: Path, tmp_path: Path) -> None:
    codes = ItemCodes.of_tensors(load_file(compressed / TABLES))
    vectors: Callable[[Arrays], Arrays] = lambda _: {"item_vectors": codes[0 : len(codes)]}  # noqa: E731
    engines = [load_engine(compressed), load_engine(damaged(bundle_folder, tmp_path / "decoded", vectors))]
    asked = [{}, {"diversity": 0.5}, {"strategy": "thompson", "seed": 1}, {"conformal_level": 0.6}]
    answers = []
    for engine in engines:
        histories = [engine.given(engine.catalog.ids[:size]) for size in (0, 3, 9, 30)]
        requests = [Request(RecommendOptions(**options)) for options in asked]  # type: ignore[arg-type]
        answers.append(engine.answer([(one, request) for one in histories for request in requests]))
    for found, plain in zip(*answers, strict=True):
        assert isinstance(found, Answer)
        assert isinstance(plain, Answer)
        np.testing.assert_allclose(found.recommendations.probability, plain.recommendations.probability, rtol=1e-3)
        assert found.uncertainty == pytest.approx(plain.uncertainty, rel=1e-3, abs=1e-4)
    alike = [engine.catalog.similar(engine.catalog.ids[0], 5) for engine in engines]
    assert [one["score"] for one in alike[0]] == pytest.approx([one["score"] for one in alike[1]], abs=1e-4)


def test_damaged_code_book_is_refused(compressed: Path, tmp_path: Path) -> None:
    shorter: Callable[[Arrays], Arrays] = lambda tables: {"basis": tables["basis"][:-1]}  # noqa: E731
    load_engine(damaged(compressed, tmp_path / "whole", lambda _: {}))
    with pytest.raises(CheckpointError, match=r"is damaged .*do not fit together"):
        load_engine(damaged(compressed, tmp_path / "damaged", shorter))


def test_command_writes_what_python_writes(compressed: Path, run_folder: Path, tmp_path: Path) -> None:
    words = ["export", str(run_folder), "--out", str(tmp_path / "out"), "--compress", compressed.name]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (tmp_path / "out" / TABLES).read_bytes() == (compressed / TABLES).read_bytes()


def test_unknown_way_to_compress_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Allowed: none, int8, pq"):
        export(tmp_path / "nowhere", compress="int4")  # type: ignore[arg-type]


def test_run_that_was_saved_without_histories_gets_product_codes_too(run_folder: Path) -> None:
    checkpoint = replace(load_checkpoint(run_folder), histories=None, bounds=None)
    model = mixture_model(checkpoint.network, checkpoint.counts, checkpoint.calibrated.calibration)
    vectors = model.tables.vectors[:]
    codes = _codes(checkpoint, model, vectors, "pq")
    assert codes.shape == vectors.shape
    assert np.isfinite(codes[slice(None)]).all()
