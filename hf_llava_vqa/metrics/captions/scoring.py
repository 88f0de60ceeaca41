"""Scoring captions: which tokeniser, which measures, corpus and images."""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any

from .captions_rules import ORDERS, cider, count_for_bleu, read_reference, rouge_l, tokenize_plain
from .java_tools import meteor, spice, tokenize_ptb
from .rows import mean, named, pair

Captions = Sequence[str]
Result = dict[str, tuple[float, list[float]]]  # by name: of the corpus, of every image


def _bleu(predictions: Captions, references: Sequence[Captions]) -> Result:
    counts = [count_for_bleu(*image) for image in zip(predictions, references, strict=True)]
    of_images = [image.bleu() for image in counts]
    of_corpus = reduce(add, counts).bleu()
    return {f"bleu_{order}": (of_corpus[order - 1], [image[order - 1] for image in of_images]) for order in ORDERS}


def _rouge_l(predictions: Captions, references: Sequence[Captions]) -> Result:
    scores = [rouge_l(*image) for image in zip(predictions, references, strict=True)]
    return {"rouge_l": (mean(scores), scores)}


def _cider(predictions: Captions, references: Sequence[Captions]) -> Result:
    scores = cider(predictions, references)
    return {"cider": (mean(scores), scores)}


MEASURES: dict[str, Callable[[Captions, Sequence[Captions]], Result]] = {
    "bleu": _bleu,
    "rouge_l": _rouge_l,
    "cider": _cider,
    "meteor": lambda predictions, references: {"meteor": meteor(predictions, references)},
    "spice": lambda predictions, references: {"spice": spice(predictions, references)},
}
TOKENIZERS: dict[str, Callable[[Captions], list[str]]] = {
    "plain": lambda captions: [tokenize_plain(caption) for caption in captions],
    "ptb": tokenize_ptb,
}


def score(
    predictions: Sequence[Any],
    references: Sequence[Any],
    measures: Sequence[str] = ("bleu", "rouge_l", "cider"),
    tokenizer: str = "plain",
    return_per_image: bool = False,
) -> dict[str, Any]:
    """Score captions.

    Args:
        predictions: one caption an image in the references' order, or `{"id", "prediction"}` in any order.
        references: for each image its captions, at least one, or `{"captions", "id"}`.
        measures: of `MEASURES`; `meteor` and `spice` need Java and the package pycocoevalcap.
        tokenizer: `plain` (lower case, split at spaces), or `ptb` (what published figures use; needs Java and the
            package pycocoevalcap). Captions that are tokenised already pass `plain` unchanged.
        return_per_image: add the scores of every image, in the references' order.

    Returns:
        `bleu_1` to `bleu_4`, `rouge_l`, `meteor`, `spice` (0 to 1) and `cider` (CIDEr-D, 0 to 10), as chosen; `n`;
        and, on request, `per_image`, the same by image.

    Raises:
        ValueError: an argument has another form; the message names the place.
        RuntimeError: Java or pycocoevalcap is missing.
    """
    unknown = [name for name in measures if name not in MEASURES]
    if isinstance(measures, str) or unknown or not measures:
        raise ValueError(f"measures: expected a list of {', '.join(MEASURES)}, got {measures!r:.60}")
    tokenize = named(TOKENIZERS, tokenizer, "tokenizer")
    texts, rows = pair(predictions, references, read_reference)
    tokens, captions = _tokenize(texts, [row["captions"] for row in rows], tokenize)
    results: Result = {}
    for name in measures:
        results |= MEASURES[name](tokens, captions)
    scores: dict[str, Any] = {name: corpus for name, (corpus, _) in results.items()}
    if return_per_image:
        scores["per_image"] = {name: per_image for name, (_, per_image) in results.items()}
    return {**scores, "n": len(rows)}


def _tokenize(
    predictions: Captions, references: Sequence[Captions], tokenize: Callable[[Captions], list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Tokenise all captions in one go, since a tokeniser may be another program."""
    captions = [*predictions, *(caption for of_image in references for caption in of_image)]
    tokens = iter(tokenize(captions))
    return [next(tokens) for _ in predictions], [[next(tokens) for _ in of_image] for of_image in references]
