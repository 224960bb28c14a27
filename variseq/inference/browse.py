"""A served catalog for people who look: search by title, items alike, a map, and what the model is."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from variseq.artifacts.bundle import Bundle
from variseq.errors import InputError
from variseq.events.vocabulary import Id
from variseq.recommend.wishes import check_k

MAX_MAPPED = 2000
"""At most so many items are on the map, the most popular ones."""
SHORTEST = 1e-12


class Catalog:
    """The items of a bundle by title and by place."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        num_items = bundle.vocabulary.num_items
        self.ids: list[Id] = bundle.vocabulary.items.to_pylist()
        self.titles: list[str | None] = (
            [None] * num_items if bundle.items is None else bundle.items.titles(range(num_items))
        )

    def name(self, item: int) -> str:
        """The title of an item, or its id where it has none."""
        return self.titles[item] or str(self.ids[item])

    def search(self, text: str, limit: int) -> list[dict[str, Any]]:
        """Items whose title or id holds a text: the id itself, then what begins with it, then by popularity."""
        wanted, exact = text.casefold().strip(), (text, text.strip())
        found = [item for item in self._by_popularity.tolist() if wanted in self._folded[item]]
        found.sort(key=lambda item: (str(self.ids[item]) not in exact, not self._folded[item].startswith(wanted)))
        return [{"item_id": self.ids[item], "title": self.titles[item]} for item in found[:limit]]

    def similar(self, item_id: Id, k: int) -> list[dict[str, Any]]:
        """The items whose vectors point most nearly the same way (cosine). Raises InputError for an unknown item."""
        check_k(k, self.bundle.vocabulary.num_items - 1, "the number of other items")
        position = int(self.bundle.vocabulary.item_positions([item_id])[0])
        if position < 0:
            raise InputError(f"item_id names an item that is not in the catalog: {item_id!r}.")
        cosine = self._directions @ self._directions[position]
        cosine[position] = -np.inf
        best = np.lexsort((np.arange(len(cosine)), -cosine))[:k]
        return [
            {"item_id": self.ids[item], "rank": rank, "score": float(cosine[item]), "title": self.titles[item]}
            for rank, item in enumerate(best.tolist(), 1)
        ]

    def item_map(self) -> dict[str, Any]:
        """The most popular items on the plane that shows most of how their vectors differ (principal components)."""
        shown = self._by_popularity[:MAX_MAPPED]
        centred = self._directions[shown] - self._directions[shown].mean(axis=0)
        _, strength, axes = np.linalg.svd(centred, full_matrices=False)
        place = centred @ axes[:2].T
        # The sign of a component means nothing; fixed, so that the map of a model is always the same.
        place *= np.where(np.take_along_axis(axes[:2], np.abs(axes[:2]).argmax(axis=1)[:, None], 1)[:, 0] < 0, -1, 1)
        items = self.bundle.items
        categories = [()] * len(shown) if items is None else items.categories(shown)
        rows = zip(shown.tolist(), place.tolist(), categories, strict=True)
        return {
            "items": [
                {
                    "item_id": self.ids[item],
                    "title": self.titles[item],
                    "x": round(x, 4),
                    "y": round(y, 4),
                    "category": of_item[0] if of_item else None,
                }
                for item, (x, y), of_item in rows
            ],
            "share_shown": round(float((strength[:2] ** 2).sum() / max((strength**2).sum(), SHORTEST)), 4),
        }

    def health(self) -> dict[str, Any]:
        """What the model is, how it was judged on validation, and whether its latent is used."""
        return {"version": self.bundle.version, **self.bundle.facts.health}

    @cached_property
    def _folded(self) -> list[str]:
        return [
            str(one).casefold() if title is None else f"{title} {one}".casefold()
            for one, title in zip(self.ids, self.titles, strict=True)
        ]

    @cached_property
    def _by_popularity(self) -> Int[np.ndarray, " item"]:
        return np.argsort(-self.bundle.tables.log_share, kind="stable")

    @cached_property
    def _directions(self) -> Float[np.ndarray, "item hidden"]:
        vectors = self.bundle.tables.item_vectors
        direction: Float[np.ndarray, "item hidden"] = vectors / np.maximum(
            np.linalg.norm(vectors, axis=1, keepdims=True), SHORTEST
        )
        return direction
