from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.model.reference import additive_context_plain
from variseq.model import attention
from variseq.model.attention import ATTENTION_OF, AdditiveAttention, DotProductAttention, additive_context

HISTORIES, LONGEST, LATENT = 3, 7, 8


def some_posteriors(seed: int = 0) -> Tensor:
    return torch.randn(HISTORIES, LONGEST, LATENT, generator=torch.Generator().manual_seed(seed))


def every_position() -> Tensor:
    return torch.arange(LONGEST).expand(HISTORIES, LONGEST)


@pytest.fixture(params=[("dot", 1 << 19), *(("additive", chunk) for chunk in (1, 60, 200, 1 << 19))])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DotProductAttention:
    """Each form, the additive one in chunks of several sizes too."""
    name, chunk_numbers = request.param
    monkeypatch.setattr(attention, "CHUNK_NUMBERS", chunk_numbers)
    torch.manual_seed(0)
    return ATTENTION_OF[name](LATENT, 4)


def test_weights_are_a_distribution_over_the_past(form: DotProductAttention) -> None:
    posteriors = some_posteriors()
    weights = form.weights(posteriors, posteriors, every_position())
    assert weights.shape == (HISTORIES, LONGEST, LONGEST)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(HISTORIES, LONGEST))
    assert bool((weights.triu(diagonal=1) == 0).all()), "a weight lies on the future"


def test_context_is_the_value_averaged_with_the_weights(form: DotProductAttention) -> None:
    posteriors, position = some_posteriors(), every_position()
    content = torch.cat([posteriors, some_posteriors(seed=1)], dim=2)
    context = form(posteriors, posteriors, content, position)
    torch.testing.assert_close(context, form.weights(posteriors, posteriors, position) @ content)
    torch.testing.assert_close(context[:, 0], content[:, 0])


def test_later_posterior_never_changes_an_earlier_context_and_histories_do_not_mix(form: DotProductAttention) -> None:
    posteriors = some_posteriors()
    before = form(posteriors, posteriors, posteriors, every_position())
    for place in range(LONGEST):
        changed = posteriors.clone()
        changed[1, place:] += 10.0
        after = form(changed, changed, changed, every_position())
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.equal(after[1, place:], before[1, place:])
        assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_one_query_gives_what_all_queries_give(form: DotProductAttention) -> None:
    """What a recommendation asks: the last real position of each history, with empty slots after it."""
    posteriors = some_posteriors()
    together = form(posteriors, posteriors, posteriors, every_position())
    last, rows = torch.tensor([[2], [6], [0]]), torch.arange(HISTORIES).unsqueeze(1)
    alone = form(posteriors[rows, last], posteriors, posteriors, last)
    torch.testing.assert_close(alone, together[rows, last])


def attention_inputs(num_queries: int, num_keys: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and score in double precision, with gradients wanted."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, num_queries, 3), (2, num_keys, 3), (2, num_keys, 4), (3,)]
    query, key, value, score = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes
    )
    return query, key, value, score


@pytest.mark.parametrize("block_numbers", [1, 2 * 2 * 5, 1 << 23])
@pytest.mark.parametrize("chunk_numbers", [1, 2 * 2 * 5 * 3 + 1, 3 * 2 * 5 * 3, 1 << 19])
def test_chunked_attention_equals_the_plain_form_in_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, chunk_numbers: int, block_numbers: int
) -> None:
    monkeypatch.setattr(attention, "CHUNK_NUMBERS", chunk_numbers)
    monkeypatch.setattr(attention, "BLOCK_NUMBERS", block_numbers)
    position = torch.arange(5).expand(2, 5)
    weight = torch.randn(2, 5, 4, dtype=torch.float64)
    results = []
    for form in (additive_context, additive_context_plain):
        inputs = attention_inputs(5, 5)
        context = form(*inputs, position)
        (context * weight).sum().backward()
        results.append((context, *(tensor.grad for tensor in inputs)))
    for chunked, plain in zip(*results, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=1e-12)


def test_gradient_of_chunked_attention_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CHUNK_NUMBERS", 40)
    position = torch.tensor([[0, 3], [2, 1]])
    assert torch.autograd.gradcheck(lambda *inputs: additive_context(*inputs, position), attention_inputs(2, 4))


def test_additive_weights_are_those_of_the_formula() -> None:
    torch.manual_seed(2)
    additive = AdditiveAttention(LATENT, 4)
    posteriors = some_posteriors()
    history, place = 1, 4
    inputs = additive.query(posteriors[history, place]) + additive.key(posteriors[history, : place + 1])
    expected = torch.softmax(torch.tanh(inputs) @ additive.score, dim=0)
    weights = additive.weights(posteriors, posteriors, every_position())
    torch.testing.assert_close(weights[history, place, : place + 1], expected)
