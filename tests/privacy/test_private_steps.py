"""Private training steps: what one user changes, how noise is added, and how the parameters move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import parameters_to_vector

from variseq.errors import CheckpointError
from variseq.model.network import Network, NetworkConfig, Weights
from variseq.privacy.noise import GRID, no_noise
from variseq.privacy.private_steps import NoisyAdam, PrivateTraining, clipped_sum, random_windows, train_privately
from variseq.privacy.schedule import StepSchedule
from variseq.sequences.batches import Windows, make_batch
from variseq.sequences.histories import Histories

NUM_ITEMS = 20
SCHEDULE = StepSchedule(60, 0.5, num_steps=5, max_norm=0.3, learning_rate=0.01, max_events=10)
WEIGHTS = Weights(noise=0.0, mask_seen=True)
LENGTHS = (12, 1, 0, 7, 300, 2)


def network() -> Network:
    """A small network with frozen item vectors."""
    torch.manual_seed(1)
    parts = {"hidden_size": 8, "latent_dim": 8, "num_layers": 1, "attention_dim": 4}
    found = Network(NetworkConfig(num_items=NUM_ITEMS, dropout=0.0, **parts))
    found.embedding.item.data.normal_()
    found.embedding.item.requires_grad_(False)
    found.item_bias.requires_grad_(False)
    return found


def histories_of(lengths: tuple[int, ...]) -> Histories:
    generator = np.random.default_rng(4)
    return Histories.of_items([generator.integers(NUM_ITEMS, size=length).tolist() for length in lengths])


def windows_of(histories: Histories) -> tuple[Histories, Windows]:
    """The latest events of each user that has any."""
    users = np.flatnonzero(histories.lengths)
    start, end = histories.offsets[users], histories.offsets[users + 1]
    return histories, Windows(start, np.maximum(start, end - SCHEDULE.max_events), end)


@pytest.mark.parametrize("user", range(len(LENGTHS)))
@pytest.mark.parametrize("trains_items", [False, True])
def test_one_user_changes_a_sum_by_at_most_the_norm(user: int, trains_items: bool) -> None:
    whole, model = histories_of(LENGTHS), network()
    model.embedding.item.requires_grad_(trains_items)
    without = whole.rows(np.delete(np.arange(len(LENGTHS)), user))
    change = clipped_sum(model, windows_of(whole), SCHEDULE) - clipped_sum(model, windows_of(without), SCHEDULE)
    assert np.linalg.norm(change) <= 1 / GRID
    assert np.linalg.norm(change) * GRID == pytest.approx(1.0 if LENGTHS[user] else 0.0, abs=0.02)


def test_no_number_of_others_moves_when_users_leave() -> None:
    """Sums are those of each user alone, bit for bit, in groups of any composition."""
    random, model = np.random.default_rng(0), network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    histories = histories_of(tuple(random.integers(1, 14, 300).tolist()))

    def sum_of(users: np.ndarray) -> np.ndarray:
        return clipped_sum(model, windows_of(histories.rows(users)), SCHEDULE)

    order = random.permutation(300)
    whole = sum_of(order)
    assert np.array_equal(whole, sum_of(order[:130]) + sum_of(order[130:131]) + sum_of(order[131:][::-1]))


def test_no_user_adds_nothing() -> None:
    nobody = histories_of(())
    empty = random_windows(nobody, np.arange(0), 10, np.random.default_rng(0))
    assert not clipped_sum(network(), empty, SCHEDULE).any()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 12))
@settings(max_examples=30)
def test_a_user_has_one_window_of_own_events(lengths: list[int], max_events: int) -> None:
    histories = histories_of(tuple(lengths))
    _, found = random_windows(histories, np.arange(len(lengths)), max_events, np.random.default_rng(0))
    users = np.flatnonzero(lengths)
    assert (found.lengths == np.minimum(np.array(lengths)[users], max_events)).all()
    assert (found.start == histories.offsets[users]).all()
    assert (found.first >= found.start).all()
    assert (found.last <= histories.offsets[users + 1]).all()


def test_noise_is_added_where_no_user_is_sampled() -> None:
    model, drawn = network(), []

    def noise(deviation: float, number: int) -> np.ndarray:
        drawn.append((deviation, number))
        return np.ones(number, dtype=np.int64)

    before = parameters_to_vector(model.parameters()).clone()
    training = PrivateTraining(model, replace(SCHEDULE, sampling_rate=1e-9), 2.0)
    train_privately(training, histories_of((3, 4)), noise)
    number = sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert drawn == [(2.0, number)] * SCHEDULE.num_steps
    assert not torch.equal(before, parameters_to_vector(model.parameters()))


def test_frozen_parameters_stay_and_the_loss_falls_without_noise() -> None:
    model = network()
    histories = Histories.of_items([[user % 5, (user + 1) % 5, (user + 2) % 5, (user + 3) % 5] for user in range(60)])
    windows = windows_of(histories)
    batch = make_batch(*windows, np.arange(60), NUM_ITEMS)
    items, before = model.item_vectors.clone(), model.objective(batch, WEIGHTS).nll.item()
    schedule = replace(SCHEDULE, num_steps=30, max_norm=5.0)
    train_privately(PrivateTraining(model, schedule, 0.0), histories, no_noise)
    assert torch.equal(items, model.item_vectors)
    assert model.objective(batch, WEIGHTS).nll.item() < before - 0.3


@pytest.mark.parametrize("num_before", [0, 2, SCHEDULE.num_steps])
def test_training_that_goes_on_ends_like_one_that_was_never_stopped(num_before: int) -> None:
    histories, schedule = histories_of((3, 4, 5)), replace(SCHEDULE, sampling_rate=1.0, max_events=9)
    whole = PrivateTraining(network(), schedule, 0.0)
    train_privately(whole, histories, no_noise)
    stopped, again = PrivateTraining(network(), schedule, 0.0), PrivateTraining(network(), schedule, 0.0)
    while stopped.step < num_before:
        stopped.move(stopped.sum_of(histories, np.random.default_rng(0)))
    again.go_on({name: tensor.clone() for name, tensor in stopped.tensors().items()}, stopped.step)
    train_privately(again, histories, no_noise)
    of_whole, of_again = (parameters_to_vector(one.network.parameters()) for one in (whole, again))
    assert torch.equal(of_whole, of_again)
    with pytest.raises(CheckpointError):
        again.go_on({"position": torch.zeros(3)}, 1)


def test_optimizer_without_noise_is_adam() -> None:
    start = torch.randn(6, generator=torch.Generator().manual_seed(0))
    own, theirs = NoisyAdam.of(start, replace(SCHEDULE, num_steps=10**9), 0.0), torch.nn.Parameter(start.clone())
    adam = torch.optim.Adam([theirs], lr=SCHEDULE.learning_rate, betas=(0.9, 0.98), eps=0.0)
    for step in range(20):
        gradient = torch.randn(6, generator=torch.Generator().manual_seed(step + 1))
        theirs.grad = gradient.clone()
        adam.step()
        torch.testing.assert_close(own.moved(gradient), theirs.detach(), atol=1e-5, rtol=1e-4)


def test_second_moment_does_not_count_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    signal, deviation = 0.02, 0.03
    own = NoisyAdam.of(torch.zeros(4000), replace(SCHEDULE, num_steps=10**9), deviation / SCHEDULE.max_norm)
    for _ in range(300):
        own.moved(signal + deviation * torch.randn(4000, generator=generator))
    moved = own.moved(torch.full((4000,), signal)) - own.moved(torch.full((4000,), signal))
    # The mean step is the learning rate, as if there were no noise; plain Adam would move by about half of it.
    assert float(moved.mean()) == pytest.approx(SCHEDULE.learning_rate, rel=0.15)
