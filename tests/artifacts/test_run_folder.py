from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.conftest import largest_file
from variseq.artifacts.checkpoint import load_checkpoint, save_checkpoint
from variseq.artifacts.folder import FORMAT_VERSION
from variseq.errors import CheckpointError, InputError
from variseq.estimator import VariationalAttention
from variseq.model.posterior import NetworkScorer

FILES = [
    "manifest.json",
    "config.yaml",
    "weights.safetensors",
    "counts.safetensors",
    "metrics.jsonl",
    "item_columns.parquet",
    "histories.parquet",
    "history_bounds.parquet",
    "vocabulary/vocabulary.json",
    "vocabulary/users.parquet",
    "vocabulary/items.parquet",
]


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    """A run folder that a test may damage."""
    return Path(shutil.copytree(run_folder, tmp_path / "copied"))


def test_folder_holds_open_formats_and_no_pickle(run_folder: Path) -> None:
    found = {path.relative_to(run_folder).as_posix() for path in run_folder.rglob("*") if path.is_file()}
    assert found == set(FILES)
    for name in found:
        start = (run_folder / name).read_bytes()[:2]
        assert start[:1] != b"\x80", f"{name} begins like a pickle"
        assert start != b"PK", f"{name} begins like a zip archive"


def test_loaded_run_scores_as_the_one_that_was_saved(fitted: VariationalAttention, tmp_path: Path) -> None:
    saved = fitted.checkpoint
    save_checkpoint(saved, tmp_path / "run")
    loaded = load_checkpoint(tmp_path / "run")
    scores = []
    for checkpoint in (saved, loaded):
        scorer = NetworkScorer(checkpoint.network)
        scores.append(scorer.scores(saved.histories))
    assert torch.equal(scores[0], scores[1])
    assert loaded.metrics == saved.metrics
    assert loaded.config == saved.config
    assert loaded.network.config == saved.network.config
    np.testing.assert_array_equal(loaded.bounds, saved.bounds)
    for name in ("offsets", "item", "behavior", "timestamp", "value"):
        np.testing.assert_array_equal(getattr(loaded.histories, name), getattr(saved.histories, name))
        assert getattr(loaded.histories, name).dtype == getattr(saved.histories, name).dtype


def test_manifest_tells_format_versions_and_data(run_folder: Path) -> None:
    manifest = json.loads((run_folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["format_version"] == FORMAT_VERSION
    assert manifest["versions"].keys() >= {"variseq", "torch", "numpy"}
    assert manifest["protocol"]["method"] == "leave-one-out"
    assert len(manifest["protocol"]["split_hash"]) == 64


def one_message(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def test_what_is_no_run_is_reported(tmp_path: Path) -> None:
    assert "does not exist" in one_message(tmp_path / "nowhere")
    assert "no finished run" in one_message(tmp_path)


@pytest.mark.parametrize(("found", "told"), [(FORMAT_VERSION + 1, "Update variseq"), (1, "format 1, .*Fit again")])
def test_other_format_is_told_with_what_to_do(copied: Path, found: int, told: str) -> None:
    manifest = json.loads((copied / "manifest.json").read_text(encoding="utf-8"))
    (copied / "manifest.json").write_text(json.dumps(manifest | {"format_version": found}))
    assert re.search(told, one_message(copied))


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda content: None,
    "cut in half": lambda content: content[: len(content) // 2],
    "overwritten": lambda content: b"\x00\xff" * (len(content) // 2),
    "emptied": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_reported(copied: Path, name: str, damage: str) -> None:
    path = copied / name
    content = DAMAGES[damage](path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    one_message(copied)
    path.unlink(missing_ok=True)
    path.mkdir()
    one_message(copied)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", "[1]"),
        ("manifest.json", '{"format_version": 4}'),
        ("manifest.json", '{"format_version": 4, "network": [3], "has_histories": false, "has_items": false}'),
        ("config.yaml", ""),
        ("config.yaml", "- 1\n- 2\n"),
        ("config.yaml", "size: small\n"),
        ("metrics.jsonl", "{"),
    ],
)
def test_file_with_another_content_is_reported(copied: Path, name: str, content: str) -> None:
    (copied / name).write_text(content, encoding="utf-8")
    one_message(copied)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: None} for name in ("network", "protocol", "split_params", "calibration")),
        {"calibration": {}},
        {"format_version": "new"},
        {"network": {"num_items": 41}},
    ],
    ids=str,
)
def test_manifest_that_lost_a_part_or_is_of_another_run_is_reported(copied: Path, changes: dict[str, Any]) -> None:
    manifest = json.loads((copied / "manifest.json").read_text(encoding="utf-8"))
    network = {"network": manifest["network"] | changes["network"]} if changes.get("network") else {}
    (copied / "manifest.json").write_text(json.dumps(manifest | changes | network), encoding="utf-8")
    one_message(copied)


def test_histories_that_do_not_fit_their_bounds_are_reported(copied: Path) -> None:
    events = pq.read_table(copied / "histories.parquet")
    pq.write_table(events.slice(0, events.num_rows - 3), copied / "histories.parquet")
    one_message(copied)


def test_existing_folder_is_never_written_over(fitted: VariationalAttention, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        save_checkpoint(fitted.checkpoint, folder)
    assert [path.name for path in folder.iterdir()] == ["precious"]


def test_folder_that_cannot_be_made_is_one_message(fitted: VariationalAttention, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        save_checkpoint(fitted.checkpoint, tmp_path / "file" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("num_bytes", [10, 2000])
def test_save_that_runs_out_of_room_leaves_nothing(
    fitted: VariationalAttention, tmp_path: Path, num_bytes: int
) -> None:
    with largest_file(num_bytes), pytest.raises(InputError, match="could not be written"):
        save_checkpoint(fitted.checkpoint, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_one_flipped_bit_in_the_weights_is_noticed(copied: Path) -> None:
    path = copied / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is changed"):
        load_checkpoint(copied)
