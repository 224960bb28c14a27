"""An export whose parts cannot come from the same run is refused, whichever of them is wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from variseq.inference.bundle import MANIFEST, TABLES

Arrays = dict[str, np.ndarray]
DAMAGES: dict[str, Callable[[Arrays], Arrays]] = {
    "fewer vectors": lambda tables: {"item_vectors": tables["item_vectors"][:-1]},
    "fewer biases": lambda tables: {"item_bias": tables["item_bias"][:-1]},
    "fewer shares": lambda tables: {"log_share": tables["log_share"][:-1]},
    "fewer trends": lambda tables: {"log_trend": tables["log_trend"][:-1]},
    "fewer offsets": lambda tables: {"offsets": tables["offsets"][:-1]},
    "fewer followers": lambda tables: {"follower": tables["follower"][:-1]},
    "fewer counts": lambda tables: {"count": tables["count"][:-1]},
    "fewer followers and counts": lambda tables: {
        "follower": tables["follower"][:-1],
        "count": tables["count"][:-1],
    },
    "offsets that end later": lambda tables: {
        "offsets": np.append(tables["offsets"][:-1], tables["offsets"][-1:] + 1),
    },
}
# In a process of its own: the types that are checked while tests run would find most of this before the code does.
READ = """
import sys
from pathlib import Path
from variseq.errors import CheckpointError
from variseq.inference.bundle import read_bundle
for folder in sys.argv[1:]:
    try:
        read_bundle(Path(folder))
        print("read")
    except CheckpointError as error:
        print(str(error).replace("\\n", " "))
"""


def damaged(whole: Path, folder: Path, damage: Callable[[Arrays], Arrays]) -> Path:
    """A copy of an export with other tables, whose checksum is right all the same."""
    shutil.copytree(whole, folder)
    tables = load_file(folder / TABLES)
    save_file({**tables, **damage(tables)}, folder / TABLES)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"][TABLES] = hashlib.sha256((folder / TABLES).read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def said(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What comes of reading each damaged export, and a whole one."""
    root = tmp_path_factory.mktemp("damaged")
    damages = {"nothing": lambda tables: {}, **DAMAGES}
    folders = [damaged(bundle_folder, root / str(place), damage) for place, damage in enumerate(damages.values())]
    done = subprocess.run([sys.executable, "-c", READ, *folders], check=True, capture_output=True, text=True)
    return dict(zip(damages, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("name", DAMAGES)
def test_export_with_tables_of_different_lengths_is_refused(said: dict[str, str], name: str) -> None:
    assert "its tables are of different lengths" in said[name]


def test_export_that_fits_together_is_read(said: dict[str, str]) -> None:
    assert said["nothing"] == "read"
