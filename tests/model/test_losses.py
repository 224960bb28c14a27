from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional

from tests.model.reference import future_loss_plain, sampled_loss_plain, softmax_loss_plain
from variseq.model import losses
from variseq.model.losses import ItemFrequency, Negatives, Pairs, Targets, softmax_loss, value_loss
from variseq.model.value_head import ValueEstimate


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


def check_against_plain_form(loss: Callable[..., Tensor], plain: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    """Values and gradients, for a shape of tokens, items and samples."""
    target = some_targets(*shape[:2])
    results = []
    for form in (loss, plain):
        inputs = softmax_inputs(*shape)
        found = form(*inputs, Targets.next(target) if form is loss else target)
        (3 * found).backward()
        results.append((found, *(tensor.grad for tensor in inputs)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("safe_score", [70.0, 0.0])
@pytest.mark.parametrize("chunk_numbers", [1, 7 * 33, 7 * 50, 1 << 21])
@pytest.mark.parametrize(("num_samples", "num_tokens"), [(1, 1), (1, 32), (1, 101), (2, 33), (5, 40)])
def test_chunked_softmax_equals_the_plain_form_in_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, safe_score: float, chunk_numbers: int, num_samples: int, num_tokens: int
) -> None:
    monkeypatch.setattr(losses, "CHUNK_NUMBERS", chunk_numbers)
    monkeypatch.setattr(losses, "SAFE_SCORE", safe_score)
    check_against_plain_form(softmax_loss, softmax_loss_plain, (num_tokens, 7, num_samples))


def test_gradient_of_the_chunked_softmax_is_that_of_finite_differences() -> None:
    target = Targets.next(some_targets(5, 4))
    assert torch.autograd.gradcheck(lambda *inputs: softmax_loss(*inputs, target), softmax_inputs(5, 4, num_samples=3))


def test_plain_softmax_of_one_sample_is_the_cross_entropy_and_of_several_that_of_their_mixture() -> None:
    preference, vectors, bias = (tensor.detach() for tensor in softmax_inputs(6, 9, num_samples=3))
    target = some_targets(6, 9)
    alone = softmax_loss_plain(preference[:1], vectors, bias, target)
    torch.testing.assert_close(alone, functional.cross_entropy(preference[0] @ vectors.T + bias, target))
    mixture = torch.softmax(preference @ vectors.T + bias, dim=2).mean(dim=0)
    together = softmax_loss_plain(preference, vectors, bias, target)
    torch.testing.assert_close(together, -mixture[torch.arange(6), target].log().mean())


def test_softmax_of_huge_scores_and_biases_is_finite() -> None:
    preference, vectors = torch.full((1, 2, 1), 1e4), torch.tensor([[1.0], [-1.0]])
    inputs = (torch.zeros(1, 2, 1), torch.ones(3, 1), torch.tensor([-500.0, 0.0, 300.0]))
    assert float(softmax_loss(preference, vectors, torch.zeros(2), Targets.next(torch.tensor([0, 0])))) == 0.0
    assert float(softmax_loss(preference, vectors, torch.zeros(2), Targets.next(torch.tensor([1, 1])))) == 2e4
    assert float(softmax_loss(*inputs, Targets.next(torch.tensor([2, 2])))) == 0.0
    assert float(softmax_loss(*inputs, Targets.next(torch.tensor([1, 1])))) == pytest.approx(300.0)


def test_scores_just_below_the_bound_are_summed_over_a_large_catalog_without_overflow() -> None:
    preference, vectors = torch.full((1, 1, 1), 0.999 * losses.SAFE_SCORE), torch.ones(20_000, 1)
    loss = softmax_loss(preference, vectors, torch.zeros(20_000), Targets.next(torch.tensor([7])))
    assert float(loss) == pytest.approx(math.log(20_000), rel=1e-5)


def test_sampled_softmax_with_its_correction_estimates_the_full_one() -> None:
    torch.manual_seed(0)
    preference, vectors, bias = (tensor.detach() for tensor in softmax_inputs(20, 50))
    target = some_targets(20, 50)
    log_probability = torch.log_softmax(torch.randn(50, dtype=torch.float64), dim=0)
    full = float(softmax_loss_plain(preference, vectors, bias, target))
    errors = []
    for num_negatives, num_draws in [(20, 200), (500, 20), (200_000, 1)]:
        drawn = [ItemFrequency.of(log_probability).draw(num_negatives, seed) for seed in range(num_draws)]
        estimates = [
            float(softmax_loss(preference, vectors, bias, Targets.next(target), negatives)) for negatives in drawn
        ]
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
    negatives = ItemFrequency.of(torch.log_softmax(torch.randn(9, dtype=torch.float64), dim=0)).draw(12, 0)
    sampled, plain = partial(softmax_loss, negatives=negatives), partial(sampled_loss_plain, negatives)
    check_against_plain_form(sampled, plain, (num_tokens, 9, num_samples))


@pytest.mark.parametrize("is_sampled", [False, True])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_loss_of_several_targets_without_unranked_items_equals_the_plain_form(
    monkeypatch: pytest.MonkeyPatch, is_sampled: bool, num_samples: int
) -> None:
    monkeypatch.setattr(losses, "CHUNK_NUMBERS", 1)
    torch.manual_seed(0)
    # Targets that stand twice, that have no weight, and that are left out of the softmax of their own token.
    item = torch.randint(9, (40, 3))
    item[:9, 1] = item[:9, 0]
    weight = torch.tensor([1.0, 0.5, 0.25]).repeat(40, 1)
    weight[5:15, 2], weight[30:, 1:] = 0.0, 0.0
    unranked = Pairs(torch.arange(40).repeat_interleave(2), torch.randint(9, (80,)))
    pairs = list(zip(unranked.token.tolist(), unranked.item.tolist(), strict=True))
    negatives = ItemFrequency.of(torch.log_softmax(torch.randn(9, dtype=torch.float64), dim=0)).draw(12, 0)
    given, results = (Targets(item, weight), negatives if is_sampled else None), []
    for found in (
        lambda *inputs: softmax_loss(*inputs, *given, unranked),
        lambda *inputs: future_loss_plain(*inputs, given[0], pairs, given[1]),
    ):
        inputs = softmax_inputs(40, 9, num_samples)
        loss = found(*inputs)
        (3 * loss).backward()
        results.append((loss, *(tensor.grad for tensor in inputs)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_negative_that_is_the_target_is_left_out() -> None:
    preference, vectors, bias = (tensor.detach() for tensor in softmax_inputs(1, 3))
    uniform = torch.full((3,), -math.log(3), dtype=torch.float64)
    target = torch.tensor([1])
    alone = softmax_loss(preference, vectors, bias, Targets.next(target), Negatives(torch.tensor([1, 1]), uniform))
    assert float(alone) == 0.0
    scores = (preference[0] @ vectors.T + bias)[0]
    with_other = softmax_loss(preference, vectors, bias, Targets.next(target), Negatives(torch.tensor([1, 2]), uniform))
    expected = torch.log(1 + torch.exp(scores[2] - math.log(2 / 3) - scores[1]))
    torch.testing.assert_close(with_other, expected)


def test_value_losses_leave_out_unknown_values_and_match_their_formulas() -> None:
    mean, log_variance = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.2, -0.3, 1.0])
    value = torch.tensor([1.0, math.nan, 0.0])
    estimate = ValueEstimate(mean.requires_grad_(), log_variance.requires_grad_())
    known = [0, 2]
    normal = Normal(mean[known], torch.exp(0.5 * log_variance[known]))
    gaussian = value_loss(estimate, value, "gaussian")
    torch.testing.assert_close(gaussian, -normal.log_prob(value[known]).mean())
    squared = value_loss(estimate, value, "squared")
    torch.testing.assert_close(squared, (mean[known] - value[known]).square().mean())
    gaussian.backward()
    for gradient in (mean.grad, log_variance.grad):
        assert gradient is not None
        assert bool(gradient.isfinite().all())
        assert gradient[1] == 0
    for kind in ("gaussian", "squared"):
        assert float(value_loss(estimate, torch.full((3,), math.nan), kind).detach()) == 0.0


@pytest.mark.skipif(inspect.unwrap(softmax_loss) is softmax_loss, reason="the tests run without --jaxtyping-packages")
def test_shapes_are_checked_while_the_tests_run() -> None:
    with pytest.raises(TypeCheckError):
        softmax_loss(torch.zeros(1, 2, 3), torch.zeros(5, 4), torch.zeros(5), Targets.next(torch.tensor([0, 1])))


@pytest.mark.parametrize("has_negatives", [False, True])
def test_no_bit_of_a_token_depends_on_the_other_tokens_where_norms_have_a_bound(has_negatives: bool) -> None:
    items, bias = torch.randn(40, 8), torch.randn(40)
    negatives = Negatives(torch.arange(0, 40, 2), torch.full((40,), 40.0).log().neg()) if has_negatives else None
    target = torch.tensor([3, 7, 39, 0])

    def gradients(last: float) -> torch.Tensor:
        preference = torch.ones(1, 4, 8).cumsum(1)
        preference[:, 3] *= last
        preference.requires_grad_()
        loss = softmax_loss(preference, items, bias, Targets.next(target), negatives, max_norm=1e3)
        return torch.autograd.grad(loss, preference)[0][:, :3]

    assert torch.equal(gradients(0.01), gradients(50.0))
