"""The same model behind LitServe, in an environment of its own: what a general model server makes of it.

Two ways: the exported engine that `variseq serve` runs too ("engine"), and the run as it was trained, loaded with torch
and asked as in a notebook ("torch"). LitServe keeps no histories, so each request carries its own. Requests that arrive
together are answered in one pass of the engine there too (max_batch_size, batch_timeout); one worker, and the server
and its worker share the core.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = (
    *("litserve==0.2.19", "onnxruntime", "faiss-cpu", "numpy", "pyarrow", "safetensors"),
    *("jaxtyping", "duckdb", "narwhals", "pandas", "pyyaml", "pydantic"),
)
TORCH_PACKAGES = ("torch==2.13.0", "rich", "typer")
START_SECONDS = 60
ENGINE = """
import sys, pathlib
import litserve as ls
from variseq.inference.engine import Engine
from variseq.inference.question import Question

class Recommend(ls.LitAPI):
    def setup(self, device):
        self.engine = Engine.load(pathlib.Path(sys.argv[1]))

    def decode_request(self, request):
        return request

    def predict(self, requests):
        histories = [self.engine.given(one["history"]) for one in requests]
        questions = [Question(k=10, because=one["because"]) for one in requests]
        return self.engine.answer(list(zip(histories, questions)))

    def unbatch(self, output):
        return list(output)

    def encode_response(self, answer):
        fields = ("item_id", "rank", "score", "probability", "low", "high", "title", "because")
        return {"recommendations": [{name: getattr(one, name) for name in fields} for one in answer.recommendations]}
"""
TORCH = """
import json, sys
import litserve as ls
import torch
import variseq

class Recommend(ls.LitAPI):
    def setup(self, device):
        torch.set_num_threads(1)
        self.model = variseq.load(sys.argv[1], device="cpu")

    def decode_request(self, request):
        return request

    def predict(self, requests):
        return [self.model.recommend(history=one["history"], k=10) for one in requests]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, answer):
        return {"recommendations": json.loads(answer.to_json(orient="records"))}
"""
START = """
if __name__ == "__main__":
    api = Recommend(max_batch_size=32, batch_timeout=0.005)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
"""
SERVICES = {"engine": ENGINE + START, "torch": TORCH + START}


def python_with_litserve(folder: Path, way: str) -> Path:
    """The interpreter of the environment, made the first time."""
    home = folder / ("litserve" if way == "engine" else "litserve-torch")
    packages = PACKAGES if way == "engine" else (*PACKAGES, *TORCH_PACKAGES)
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True)
        (home / "installed").touch()
    return python


@contextmanager
def litserve(model: Path, folder: Path, core: int, way: str = "engine") -> Iterator[int]:
    """LitServe on one core with an exported model ("engine") or with a run ("torch"); its port."""
    service = folder / f"litserve_{way}.py"
    service.write_text(SERVICES[way])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with (folder / "litserve.log").open("wb") as log:
        python = str(python_with_litserve(folder, way))
        process = subprocess.Popen(
            ["taskset", "-c", str(core), python, str(service), str(model.resolve()), str(port)],
            stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(port)
        yield port
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def wait_for(port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                time.sleep(3)
                return
        time.sleep(0.2)
    raise RuntimeError("LitServe did not start")
