"""Networks side by side: an ensemble that is trained, saved and served as one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from variseq.model.layers import Decoder, LatentHead, Posterior
from variseq.sequences.batches import Layout


class SideBySide(nn.Module):
    """Modules that each map a part of the numbers of a token; of n modules the first has the first nth part, and so on.

    Args:
        members: Modules of one kind, whose outputs are put side by side.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def parts(self, values: Float[Tensor, "*shape numbers"]) -> tuple[Float[Tensor, "*shape part"], ...]:
        """What each member gets of the last axis."""
        return values.chunk(len(self.members), dim=-1)

    def forward(self, values: Float[Tensor, "*shape numbers"], *others: object) -> Float[Tensor, "*shape numbers"]:
        """The outputs side by side; all members get the `others`."""
        return torch.cat(
            [member(part, *others) for member, part in zip(self.members, self.parts(values), strict=True)], dim=-1
        )


class LatentEnsemble(SideBySide):
    """`LatentHead` of each member: one posterior with independent parts."""

    def forward(self, hidden: Float[Tensor, "token hidden"]) -> Posterior:  # type: ignore[override]
        found = [cast("LatentHead", one)(part) for one, part in zip(self.members, self.parts(hidden), strict=True)]
        both = (torch.cat([getattr(one, name) for one in found], dim=1) for name in ("mean", "log_variance"))
        return Posterior(*both)


class DecoderEnsemble(SideBySide):
    """`Decoder` of each member. A preference is that of each over n, so scores are the means of the members' scores.

    The softmax of mean scores is the normalized geometric mean of the members' probabilities, a product of experts
    (Hinton 2002). On Amazon Beauty it ranks better than the mean of probabilities (docs/development/log.md).
    """

    def forward(  # type: ignore[override]
        self, mean: Float[Tensor, "token latent"], samples: Float[Tensor, "sample token latent"], layout: Layout
    ) -> Float[Tensor, "sample token hidden"]:
        """See `Decoder.forward`."""
        parts = zip(self.decoders(), self.parts(mean), self.parts(samples), strict=True)
        return self._joined([one(of_mean, of_samples, layout) for one, of_mean, of_samples in parts])

    def last(
        self, mean: Float[Tensor, "token latent"], samples: Float[Tensor, "sample token latent"], layout: Layout
    ) -> Float[Tensor, "sample history hidden"]:
        """See `Decoder.last`."""
        parts = zip(self.decoders(), self.parts(mean), self.parts(samples), strict=True)
        return self._joined([one.last(of_mean, of_samples, layout) for one, of_mean, of_samples in parts])

    def decoders(self) -> list[Decoder]:
        """The members."""
        return [cast("Decoder", one) for one in self.members]

    def _joined(self, preferences: list[Tensor]) -> Tensor:
        return torch.cat(preferences, dim=-1) / len(preferences)
