from __future__ import annotations

import inspect
import math
from functools import partial

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional

from tests.model.reference import sampled_loss_plain, softmax_loss_plain
from variseq.model import losses
from variseq.model.layers import ValueEstimate
from variseq.model.losses import (
    Negatives,
    gaussian_value_loss,
    softmax_loss,
    squared_value_loss,
)


def softmax_inputs(num_tokens: int, num_items: int, num_samples: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Preference, item vectors and item bias in double precision, with gradients wanted."""
    generator = torch.Generator().manual_seed(0)
    preference, vectors, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in [(num_samples, num_tokens, 3), (num_items, 3), (num_items,)]
    )
    return preference, vectors, bias


def some_targets(num_tokens: int, num_items: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(num_items, size=num_tokens))


@pytest.mark.parametrize("safe_score", [70.0, 0.0])
@pytest.mark.parametrize("chunk_numbers", [1, 7 * 33, 7 * 50, 1 << 21])
@pytest.mark.parametrize(("num_samples", "num_tokens"), [(1, 1), (1, 32), (1, 101), (2, 33), (5, 40)])
def test_chunked_softmax_equals_the_plain_form_in_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, safe_score: float, chunk_numbers: int, num_samples: int, num_tokens: int
) -> None:
    monkeypatch.setattr(losses, "CHUNK_NUMBERS", chunk_numbers)
    monkeypatch.setattr(losses, "SAFE_SCORE", safe_score)
    target = some_targets(num_tokens, 7)
    results = []
    for form in (softmax_loss, softmax_loss_plain):
        inputs = softmax_inputs(num_tokens, 7, num_samples)
        loss = form(*inputs, target)
        (3 * loss).backward()
        results.append((loss, *(tensor.grad for tensor in inputs)))
    for chunked, plain in zip(*results, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_gradient_of_the_chunked_softmax_is_that_of_finite_differences(num_samples: int) -> None:
    target = some_targets(5, 4)
    assert torch.autograd.gradcheck(
        lambda *inputs: softmax_loss(*inputs, target), softmax_inputs(5, 4, num_samples=num_samples)
    )


def test_plain_softmax_of_one_sample_is_the_cross_entropy_and_of_several_that_of_their_mixture() -> None:
    preference, vectors, bias = (tensor.detach() for tensor in softmax_inputs(6, 9, num_samples=3))
    target = some_targets(6, 9)
    alone = softmax_loss_plain(preference[:1], vectors, bias, target)
    torch.testing.assert_close(alone, functional.cross_entropy(preference[0] @ vectors.T + bias, target))
    mixture = torch.softmax(preference @ vectors.T + bias, dim=2).mean(dim=0)
    together = softmax_loss_plain(preference, vectors, bias, target)
    torch.testing.assert_close(together, -mixture[torch.arange(6), target].log().mean())


def test_mixture_of_equal_samples_is_one_of_them() -> None:
    preference, vectors, bias = (tensor.detach() for tensor in softmax_inputs(6, 9))
    target = some_targets(6, 9)
    one, four = (softmax_loss(preference.repeat(times, 1, 1), vectors, bias, target) for times in (1, 4))
    torch.testing.assert_close(one, four)


def test_softmax_of_huge_scores_is_finite() -> None:
    preference, vectors = torch.full((1, 2, 1), 1e4), torch.tensor([[1.0], [-1.0]])
    assert float(softmax_loss(preference, vectors, torch.zeros(2), torch.tensor([0, 0]))) == 0.0
    assert float(softmax_loss(preference, vectors, torch.zeros(2), torch.tensor([1, 1]))) == 2e4


def test_scores_just_below_the_bound_are_summed_over_a_large_catalog_without_overflow() -> None:
    score = 0.999 * losses.SAFE_SCORE
    preference, vectors = torch.full((1, 1, 1), score), torch.ones(20_000, 1)
    loss = softmax_loss(preference, vectors, torch.zeros(20_000), torch.tensor([7]))
    torch.testing.assert_close(float(loss), math.log(20_000), rtol=1e-5, atol=0)


def test_softmax_of_a_huge_bias_is_finite() -> None:
    bias = torch.tensor([-500.0, 0.0, 300.0])
    inputs = (torch.zeros(1, 2, 1), torch.ones(3, 1), bias)
    assert float(softmax_loss(*inputs, torch.tensor([2, 2]))) == 0.0
    torch.testing.assert_close(float(softmax_loss(*inputs, torch.tensor([1, 1]))), 300.0)


def test_sampled_softmax_with_its_correction_estimates_the_full_one() -> None:
    torch.manual_seed(0)
    preference, vectors, bias = (tensor.detach() for tensor in softmax_inputs(20, 50))
    target = some_targets(20, 50)
    log_probability = torch.log_softmax(torch.randn(50, dtype=torch.float64), dim=0)
    full = float(softmax_loss_plain(preference, vectors, bias, target))
    errors = []
    for num_negatives, num_draws in [(20, 200), (500, 20), (200_000, 1)]:
        drawn = [Negatives.draw(log_probability, num_negatives) for _ in range(num_draws)]
        estimates = [float(negatives.loss(preference, vectors, bias, target)) for negatives in drawn]
        errors.append(abs(float(np.mean(estimates)) - full))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


@pytest.mark.parametrize("safe_score", [70.0, 0.0])
@pytest.mark.parametrize(("num_samples", "num_tokens"), [(1, 1), (1, 101), (3, 40)])
def test_chunked_sampled_softmax_equals_the_plain_form_in_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, safe_score: float, num_samples: int, num_tokens: int
) -> None:
    monkeypatch.setattr(losses, "CHUNK_NUMBERS", 1)
    monkeypatch.setattr(losses, "SAFE_SCORE", safe_score)
    torch.manual_seed(0)
    negatives = Negatives.draw(torch.log_softmax(torch.randn(9, dtype=torch.float64), dim=0), 12)
    target = some_targets(num_tokens, 9)
    results = []
    for form in (negatives.loss, partial(sampled_loss_plain, negatives)):
        inputs = softmax_inputs(num_tokens, 9, num_samples)
        loss = form(*inputs, target)
        (3 * loss).backward()
        results.append((loss, *(tensor.grad for tensor in inputs)))
    for chunked, plain in zip(*results, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)


def test_negative_that_is_the_target_is_left_out() -> None:
    preference, vectors, bias = (tensor.detach() for tensor in softmax_inputs(1, 3))
    uniform = torch.full((3,), -math.log(3), dtype=torch.float64)
    target = torch.tensor([1])
    alone = Negatives(torch.tensor([1, 1]), uniform).loss(preference, vectors, bias, target)
    assert float(alone) == 0.0
    scores = (preference[0] @ vectors.T + bias)[0]
    with_other = Negatives(torch.tensor([1, 2]), uniform).loss(preference, vectors, bias, target)
    expected = torch.log(1 + torch.exp(scores[2] - math.log(2 / 3) - scores[1]))
    torch.testing.assert_close(with_other, expected)


def test_negatives_are_drawn_by_their_probability() -> None:
    torch.manual_seed(0)
    probability = torch.tensor([0.7, 0.3, 0.0])
    items = Negatives.draw(probability.log(), 20_000).items
    share = torch.bincount(items, minlength=3) / len(items)
    torch.testing.assert_close(share, probability, atol=0.02, rtol=0)


def test_value_losses_leave_out_unknown_values_and_match_their_formulas() -> None:
    mean, log_variance = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.2, -0.3, 1.0])
    value = torch.tensor([1.0, math.nan, 0.0])
    estimate = ValueEstimate(mean.requires_grad_(), log_variance.requires_grad_())
    known = [0, 2]
    normal = Normal(mean[known], torch.exp(0.5 * log_variance[known]))
    gaussian = gaussian_value_loss(estimate, value)
    torch.testing.assert_close(gaussian, -normal.log_prob(value[known]).mean())
    torch.testing.assert_close(squared_value_loss(estimate, value), (mean[known] - value[known]).square().mean())
    gaussian.backward()
    for gradient in (mean.grad, log_variance.grad):
        assert gradient is not None
        assert bool(gradient.isfinite().all())
        assert gradient[1] == 0


@pytest.mark.parametrize("loss", [gaussian_value_loss, squared_value_loss])
def test_value_loss_without_any_known_value_is_zero(loss: type[gaussian_value_loss]) -> None:
    estimate = ValueEstimate(torch.randn(2), torch.randn(2))
    assert float(loss(estimate, torch.full((2,), math.nan))) == 0.0


@pytest.mark.skipif(inspect.unwrap(softmax_loss) is softmax_loss, reason="the tests run without --jaxtyping-packages")
def test_shapes_are_checked_while_the_tests_run() -> None:
    with pytest.raises(TypeCheckError):
        softmax_loss(torch.zeros(1, 2, 3), torch.zeros(5, 4), torch.zeros(5), torch.tensor([0, 1]))
