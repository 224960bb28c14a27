"""Models are swapped while requests go on; a bad one never takes the place of a good one."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.load import load
from tests.serving.server_process import LocalServer, serving_here
from variseq.errors import CheckpointError
from variseq.serving.models import ModelManager

WISH = {"history": ["i00", "i01"], "k": 5}


def another_version(bundle: Path, folder: Path) -> None:
    """The same model under another version: the manifest says something else of its health."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["latent"]["note"] = folder.name
    (folder / "manifest.json").write_text(json.dumps(manifest))


def damaged(bundle: Path, folder: Path) -> None:
    """One byte of the encoder is another."""
    shutil.copytree(bundle, folder)
    encoder = bytearray((folder / "encoder.onnx").read_bytes())
    encoder[len(encoder) // 2] ^= 1
    (folder / "encoder.onnx").write_bytes(encoder)


@pytest.fixture(scope="module")
def models(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    another_version(bundle_folder, root / "first")
    another_version(bundle_folder, root / "second")
    damaged(bundle_folder, root / "damaged")
    (root / "empty").mkdir()
    return root


@pytest.fixture
def swapping(models: Path) -> Iterator[LocalServer]:
    (models / "current").unlink(missing_ok=True)
    with serving_here(models / "first", model_dir=models) as server:
        yield server


def swap(server: LocalServer, name: str) -> int:
    return server.client.post("/v1/admin/model", json={"model_name": name}).status_code


def test_swap_under_load_fails_no_request_and_each_answer_is_of_one_version(swapping: LocalServer) -> None:
    first = swapping.client.get("/v1/admin/models").json()
    assert (first["models"], first["model_name"]) == (["damaged", "empty", "first", "second"], "first")
    with load(swapping.address, 8, WISH) as found:
        found.wait_for(8)
        for name in ("second", "first", "second", "first", "second"):
            assert swap(swapping, name) == 200
            found.wait_for(8)
    assert found.failed == []
    versions = {answer["model_version"] for answer in found.answers}
    assert len(versions) == 2
    assert swapping.client.get("/v1/admin/models").json()["model_name"] == "second"


def test_bad_model_is_refused_and_the_old_one_stays(swapping: LocalServer, models: Path) -> None:
    before = swapping.recommend(**WISH)["model_version"]
    with load(swapping.address, 4, WISH) as found:
        for name in ("damaged", "empty", "missing"):
            response = swapping.client.post("/v1/admin/model", json={"model_name": name})
            assert response.status_code == 409
            assert str(models) not in response.text
        found.wait_for(4)
    assert found.failed == []
    assert {answer["model_version"] for answer in found.answers} == {before}
    assert not (models / "current").exists()


def test_no_client_chooses_a_path_or_an_address(swapping: LocalServer) -> None:
    """CVE-2023-43654, CVE-2023-1177, CVE-2024-1560: a name is letters and digits, or nothing is looked for."""
    names = ["../first", "..", ".", "/etc", "first/../second", "a/b", "%2e%2e", "..%2f", "first\n", "", "http://x", "é"]
    for name in [*names, "x" * 65, "first\x00", "file:///etc/passwd"]:
        assert swap(swapping, name) == 400, name


def test_link_that_leads_out_of_the_models_is_no_model(models: Path, bundle_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    (root / "outside").symlink_to(bundle_folder, target_is_directory=True)
    manager = ModelManager(bundle_folder, root)
    for name in ("outside", "..", ".", "a/../outside"):
        with pytest.raises(CheckpointError, match="There is no model"):
            manager.folder(name)


def test_chosen_model_is_followed_from_the_file_and_at_the_next_start(models: Path) -> None:
    (models / "current").unlink(missing_ok=True)
    with serving_here(models / "first", model_dir=models) as server:
        before = server.recommend(**WISH)["model_version"]
        (models / "partial").write_text("second\n")
        os.replace(models / "partial", models / "current")
        after = wait_for_other(server, before)
        (models / "current").write_text("damaged\n")
        end = time.monotonic() + 20
        while not server.client.get("/ready").json()["problems"] and time.monotonic() < end:
            time.sleep(0.05)
        assert "damaged" in server.client.get("/ready").json()["problems"][0]
        assert "variseq_rejected_models_total 1.0" in server.client.get("/metrics").text
        assert any("damaged" in str(one.get("message")) and one["level"] == "error" for one in server.log())
        assert server.recommend(**WISH)["model_version"] == after
        assert swap(server, "second") == 200
        assert server.client.get("/ready").json()["problems"] == []
    with serving_here(models / "first", model_dir=models) as server:
        assert server.recommend(**WISH)["model_version"] == after


def wait_for_other(server: LocalServer, before: str) -> str:
    end = time.monotonic() + 20
    while (now := server.recommend(**WISH)["model_version"]) == before:
        assert time.monotonic() < end
        time.sleep(0.05)
    return str(now)


def test_server_without_models_folder_swaps_nothing(server: LocalServer) -> None:
    response = server.client.post("/v1/admin/model", json={"model_name": "first"})
    assert response.status_code == 409
    assert "--model-dir" in response.json()["error"]["message"]
