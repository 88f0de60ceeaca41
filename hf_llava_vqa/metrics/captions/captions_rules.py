"""Captions: BLEU, ROUGE-L and CIDEr-D as the COCO caption evaluation computes them, without Java. Pure functions on
captions that are tokenised already: words between single spaces."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, or_

from .rows import list_of, mean, row_of, text

Words = tuple[str, ...]

ORDERS = (1, 2, 3, 4)
ROUGE_BETA = 1.2  # weight of recall against precision
CIDER_SIGMA = 6.0  # how far lengths may differ
# The reference adds these to numerators and denominators, so that nothing is divided by zero.
_TINY, _SMALL = 1e-15, 1e-9

read_reference = row_of({"captions": list_of(text, at_least=1)}, {})


def tokenize_plain(caption: str) -> str:
    """Return the caption in lower case with single spaces between its words; punctuation stays on them."""
    return " ".join(caption.lower().split())


def count_ngrams(caption: str) -> Counter[Words]:
    """Return how often each run of one to four words occurs."""
    words = tuple(caption.split())
    return Counter(words[start : start + order] for order in ORDERS for start in range(len(words) - order + 1))


@dataclass(frozen=True)
class BleuCounts:
    """What BLEU needs to know about a caption; the counts of a corpus are the sums."""

    length: int
    reference_length: int
    matches: tuple[int, ...]  # of each order
    ngrams: tuple[int, ...]  # of each order

    def __add__(self, other: "BleuCounts") -> "BleuCounts":
        return BleuCounts(
            self.length + other.length,
            self.reference_length + other.reference_length,
            tuple(map(add, self.matches, other.matches)),
            tuple(map(add, self.ngrams, other.ngrams)),
        )

    def bleu(self) -> list[float]:
        """Return BLEU-1 to BLEU-4."""
        ratio = (self.length + _TINY) / (self.reference_length + _SMALL)
        penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        product, scores = 1.0, []
        for order, matches, ngrams in zip(ORDERS, self.matches, self.ngrams, strict=True):
            product *= (matches + _TINY) / (ngrams + _SMALL)
            scores.append(product ** (1 / order) * penalty)
        return scores


def count_for_bleu(prediction: str, references: Sequence[str]) -> BleuCounts:
    """Count the n-grams of a caption that one of the references has as often, against the length of the closest."""
    length = len(prediction.split())
    found = count_ngrams(prediction) & reduce(or_, map(count_ngrams, references))
    matches = Counter[int]()
    for ngram, count in found.items():
        matches[len(ngram)] += count
    lengths = [len(reference.split()) for reference in references]
    return BleuCounts(
        length,
        min(lengths, key=lambda other: (abs(other - length), other)),
        tuple(matches[order] for order in ORDERS),
        tuple(max(0, length - order + 1) for order in ORDERS),
    )


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """Return ROUGE-L: the F measure of the best precision and the best recall of the longest common subsequence, taken
    from the references independently. An empty caption is one empty word."""
    words = prediction.split(" ")
    others = [reference.split(" ") for reference in references]
    common = [_longest_common_subsequence(words, other) for other in others]
    precision = max(common) / len(words)
    recall = max(length / len(other) for length, other in zip(common, others, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _longest_common_subsequence(words: Sequence[str], others: Sequence[str]) -> int:
    best = [0] * (len(others) + 1)  # for the words so far, by how many of the others
    for word in words:
        before = 0
        for index, other in enumerate(others):
            before, best[index + 1] = best[index + 1], before + 1 if word == other else max(best[index : index + 2])
    return best[-1]


@dataclass(frozen=True)
class CiderVector:
    """The n-grams of a caption, weighted by frequency and rarity."""

    weights: tuple[dict[Words, float], ...]  # of each order
    norms: tuple[float, ...]  # of each order
    bigrams: int

    @classmethod
    def of(cls, ngrams: Counter[Words], rarity: "Rarity") -> "CiderVector":
        """Weigh the n-grams of a caption."""
        weights: tuple[dict[Words, float], ...] = tuple({} for _ in ORDERS)
        for ngram, count in ngrams.items():
            weights[len(ngram) - 1][ngram] = count * rarity.of(ngram)
        norms = tuple(math.sqrt(math.fsum(weight**2 for weight in order.values())) for order in weights)
        return cls(weights, norms, sum(count for ngram, count in ngrams.items() if len(ngram) == 2))

    def similarity(self, reference: "CiderVector") -> float:
        """Return the clipped cosine similarity to a reference, averaged over the orders, damped by the difference of
        the lengths."""
        damping = math.exp(-((self.bigrams - reference.bigrams) ** 2) / (2 * CIDER_SIGMA**2))
        cosines = []
        for order in range(len(ORDERS)):
            wanted = reference.weights[order]
            shared = [min(weight, wanted.get(g, 0.0)) * wanted.get(g, 0.0) for g, weight in self.weights[order].items()]
            norm = self.norms[order] * reference.norms[order]
            cosines.append(math.fsum(shared) / norm if norm else 0.0)
        return damping * mean(cosines)


class Rarity:
    """The inverse document frequency of n-grams, a document being all references of one image."""

    def __init__(self, documents: Sequence[Sequence[Counter[Words]]]) -> None:
        self.log_documents = math.log(len(documents))
        self.frequency = Counter(ngram for document in documents for ngram in set().union(*document))

    def of(self, ngram: Words) -> float:
        """Return the rarity of an n-gram; one that no reference has counts as if one document had it."""
        return self.log_documents - math.log(max(1, self.frequency[ngram]))


def cider(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return CIDEr-D, 0 to 10, of every image; rarity is that in these references, so one image alone scores 0."""
    documents = [[count_ngrams(caption) for caption in captions] for captions in references]
    rarity = Rarity(documents)
    scores = []
    for prediction, document in zip(predictions, documents, strict=True):
        vector = CiderVector.of(count_ngrams(prediction), rarity)
        scores.append(10 * mean([vector.similarity(CiderVector.of(ngrams, rarity)) for ngrams in document]))
    return scores
