"""A run that was interrupted and resumed against one that was not: equal to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.some_runs import are_equal, trainer_for, weights_of, without_times
from variseq.errors import CheckpointError
from variseq.log import LogPart
from variseq.model.network import Network
from variseq.training.interrupt import Interrupt
from variseq.training.metrics_file import MetricsFile, read_metrics
from variseq.training.state import Progress, load_state, save_state
from variseq.training.trainer import Trainer, gradient_step

Parts = tuple[LogPart, LogPart, LogPart]


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class InterruptedStep:
    """A step in whose middle the user presses Ctrl-C, once."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.done = 0

    def __call__(self, network: Network, optimizer: torch.optim.Optimizer, loss: Tensor, max_grad_norm: float) -> None:
        self.done += 1
        if self.done == self.at:
            press_ctrl_c()
        gradient_step(network, optimizer, loss, max_grad_norm)


def run_whole(parts: Parts, folder: Path) -> tuple[Network, list[dict[str, Any]]]:
    folder.mkdir()
    trainer = trainer_for(parts, folder)
    trainer.run([MetricsFile(folder / "metrics.jsonl")])
    return trainer.network, read_metrics(folder / "metrics.jsonl")


@pytest.fixture(scope="module")
def whole(shop_parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, list[dict[str, Any]]]:
    return run_whole(shop_parts, tmp_path_factory.mktemp("whole") / "run")


def resumed(parts: Parts, folder: Path) -> Trainer:
    trainer = trainer_for(parts, folder)
    trainer.resume()
    return trainer


def assert_equal_to(whole: tuple[Network, list[dict[str, Any]]], trainer: Trainer, folder: Path) -> None:
    trainer.run([MetricsFile(folder / "metrics.jsonl", trainer.progress.epoch)])
    assert are_equal(weights_of(trainer.network), weights_of(whole[0]))
    assert without_times(read_metrics(folder / "metrics.jsonl")) == without_times(whole[1])


@pytest.mark.parametrize("at", [1, 4, 9])
def test_run_interrupted_inside_an_epoch_goes_on_to_the_same_bits(
    shop_parts: Parts, whole: tuple[Network, list[dict[str, Any]]], tmp_path: Path, at: int
) -> None:
    trainer = trainer_for(shop_parts, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer.run([MetricsFile(tmp_path / "metrics.jsonl")], step=InterruptedStep(at))
    assert trainer.progress.step == at, "the running step is finished, and no more"
    torch.rand(100)  # what happened in between leaves no trace
    assert_equal_to(whole, resumed(shop_parts, tmp_path), tmp_path)


def test_seconds_of_an_epoch_that_was_broken_off_are_counted(shop_parts: Parts, tmp_path: Path) -> None:
    trainer = trainer_for(shop_parts, tmp_path, max_epochs=1)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(step=InterruptedStep(at=3))
    trainer = resumed(shop_parts, tmp_path)
    trainer.progress.seconds += 1000.0
    trainer.run()
    assert trainer.progress.total_seconds > 1000.0


def test_run_interrupted_between_epochs_goes_on_to_the_same_bits(
    shop_parts: Parts, whole: tuple[Network, list[dict[str, Any]]], tmp_path: Path
) -> None:
    trainer = trainer_for(shop_parts, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer.run([MetricsFile(tmp_path / "metrics.jsonl"), lambda record: press_ctrl_c()])
    assert (trainer.progress.epoch, trainer.progress.batch) == (1, 0)
    assert_equal_to(whole, resumed(shop_parts, tmp_path), tmp_path)


def test_run_interrupted_three_times_goes_on_to_the_same_bits(
    shop_parts: Parts, whole: tuple[Network, list[dict[str, Any]]], tmp_path: Path
) -> None:
    trainer = trainer_for(shop_parts, tmp_path)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            trainer.run([MetricsFile(tmp_path / "metrics.jsonl", trainer.progress.epoch)], step=InterruptedStep(at=3))
        trainer = resumed(shop_parts, tmp_path)
    assert_equal_to(whole, trainer, tmp_path)


def test_metrics_of_epochs_that_are_run_again_are_written_once(
    shop_parts: Parts, whole: tuple[Network, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """A crash after an epoch's line and before its state: the line is there, the state is that of the epoch before."""
    trainer = trainer_for(shop_parts, tmp_path)

    def crash(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            with (tmp_path / "metrics.jsonl").open("a") as stream:
                stream.write('{"epoch": 3, "secon')  # and a line that was being written
            raise MemoryError

    with pytest.raises(MemoryError):
        trainer.run([MetricsFile(tmp_path / "metrics.jsonl"), crash])
    trainer = resumed(shop_parts, tmp_path)
    assert trainer.progress.epoch == 2
    assert_equal_to(whole, trainer, tmp_path)


def test_resuming_a_run_that_had_finished_changes_nothing(
    shop_parts: Parts, whole: tuple[Network, list[dict[str, Any]]], tmp_path: Path
) -> None:
    run_whole(shop_parts, tmp_path / "run")
    trainer = resumed(shop_parts, tmp_path / "run")
    assert trainer.is_finished
    assert_equal_to(whole, trainer, tmp_path / "run")


def test_second_ctrl_c_interrupts_at_once() -> None:
    with Interrupt() as interrupt:
        press_ctrl_c()
        assert interrupt.wanted
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()


def test_ctrl_c_is_left_alone_outside_of_training() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    progress = Progress(epoch=3, batch=2, step=77, beta=0.125, best_metric=0.1, best_epoch=1, sums={"kl": 0.1 + 0.2})
    save_state(tmp_path / "state", progress, {"a": torch.arange(3), "b": torch.tensor(0.5)})
    loaded, tensors = load_state(tmp_path / "state")
    assert loaded == progress
    assert tensors["a"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def first_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def nothing(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [first_half, nothing])
def test_damaged_state_is_told(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "state"
    save_state(path, Progress(), {"a": torch.arange(1000)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="without --resume"):
        load_state(path)


def test_missing_state_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state(tmp_path / "state")


SAVE_ON_A_FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from variseq.errors import InputError
from variseq.training.state import Progress, load_state, save_state

path = Path(sys.argv[1]) / "state"
save_state(path, Progress(epoch=1), {"a": torch.zeros(10)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try:
    save_state(path, Progress(epoch=2), {"a": torch.zeros(10_000)})
except InputError:
    print("no room, and epoch", load_state(path)[0].epoch)
"""


@pytest.mark.skipif(os.name != "posix", reason="file sizes can be limited on POSIX systems only")
def test_state_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", SAVE_ON_A_FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert finished.stdout.strip() == "no room, and epoch 1", finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
