"""What a public catalog says of its items, for a network across silos: categories, and vectors of texts and numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from variseq.content.item_content import ItemContent
from variseq.errors import InputError
from variseq.events.items import CategoryLinks, ItemTable
from variseq.events.vocabulary import Vocabulary

if TYPE_CHECKING:
    from variseq.model.network import Network


@dataclass(frozen=True, eq=False)
class PublicFeatures:
    """What the vectors of items share. Every party computes it from the same table, of which no log is a part.

    Args:
        digest: SHA-256 of the columns.
        links: The categories of items; None where no category tells items apart.
        content: The content vectors of items; None where there is no content.
    """

    digest: str
    links: CategoryLinks | None
    content: Float[np.ndarray, "item content"] | None

    @classmethod
    def of(cls, items: ItemTable, vocabulary: Vocabulary) -> PublicFeatures:
        """Those of the table of a catalog. Raises InputError for one without categories and content."""
        links, ids = items.category_links(), vocabulary.items.to_pylist()
        encoder = ItemContent.fit(items.table, np.ones(len(ids), dtype=bool), ids)
        content = None if encoder is None else encoder.encode(items.table, ids)
        if not links.num_categories and content is None:
            raise InputError(
                "The catalog has no category that items share, and no titles, vectors or numbers. Give a table with "
                "such columns, or leave out --content."
            )
        return cls(digest_of(items.table), links if links.num_categories else None, content)

    @property
    def number(self) -> int:
        """How many vectors a network has of them."""
        categories = 0 if self.links is None else self.links.num_categories
        return categories + (0 if self.content is None else self.content.shape[1])

    def add_to(self, network: Network) -> None:
        """Make each item vector of a network a sum, see `EventEmbedding`."""
        if self.links is not None:
            network.embedding.use_categories(self.links)
        if self.content is not None:
            network.embedding.use_content(self.content)


def digest_of(table: pa.Table) -> str:
    """SHA-256 of the names, types and values of all columns.

    >>> digest_of(pa.table({"title": ["a"]})) == digest_of(pa.table({"title": ["b"]}))
    False
    """
    plain, sink = table.replace_schema_metadata(None).combine_chunks(), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, plain.schema) as stream:
        stream.write_table(plain)
    return hashlib.sha256(sink.getvalue()).hexdigest()
