"""What every attention over posteriors must hold; each function takes one and raises AssertionError."""

from __future__ import annotations

import torch
from torch import Tensor

from variseq.model.attention import PosteriorAttention

HISTORIES, LONGEST, LATENT = 3, 7, 8


def check_attention(attention: PosteriorAttention) -> None:
    """All of the contract, on posteriors of `LATENT` dimensions."""
    memory = some_posteriors()
    weights_are_a_distribution_over_the_past(attention, memory)
    context_is_the_content_averaged_with_the_weights_of_the_memory(attention, memory)
    later_posterior_never_changes_an_earlier_context(attention, memory)
    histories_do_not_mix(attention, memory)
    one_query_gives_what_all_queries_give(attention, memory)
    first_posterior_sees_itself_alone(attention, memory)


def some_posteriors(seed: int = 0) -> Tensor:
    return torch.randn(HISTORIES, LONGEST, LATENT, generator=torch.Generator().manual_seed(seed))


def every_position() -> Tensor:
    return torch.arange(LONGEST).expand(HISTORIES, LONGEST)


def weights_are_a_distribution_over_the_past(attention: PosteriorAttention, memory: Tensor) -> None:
    weights = attention.weights(memory, memory, every_position())
    assert weights.shape == (HISTORIES, LONGEST, LONGEST)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(HISTORIES, LONGEST))
    assert bool((weights.triu(diagonal=1) == 0).all()), "a weight lies on the future"


def context_is_the_content_averaged_with_the_weights_of_the_memory(
    attention: PosteriorAttention, memory: Tensor
) -> None:
    position = every_position()
    content = torch.cat([memory, some_posteriors(seed=1)], dim=2)
    expected = attention.weights(memory, memory, position) @ content
    torch.testing.assert_close(attention(memory, memory, content, position), expected)


def later_posterior_never_changes_an_earlier_context(attention: PosteriorAttention, memory: Tensor) -> None:
    before = attention(memory, memory, memory, every_position())
    for place in range(1, LONGEST):
        changed = memory.clone()
        changed[:, place:] += 10.0
        after = attention(changed, changed, changed, every_position())
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.equal(after[:, place:], before[:, place:])


def histories_do_not_mix(attention: PosteriorAttention, memory: Tensor) -> None:
    changed = memory.clone()
    changed[1] += 10.0
    before = attention(memory, memory, memory, every_position())
    after = attention(changed, changed, changed, every_position())
    assert torch.equal(after[[0, 2]], before[[0, 2]])


def one_query_gives_what_all_queries_give(attention: PosteriorAttention, memory: Tensor) -> None:
    """What a recommendation asks: the last real position of each history, with empty slots after it."""
    together = attention(memory, memory, memory, every_position())
    last = torch.tensor([[2], [6], [0]])
    rows = torch.arange(HISTORIES).unsqueeze(1)
    alone = attention(memory[rows, last], memory, memory, last)
    torch.testing.assert_close(alone, together[rows, last])


def first_posterior_sees_itself_alone(attention: PosteriorAttention, memory: Tensor) -> None:
    torch.testing.assert_close(attention(memory, memory, memory, every_position())[:, 0], memory[:, 0])
