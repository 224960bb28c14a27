"""An ensemble is its members: their scores, their losses, and their gradients."""

from __future__ import annotations

import pytest
import torch

from tests.model.some_networks import NUM_ITEMS, full_histories, query_batch, small_network
from variseq.model.losses import Negatives
from variseq.model.network import Network, NetworkConfig, Weights

SHAPE = {"hidden_size": 12, "latent_dim": 12, "num_heads": 3, "num_members": 3, "dropout": 0.0, "num_behaviors": 3}


def ensemble() -> Network:
    return small_network(skip_gram_window=2, has_gaps=True, **SHAPE)


def member(whole: Network, index: int) -> Network:
    """One of the members as a network of its own."""
    alone = small_network(
        skip_gram_window=2, has_gaps=True, hidden_size=4, latent_dim=4, num_heads=1, dropout=0.0, num_behaviors=3
    )
    state = {}
    for name, tensor in whole.state_dict().items():
        part, _, rest = name.partition(".members.")
        if not rest:
            is_of_vectors = name.startswith("embedding.") and tensor.ndim == 2
            state[name] = tensor.chunk(3, dim=1)[index] if is_of_vectors else tensor
        elif rest.startswith(f"{index}."):
            state[f"{part}.{rest.partition('.')[2]}"] = tensor
    alone.load_state_dict(state)
    return alone


def test_scores_are_the_means_of_those_of_the_members() -> None:
    whole, batch = ensemble(), query_batch(full_histories([3, 1, 9]))
    members = [member(whole, index) for index in range(3)]
    expected = torch.stack([one.scores(one(batch).preference, 0, NUM_ITEMS) for one in members]).mean(dim=0)
    torch.testing.assert_close(whole.scores(whole(batch).preference, 0, NUM_ITEMS), expected)


@pytest.mark.parametrize("negatives", [None, Negatives(torch.tensor([1, 5, 5, 8]), torch.zeros(NUM_ITEMS) - 2.5)])
def test_members_learn_what_they_would_learn_alone(negatives: Negatives | None) -> None:
    whole, batch = ensemble(), query_batch(full_histories([3, 1, 9]))
    weights = Weights(beta=0.1, noise=0.0, skip_gram=0.3)
    found = whole.objective(batch, weights, negatives)
    found.loss.backward()
    nll, kl, bias = [], [], torch.zeros(NUM_ITEMS)
    for index in range(3):
        alone = member(whole, index)
        objective = alone.objective(batch, weights, negatives)
        objective.loss.backward()
        nll.append(objective.nll)
        kl.append(objective.kl)
        bias += alone.item_bias.grad
        own = whole.embedding.item.grad.chunk(3, dim=1)[index]
        torch.testing.assert_close(own, alone.embedding.item.grad)
        for part, same in zip(whole.members()[index], alone.members()[0], strict=True):
            for first, second in zip(part.parameters(), same.parameters(), strict=True):
                torch.testing.assert_close(first.grad, second.grad)
    torch.testing.assert_close(whole.item_bias.grad, bias)
    torch.testing.assert_close(found.nll, torch.stack(nll).mean())
    torch.testing.assert_close(found.kl, torch.stack(kl).sum())


@pytest.mark.parametrize(("name", "size"), [("hidden_size", 10), ("latent_dim", 8), ("num_heads", 2)])
def test_shape_that_members_cannot_share_is_refused(name: str, size: int) -> None:
    shape = {"num_items": 5, "hidden_size": 12, "latent_dim": 12, "num_heads": 6, "num_members": 3}
    if name == "hidden_size":
        shape["num_heads"] = 5
    with pytest.raises(ValueError, match=f"{name} {size} is not a multiple of num_members 3"):
        NetworkConfig(**shape | {name: size})
