"""What a model would be trained on: token lengths, and rows with the supervised text marked, read from their trees."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_llava_vqa import forest
from hf_llava_vqa.collate import VqaCollator
from hf_llava_vqa.errors import VqaError
from hf_llava_vqa.records import Record
from hf_llava_vqa.reports.inspection.numbers import distribution

MARKED_ROWS = 3


class Span(TypedDict):
    """Tokens in a row, all of which are supervised with one weight, or none of which is."""

    text: str
    supervised: bool
    weight: float  # 0 if it is not supervised


class Line(TypedDict):
    """A stretch of a tree that does not branch, and how many branchings stand above it."""

    level: int
    spans: list[Span]


class TokenTally:
    """Counts a split's tokens as the collator makes them, images in full, and keeps the first rows."""

    def __init__(self, collator: VqaCollator) -> None:
        self.collator = collator
        self.paths: list[int] = []
        self.rows: list[int] = []
        self.supervised = 0
        self.untrainable: list[dict[str, str]] = []
        self.marked: list[dict[str, Any]] = []

    def add(self, record: Record) -> None:
        """Count one record."""
        try:
            trees = self.collator.trees(record)
        except VqaError as error:
            self.untrainable.append({"image_id": record["image_id"], "reason": str(error)})
            return
        for tree in trees:
            cost = np.where(tree.input_ids == self.collator.image_token_id, self.collator.image_tokens, 1)
            self.paths += path_lengths(tree, cost)
            self.rows.append(int(cost.sum()))
            self.supervised += int(np.count_nonzero(tree.supervised))
            if len(self.marked) < MARKED_ROWS:
                lines = marked_text(tree, self.collator.processor.tokenizer)
                self.marked.append({"image_id": record["image_id"], "tokens": self.rows[-1], "lines": lines})

    def findings(self) -> dict[str, Any]:
        """What a split's tokens are like, as `tokens` of the report."""
        return {
            "paths": distribution(self.paths),
            "rows": distribution(self.rows),
            "total": sum(self.rows),
            "supervised": self.supervised,
            "untrainable": self.untrainable,
            "marked": self.marked,
        }


def path_lengths(tree: forest.Tree, cost: np.ndarray) -> list[int]:
    """The length of every path of a tree, from its root to its last token, if token i counts `cost[i]`."""
    depth = np.zeros(len(tree), np.int64)
    for index, (parent, own) in enumerate(zip(tree.parent, cost, strict=True)):
        depth[index] = own + (depth[parent] if parent >= 0 else 0)
    return depth[tree.leaves].tolist()


def marked_text(tree: forest.Tree, tokenizer: PreTrainedTokenizerBase) -> list[Line]:
    """The text of a tree, depth first."""
    branches = np.bincount(tree.parent + 1, minlength=len(tree) + 1)[1:] > 1  # by token, without the roots
    follows = (tree.parent[1:] == np.arange(len(tree) - 1)) & ~branches[:-1]
    starts = [0, *(1 + np.flatnonzero(~follows | (tree.supervised[1:] != tree.supervised[:-1]))).tolist()]
    levels = {-1: 0}  # by the last token of a span
    lines: list[Line] = []
    for start, end in zip(starts, [*starts[1:], len(tree)], strict=True):
        parent = int(tree.parent[start])
        levels[end - 1] = levels[parent] + int(parent >= 0 and branches[parent])
        if start == 0 or not follows[start - 1]:
            lines.append({"level": levels[end - 1], "spans": []})
        supervised, weight = bool(tree.supervised[start]), float(tree.weights[start])
        text = _text(tree, start, end, tokenizer)
        lines[-1]["spans"].append({"text": text, "supervised": supervised, "weight": weight})
    return lines


def _text(tree: forest.Tree, start: int, end: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that tokens add to what stands before them: alone, they would lose the space in front."""
    before: list[int] = []
    index = int(tree.parent[start])
    while index >= 0:
        before.append(int(tree.input_ids[index]))
        index = int(tree.parent[index])
    before.reverse()
    ids = tree.input_ids[start:end].tolist()
    context, text = _decode(tokenizer, before), _decode(tokenizer, before + ids)
    return text.removeprefix(context) if text.startswith(context) else _decode(tokenizer, ids)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
