"""Texts to vectors by TF-IDF of words and characters and a singular value decomposition, fitted on the items."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from unicodedata import normalize

import numpy as np
from jaxtyping import Float, Float16, Float32, Int

from variseq.errors import CheckpointError, MissingDependencyError

MAX_CHARACTERS = 2000
"""What stands further on in a text does not count."""
NGRAM_LENGTHS = (2, 3, 4)
"""Of characters. Writing without spaces, as Chinese, is compared by these alone."""
NGRAM_WEIGHT = 0.5
"""Of the n-grams of characters together, where words and pairs of words together count 1."""
MAX_WORDS, MAX_NGRAMS = 16_000, 4_000
MAX_FITTED_CHARACTERS = 10_000_000
KEPT_WORDS = 1 << 15
"""Words whose n-grams stay in memory: most words of a catalog come again and again."""
_WORD = re.compile(r"\w+")
_MARK = "#"  # before n-grams of characters; no word has it


def features(text: str) -> Iterator[str]:
    """Words, pairs of words, and the n-grams of characters within each word, of a text in any writing.

    >>> list(features("Red hat"))[:5]
    ['red', 'hat', 'red hat', '# r', '#re']
    """
    words = _words(text)
    yield from words
    yield from map(" ".join, pairwise(words))
    for word in words:
        yield from _ngrams(word)


def _words(text: str) -> list[str]:
    return _WORD.findall(normalize("NFKC", text[:MAX_CHARACTERS]).casefold())


@lru_cache(maxsize=KEPT_WORDS)
def _ngrams(word: str) -> tuple[str, ...]:
    padded = f" {word} "
    return tuple(_MARK + padded[first : first + n] for n in NGRAM_LENGTHS for first in range(len(padded) - n + 1))


@dataclass(frozen=True, eq=False)
class TfidfMap:
    """A fitted map of texts: features (words before n-grams), their inverse document frequency, and a basis.

    The weight of a feature is (1 + log count) · IDF. Words and n-grams have length 1 each, n-grams then count half, and
    the row has length 1 before it is projected on the basis. It is zero without known features.
    """

    vocabulary: tuple[str, ...]
    idf: Float32[np.ndarray, " feature"]
    basis: Float16[np.ndarray, "feature dim"]
    name = "tfidf"

    @classmethod
    def fit(cls, texts: Sequence[str], max_dim: int, seed: int = 0) -> TfidfMap | None:
        """The map of texts; None where no feature is in two of them.

        IDF is log((1 + texts) / (1 + texts with the feature)) + 1. The features of most texts are kept, those of a
        single one are not. Of many texts a random sample is taken.

        Raises:
            MissingDependencyError: scikit-learn is not installed.
        """
        lengths = np.array([min(len(text), MAX_CHARACTERS) for text in texts])
        if lengths.sum() > MAX_FITTED_CHARACTERS:
            order = np.random.default_rng(seed).permutation(len(texts))
            order = order[np.cumsum(lengths[order]) <= MAX_FITTED_CHARACTERS]
            texts = [texts[index] for index in np.sort(order)]
        num_texts: Counter[str] = Counter()
        for text in texts:
            num_texts.update(set(features(text)))
        repeated = sorted((-count, feature) for feature, count in num_texts.items() if count > 1)
        words = [feature for _, feature in repeated if feature[0] != _MARK][:MAX_WORDS]
        ngrams = [feature for _, feature in repeated if feature[0] == _MARK][:MAX_NGRAMS]
        kept = (*words, *ngrams)
        if not kept:
            return None
        count = np.array([num_texts[feature] for feature in kept])
        idf = (np.log((1 + len(texts)) / (1 + count)) + 1).astype(np.float32)
        unprojected = cls(kept, idf, np.zeros((len(kept), 0), np.float16))
        return cls(kept, idf, unprojected._fitted_basis(texts, max_dim, seed))

    def _fitted_basis(self, texts: Sequence[str], max_dim: int, seed: int) -> Float16[np.ndarray, "feature dim"]:
        try:
            from scipy.sparse import csr_matrix
            from sklearn.utils.extmath import randomized_svd
        except ImportError as error:
            raise MissingDependencyError("scikit-learn", "train") from error
        rows = [self._weights(text) for text in texts]
        offsets = np.cumsum([0, *(len(index) for index, _ in rows)])
        index, weight = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        matrix = csr_matrix((weight, index, offsets), shape=(len(texts), len(self.idf)))
        _, _, basis = randomized_svd(matrix, min(max_dim, *matrix.shape), n_iter=4, random_state=seed)
        return np.ascontiguousarray(basis.T, np.float16)

    @property
    def dim(self) -> int:
        return self.basis.shape[1]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {feature: index for index, feature in enumerate(self.vocabulary)}

    @cached_property
    def _num_words(self) -> int:
        return sum(feature[0] != _MARK for feature in self.vocabulary)

    @cached_property
    def _known_ngrams(self) -> Callable[[str], tuple[int, ...]]:
        """The known n-grams of a word, from memory if it came before."""
        index = self._index
        return lru_cache(maxsize=KEPT_WORDS)(lambda word: tuple(index[one] for one in _ngrams(word) if one in index))

    def _weights(self, text: str) -> tuple[Int[np.ndarray, " known"], Float[np.ndarray, " known"]]:
        """The known features of a text and their weights."""
        get, words = self._index.get, _words(text)
        known = [get(feature, -1) for feature in chain(words, map(" ".join, pairwise(words)))]
        known.extend(chain.from_iterable(map(self._known_ngrams, words)))
        index, count = np.unique(np.array(known, np.int64), return_counts=True)
        first = int(np.searchsorted(index, 0))
        index, count = index[first:], count[first:]
        weight = (1 + np.log(count.astype(np.float32))) * self.idf[index]
        num_words = int(np.searchsorted(index, self._num_words))
        weight[:num_words] /= max(float(np.linalg.norm(weight[:num_words])), 1e-12)
        weight[num_words:] *= NGRAM_WEIGHT / max(float(np.linalg.norm(weight[num_words:])), 1e-12)
        return index, weight / max(float(np.linalg.norm(weight)), 1e-12)

    def encode(self, texts: Sequence[str | None]) -> Float32[np.ndarray, "item dim"]:
        """One row a text; zero for None and for texts without known features."""
        rows = np.zeros((len(texts), self.dim), np.float32)
        basis = self.basis.astype(np.float32) if len(texts) > 100 else self.basis
        for row, text in zip(rows, texts, strict=True):
            if text:
                index, weight = self._weights(text)
                row[:] = weight @ basis[index]
        return rows

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays of a file; the vocabulary is UTF-8, a line a feature."""
        words = np.frombuffer("\n".join(self.vocabulary).encode(), np.uint8).copy()
        return {"vocabulary": words, "idf": self.idf, "basis": self.basis}

    @classmethod
    def of_tensors(cls, vocabulary: np.ndarray, idf: np.ndarray, basis: np.ndarray) -> TfidfMap:
        """The inverse of `tensors`. Raises CheckpointError and UnicodeDecodeError."""
        words = tuple(vocabulary.tobytes().decode().split("\n"))
        is_ngram = [word.startswith(_MARK) for word in words]
        if idf.shape != (len(words),) or basis.shape[:1] != idf.shape or "" in words or sorted(is_ngram) != is_ngram:
            raise CheckpointError("vocabulary and basis of the texts do not fit together")
        return cls(words, idf.astype(np.float32), basis.astype(np.float16))
