"""One server that many tests look at; those that change how it is started start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.server_process import ServerProcess, serving


@pytest.fixture(scope="package")
def server(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without keys, with nothing in its store at the start."""
    with serving(tmp_path_factory.mktemp("server"), bundle_folder, "--body-seconds", "1") as started:
        yield started
