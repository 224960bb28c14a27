"""A run that was interrupted and resumed against one that was not: equal to the last bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import largest_file
from tests.training.some_runs import OnEpoch, are_equal, every_step, trainer_for, weights_of, without_times
from variseq.errors import CheckpointError, InputError
from variseq.log import LogPart
from variseq.training.callbacks import MetricsFile, TrainingCallback, read_metrics
from variseq.training.state import Progress, load_state, save_state
from variseq.training.trainer import Interrupt, Trainer, gradient_step

pytestmark = pytest.mark.slow

Parts = tuple[LogPart, LogPart, LogPart]


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class InterruptedStep:
    """A step in whose middle the user presses Ctrl-C, once."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.done = 0

    def __call__(self, *arguments: Any) -> None:
        self.done += 1
        if self.done == self.at:
            press_ctrl_c()
        gradient_step(*arguments)


class Resumable:
    """A run in a folder that stops and resumes, and the run that did not stop."""

    def __init__(self, parts: Parts, folder: Path, whole: Trainer | None = None, **training: Any) -> None:
        self.parts, self.folder, self.whole, self.training = parts, folder, whole, training
        self.trainer = trainer_for(parts, folder, **training)

    def train(self, *callbacks: TrainingCallback) -> None:
        self.trainer.run([MetricsFile(self.folder / "metrics.jsonl", self.trainer.progress.epoch), *callbacks])

    def resume(self) -> None:
        torch.rand(100)  # what happened in between leaves no trace
        self.trainer = trainer_for(self.parts, self.folder, **self.training)

    def assert_equal_to_whole(self) -> None:
        self.train()
        assert are_equal(weights_of(self.trainer.network), weights_of(self.whole.network))
        assert without_times(read_metrics(self.folder / "metrics.jsonl")) == without_times(self.whole.records)


@pytest.fixture(scope="module")
def whole(shop_parts: Parts) -> Trainer:
    trainer = trainer_for(shop_parts)
    trainer.run()
    return trainer


@pytest.fixture
def run(shop_parts: Parts, whole: Trainer, tmp_path: Path) -> Resumable:
    return Resumable(shop_parts, tmp_path, whole)


@pytest.mark.parametrize("stops", [[1], [9], [3, 3, 3]])
def test_run_interrupted_inside_epochs_goes_on_to_the_same_bits(run: Resumable, stops: list[int]) -> None:
    for at in stops:
        before = run.trainer.progress.step
        with pytest.raises(KeyboardInterrupt), every_step(InterruptedStep(at)):
            run.train()
        assert run.trainer.progress.step == before + at, "the running step is finished, and no more"
        run.resume()
    run.assert_equal_to_whole()


def test_run_with_negatives_interrupted_inside_an_epoch_goes_on_to_the_same_bits(
    shop_parts: Parts, tmp_path: Path
) -> None:
    sampled = {"full_softmax_max_items": 10, "num_negatives": 20, "batch_tokens": 64, "max_epochs": 2}
    whole = trainer_for(shop_parts, **sampled)
    whole.run()
    run = Resumable(shop_parts, tmp_path, whole, **sampled)
    with pytest.raises(KeyboardInterrupt), every_step(InterruptedStep(at=5)):
        run.train()
    run.resume()
    waits = run.trainer.progress.step - run.trainer.items.last_step
    assert 0 < int((waits > 0).sum()) < len(waits), "some rows wait"
    run.assert_equal_to_whole()


def test_run_interrupted_between_epochs_goes_on_to_the_same_bits(run: Resumable) -> None:
    with pytest.raises(KeyboardInterrupt):
        run.train(OnEpoch(lambda record: press_ctrl_c()))
    assert (run.trainer.progress.epoch, run.trainer.progress.batch) == (1, 0)
    run.resume()
    run.assert_equal_to_whole()


def test_seconds_of_an_interrupted_epoch_are_counted(run: Resumable) -> None:
    with pytest.raises(KeyboardInterrupt), every_step(InterruptedStep(at=3)):
        run.train()
    run.resume()
    run.trainer.progress.seconds += 1000.0
    run.train()
    assert run.trainer.progress.total_seconds > 1000.0


def test_metrics_of_epochs_that_are_run_again_are_written_once(run: Resumable) -> None:
    """A crash after an epoch's line and before its state: the line is there, the state is that of the epoch before."""

    def crash(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            with (run.folder / "metrics.jsonl").open("a") as stream:
                stream.write('{"epoch": 3, "secon')  # and a line that was being written
            raise MemoryError

    with pytest.raises(MemoryError):
        run.train(OnEpoch(crash))
    run.resume()
    assert run.trainer.progress.epoch == 2
    run.assert_equal_to_whole()


def test_resuming_a_run_that_had_finished_changes_nothing(run: Resumable) -> None:
    run.train()
    run.resume()
    assert run.trainer.is_finished
    run.assert_equal_to_whole()


def test_second_ctrl_c_interrupts_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        press_ctrl_c()
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is before, "it is left alone outside of training"


def test_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    progress = Progress(epoch=3, batch=2, step=77, beta=0.125, best_metric=0.1, best_epoch=1, sums={"kl": 0.1 + 0.2})
    save_state(tmp_path / "state", progress, {"a": torch.arange(3), "b": torch.tensor(0.5)})
    loaded, tensors = load_state(tmp_path / "state")
    assert loaded == progress
    assert tensors["a"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("share", [0.0, 0.5, None])
def test_damaged_or_missing_state_is_refused(tmp_path: Path, share: float | None) -> None:
    path = tmp_path / "state"
    save_state(path, Progress(), {"a": torch.arange(1000)})
    content = path.read_bytes()
    path.unlink()
    if share is not None:
        path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="without --resume"):
        load_state(path)


def test_state_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "state"
    save_state(path, Progress(epoch=1), {"a": torch.zeros(10)})
    with largest_file(2000), pytest.raises(InputError, match="cannot be written"):
        save_state(path, Progress(epoch=2), {"a": torch.zeros(10_000)})
    assert load_state(path)[0].epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("version", [1, 99])
def test_state_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    monkeypatch.setattr("variseq.training.state.FORMAT_VERSION", version)
    save_state(tmp_path / "state", Progress(), {"a": torch.zeros(3)})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="another version"):
        load_state(tmp_path / "state")
