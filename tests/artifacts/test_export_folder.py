"""A run and its export are folders of one format; parts that cannot come from the same run are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from variseq.artifacts.checkpoint import load_checkpoint
from variseq.artifacts.folder import ENCODER, HISTORIES, MANIFEST, TABLES, WEIGHTS
from variseq.errors import CheckpointError, InputError
from variseq.export import export
from variseq.inference.engine import load_engine

Arrays = dict[str, np.ndarray]
SHORTER = ("item_vectors", "start_vector", "log_share", "log_trend", "offsets", "follower", "count")
DAMAGES: dict[str, Callable[[Arrays], Arrays]] = {
    **{name: lambda tables, name=name: {name: tables[name][:-1]} for name in SHORTER},  # type: ignore[misc]
    "follower and count": lambda tables: {name: tables[name][:-1] for name in ("follower", "count")},
    "offsets that end later": lambda tables: {"offsets": np.append(tables["offsets"][:-1], tables["offsets"][-1] + 1)},
}


def damaged(whole: Path, folder: Path, damage: Callable[[Arrays], Arrays]) -> Path:
    """A copy of an export with other tables, whose checksum is right all the same."""
    shutil.copytree(whole, folder)
    tables = load_file(folder / TABLES)
    save_file({**tables, **damage(tables)}, folder / TABLES)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"][TABLES] = hashlib.sha256((folder / TABLES).read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("name", DAMAGES)
def test_export_with_tables_of_different_lengths_is_refused(bundle_folder: Path, tmp_path: Path, name: str) -> None:
    load_engine(damaged(bundle_folder, tmp_path / "whole", lambda tables: {}))
    with pytest.raises(CheckpointError, match="its parts have different numbers of"):
        load_engine(damaged(bundle_folder, tmp_path / "damaged", DAMAGES[name]))


def test_run_that_is_exported_is_served_and_still_loaded(exported_run: Path, run_folder: Path) -> None:
    before, after = load_checkpoint(run_folder), load_checkpoint(exported_run)
    assert after.vocabulary.users.equals(before.vocabulary.users)
    served = load_engine(exported_run).vocabulary
    assert served.items.equals(before.vocabulary.items)
    assert served.num_users == 0


def test_run_and_export_of_its_own_have_one_format(exported_run: Path, bundle_folder: Path) -> None:
    run, export_alone = (json.loads((folder / MANIFEST).read_text()) for folder in (exported_run, bundle_folder))
    assert export_alone.keys() < run.keys()
    assert all(run[key] == value for key, value in export_alone.items() if key not in ("sha256", "created"))
    assert export_alone["sha256"].keys() < run["sha256"].keys()
    first, second = [load_engine(one).health | {"version": ""} for one in (exported_run, bundle_folder)]
    assert first == second


def test_export_names_no_user_and_holds_no_events(bundle_folder: Path) -> None:
    names = {path.name for path in bundle_folder.rglob("*")}
    assert not names & {WEIGHTS, HISTORIES}
    assert pq.read_table(bundle_folder / "vocabulary" / "users.parquet").num_rows == 0
    assert "log" not in json.loads((bundle_folder / MANIFEST).read_text())


def test_export_is_no_run_and_a_run_no_export(bundle_folder: Path, run_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="weights"):
        load_checkpoint(bundle_folder)
    with pytest.raises(CheckpointError, match="variseq export"):
        load_engine(run_folder)


def test_nothing_is_exported_twice(exported_run: Path, bundle_folder: Path) -> None:
    with pytest.raises(InputError):
        export(exported_run)
    with pytest.raises(InputError):
        export(exported_run, bundle_folder)


def test_unfinished_export_leaves_the_run_as_it_was(run_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run_folder, tmp_path / "run"))
    (folder / ENCODER).write_bytes(b"half")
    assert load_checkpoint(folder).manifest == load_checkpoint(run_folder).manifest
    with pytest.raises(CheckpointError):
        load_engine(folder)
