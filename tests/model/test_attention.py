from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.contracts.attention import LATENT, check_attention, every_position, some_posteriors
from variseq.model import additive
from variseq.model.additive import additive_context, additive_context_plain
from variseq.model.attention import AdditiveAttention, DotProductAttention
from variseq.model.decoder import build_attention


@pytest.mark.parametrize("form", [AdditiveAttention, DotProductAttention])
def test_attention_keeps_its_contract(form: type[AdditiveAttention | DotProductAttention]) -> None:
    torch.manual_seed(0)
    check_attention(form(LATENT, 4))


@pytest.mark.parametrize("chunk_numbers", [1, 60, 200, 1 << 19])
def test_chunked_additive_attention_keeps_the_contract(monkeypatch: pytest.MonkeyPatch, chunk_numbers: int) -> None:
    monkeypatch.setattr(additive, "CHUNK_NUMBERS", chunk_numbers)
    torch.manual_seed(0)
    check_attention(AdditiveAttention(LATENT, 4))


def test_form_is_chosen_by_its_name() -> None:
    assert isinstance(build_attention("additive", 8, 4), AdditiveAttention)
    assert isinstance(build_attention("dot", 8, 4), DotProductAttention)


def attention_inputs(num_queries: int, num_keys: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and score in double precision, with gradients wanted."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, num_queries, 3), (2, num_keys, 3), (2, num_keys, 4), (3,)]
    query, key, value, score = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes
    )
    return query, key, value, score


@pytest.mark.parametrize("block_numbers", [1, 2 * 2 * 5, 1 << 23])
@pytest.mark.parametrize("chunk_numbers", [1, 2 * 5 * 3, 2 * 2 * 5 * 3 + 1, 3 * 2 * 5 * 3, 1 << 19])
def test_chunked_attention_equals_the_plain_form_in_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, chunk_numbers: int, block_numbers: int
) -> None:
    monkeypatch.setattr(additive, "CHUNK_NUMBERS", chunk_numbers)
    monkeypatch.setattr(additive, "BLOCK_NUMBERS", block_numbers)
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


@pytest.mark.parametrize("block_numbers", [1, 1 << 23])
@pytest.mark.parametrize("chunk_numbers", [1, 40, 1 << 19])
def test_gradient_of_chunked_attention_is_that_of_finite_differences(
    monkeypatch: pytest.MonkeyPatch, chunk_numbers: int, block_numbers: int
) -> None:
    monkeypatch.setattr(additive, "CHUNK_NUMBERS", chunk_numbers)
    monkeypatch.setattr(additive, "BLOCK_NUMBERS", block_numbers)
    position = torch.tensor([[0, 3], [2, 1]])
    assert torch.autograd.gradcheck(lambda *inputs: additive_context(*inputs, position), attention_inputs(2, 4))


def test_additive_weights_are_those_of_the_formula() -> None:
    torch.manual_seed(2)
    attention = AdditiveAttention(LATENT, 4)
    posteriors = some_posteriors()
    history, place = 1, 4
    inputs = attention.query(posteriors[history, place]) + attention.key(posteriors[history, : place + 1])
    expected = torch.softmax(torch.tanh(inputs) @ attention.score, dim=0)
    weights = attention.weights(posteriors, posteriors, every_position())
    torch.testing.assert_close(weights[history, place, : place + 1], expected)
