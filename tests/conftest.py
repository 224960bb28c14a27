"""Simulated shoppers into one small trained run, shared by all tests that only look at one."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# The process that hands out tests reads this file too: what computes is imported by the fixtures, in those that test.
if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from variseq.estimator import VariationalAttention
    from variseq.events.simulate import Simulation
    from variseq.log import Log, LogPart

# How long an example takes says nothing on a machine that is shared; the same examples each time, so that a failure
# is one for everybody.
settings.register_profile("variseq", deadline=None, database=None, derandomize=True, max_examples=50)
settings.register_profile("quick", settings.get_profile("variseq"), max_examples=10)
settings.load_profile("variseq")

TESTS = Path(__file__).parent
COMPUTED = (
    *("model", "sequences", "content", "training", "ranking", "recommend", "evaluation", "privacy"),
    *("exposures", "off_policy", "experiments"),
)
"""Folders of tests of code that computes arrays."""
SERVED = {"first_export", "bundle_folder", "numbered_run", "pictured_run"}
"""Fixtures of what is served."""
BASELINES = ["popular", "recent-popular", "last-item-transitions", "item-knn", "own-frequency", "own-transitions"]
SMALL_NETWORK = {
    "hidden_size": 16,
    "latent_dim": 8,
    "num_layers": 1,
    "num_heads": 2,
    "attention_dim": 4,
    "max_seq_len": 20,
    "dropout": 0.1,
}
SHORT_TRAINING = {
    "max_epochs": 5,
    "patience": 5,
    "batch_tokens": 512,
    "learning_rate": 0.01,
    "warmup_steps": 5,
    "ema_decay": 0.9,
    "deterministic_fraction": 0.3,
    "kl_anneal_fraction": 0.2,
    "kl_target": 8.0,
    "beta": 1e-3,
    "weight_decay": 0.01,
    "item_weight_decay": 0.0,
    "num_samples": 1,
    "free_nats": 0.0,
    "value_loss_weight": 0.1,
    "max_grad_norm": 1.0,
    "validation_users": 1000,
    "exclude_seen": True,
    "targets": "last",
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are faster on one thread than on several."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shop() -> Simulation:
    from variseq.events.simulate import SimulationOptions, simulate

    options = SimulationOptions(num_users=150, num_items=40, num_categories=4, mean_events=15, seed=3)
    return simulate(options)


@pytest.fixture(scope="session")
def shop_log(shop: Simulation) -> Log:
    from variseq.log import read

    return read(shop.events(), items=shop.items())


@pytest.fixture(scope="session")
def shop_parts(shop_log: Log) -> tuple[LogPart, LogPart, LogPart]:
    return shop_log.split("leave-one-out")


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond a size, as on a full disk."""
    resource = pytest.importorskip("resource", reason="file sizes can be limited on POSIX systems only")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def small_model(seed: int = 0, **training: object) -> VariationalAttention:
    """A model that trains in a second or two; every number that its result depends on is set here."""
    from variseq.estimator import VariationalAttention

    return VariationalAttention("tiny", seed, "cpu", SMALL_NETWORK, {**SHORT_TRAINING, **training})


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of all test processes makes, and that the others wait for and share."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / name).exists():
            make(root / f"{name}.unfinished")
            (root / f"{name}.unfinished").rename(root / name)
    return root / name


@pytest.fixture(scope="session")
def run_folder(shop_parts: tuple[LogPart, LogPart, LogPart], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    train, valid, _ = shop_parts
    make = lambda folder: small_model().fit(train, valid, folder=folder, verbose=0)  # noqa: E731
    return made_once(tmp_path_factory, "run", make)


@pytest.fixture(scope="session")
def first_export(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, `run`, exported by a child process as at the first start of a server; `said` has its lines."""
    from variseq.serving.models import exported_model

    def make(folder: Path) -> None:
        said: list[str] = []
        exported_model(Path(shutil.copytree(run_folder, folder / "run")), said.append)
        (folder / "said").write_text("\n".join(said), encoding="utf-8")

    return made_once(tmp_path_factory, "exported", make)


@pytest.fixture(scope="session")
def exported_run(first_export: Path) -> Path:
    """A copy of the run, exported into itself: to serve `run_folder` would export into what other tests look at."""
    return first_export / "run"


@pytest.fixture(scope="session")
def bundle_folder(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, exported to be served."""
    from variseq.export import export

    return made_once(tmp_path_factory, "model", lambda folder: export(run_folder, folder))


@pytest.fixture(scope="session")
def fitted(run_folder: Path) -> VariationalAttention:
    """The model in `run_folder`; tests/test_estimator.py says that it is the one that was trained."""
    from variseq.estimator import load

    return load(run_folder, device="cpu")


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """Spark on two cores of this machine; starting it takes about ten seconds."""
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'variseq[spark]'")
    from variseq.errors import InputError
    from variseq.events.spark_session import open_spark

    os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")  # starts in less CPU time
    opened = open_spark(2, "1g")
    try:
        session = opened.__enter__()
    except InputError as error:
        pytest.skip(str(error))
    session.conf.set("spark.sql.shuffle.partitions", "2")
    yield session
    opened.__exit__(None, None, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by their fixtures what drives a browser or Spark, and what serves a run; by its folder, what computes.

    Files with tests of Spark come first: one process then has them all, and starts Spark while much is left to do.
    """
    for item in items:
        is_computed = item.path.parent.name in COMPUTED and item.path.parent.parent == TESTS
        if is_computed and item.get_closest_marker("unchecked") is None:
            item.add_marker(pytest.mark.computed)
        fixtures = set(getattr(item, "fixturenames", ()))
        if "browser" in fixtures:
            item.add_marker(pytest.mark.browser)
        if fixtures & SERVED:
            item.add_marker(pytest.mark.slow)
        if "spark" in fixtures:
            item.add_marker(pytest.mark.spark)
            # Sockets that pyspark leaves to the collector.
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
    of_spark = {item.path for item in items if item.get_closest_marker("spark")}
    items.sort(key=lambda item: item.path not in of_spark)
