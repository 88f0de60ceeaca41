"""What is asked: the questions of records, as trees of their prompts, in batches of about one length."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from transformers import LlavaProcessor

from hf_llava_vqa import forest, prompts
from hf_llava_vqa.collate import image_tokens, prompt_turns
from hf_llava_vqa.errors import ConfigError, VqaError

T = TypeVar("T")
Question = tuple[dict[str, Any], dict[str, Any]]  # a record and one of its dialogues
Batch = list[tuple[int, "Planted"]]  # trees with their numbers; padding has number -1
BATCH_TOKENS = 16_384  # read together unless the caller says otherwise: 25 pictures with a question each
WINDOW = 8  # batches that are sorted by length together


def questions(records: Iterable[dict[str, Any]]) -> Iterator[Question]:
    """Every dialogue of every record that ends with a question, with its record, in order."""
    for record in records:
        for dialogue in record["dialogues"]:
            if dialogue["turns"][-1]["role"] in prompts.QUESTIONERS:
                yield record, dialogue


@dataclass(frozen=True)
class Planted:
    """Some dialogues of a record as a row: one path a dialogue, or one for each of its candidate answers.

    `leaves[p]` is the index of path p's last token in the row; `pictures` says which of the record's pictures each
    image slot of the row shows.
    """

    record: dict[str, Any]
    dialogues: list[dict[str, Any]]
    row: forest.Row
    leaves: np.ndarray  # [P] int64
    pictures: list[int]

    def __len__(self) -> int:
        return len(self.row)


def plant(
    processor: LlavaProcessor,
    record: dict[str, Any],
    dialogues: Sequence[dict[str, Any]],
    paths: Sequence[forest.Path],
) -> Planted:
    """Merge paths of one record to a tree, give its pictures their tokens, and lay it out."""
    tree = forest.merge(paths)
    pictures = forest.image_order(tree, processor.image_token_id)
    tree = forest.expand_images(tree, processor.image_token_id, image_tokens(processor))
    (row,) = forest.lay_out([tree])
    return Planted(record, list(dialogues), row, tree.leaves, pictures)


def prompt_trees(
    processor: LlavaProcessor,
    records: Iterable[dict[str, Any]],
    *,
    template: str,
    instruction: str | None,
    max_branches: int,
) -> Iterator[Planted]:
    """The prompts of each record as trees of at most `max_branches` branches, in order.

    Raises:
        VqaError: naming the dialogue whose prompt cannot be built.
    """
    for record in records:
        asked = questions([record])
        while dialogues := [dialogue for _, dialogue in islice(asked, max_branches)]:
            paths = [encode(processor, record, dialogue, template, instruction) for dialogue in dialogues]
            yield plant(processor, record, dialogues, paths)


def encode(
    processor: LlavaProcessor,
    record: dict[str, Any],
    dialogue: dict[str, Any],
    template: str,
    instruction: str | None,
    answer: str | None = None,
) -> forest.Path:
    """A dialogue as the one encoder has it, with `answer` behind it if there is one; errors name the dialogue."""
    said = [] if answer is None else [{"role": "assistant", "content": answer}]
    try:
        turns = prompt_turns(record, dialogue, instruction)
        next_role = "assistant" if answer is None else None
        return prompts.encode([*turns, *said], processor.tokenizer, template, next_role=next_role)
    except VqaError as error:
        raise type(error)(f"{record['image_id']}, dialogue {dialogue['id']}: {error}") from error


def check_limits(**limits: int) -> None:
    """Raise `ConfigError` for a limit below 1."""
    for name, value in limits.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")


def batches(trees: Iterable[Planted], *, batch_size: int, batch_tokens: int) -> Iterator[Batch]:
    """Trees with their numbers, in batches of at most `batch_size` rows and `batch_tokens` tokens, padding included.

    A window of trees is sorted by length, the longest first, so that the rows of a batch need little padding. A tree
    longer than `batch_tokens` is a batch of its own.
    """
    numbered = enumerate(trees)
    while window := list(islice(numbered, WINDOW * batch_size)):
        window.sort(key=lambda item: -len(item[1]))
        while window:
            rows = min(batch_size, max(1, batch_tokens // len(window[0][1])))
            yield window[:rows]
            del window[:rows]


def in_step(work: Iterator[Batch], anyone: Callable[[bool], bool], processor: LlavaProcessor) -> Iterator[Batch]:
    """As many batches on every rank as on the one with most, each with a picture: all ranks run the same modules."""
    while anyone((batch := next(work, None)) is not None):
        batch = batch or []
        yield batch if any(tree.pictures for _, tree in batch) else [*batch, (-1, _padding_tree(processor))]


def _padding_tree(processor: LlavaProcessor) -> Planted:
    """A picture that nothing is asked about."""
    record = {"image_id": "padding", "images": [Image.new("RGB", (1, 1))], "dialogues": []}
    ids = [processor.tokenizer.bos_token_id, processor.image_token_id]
    planted = plant(processor, record, [], [(ids, [False, False])])
    return replace(planted, leaves=planted.leaves[:0])


def in_order(done: Iterable[dict[int, T]]) -> Iterator[T]:
    """What was made of each tree, by number, in the order of the numbers as soon as that is possible."""
    waiting: dict[int, T] = {}
    following = 0
    for results in done:
        waiting |= results
        while following in waiting:
            yield waiting.pop(following)
            following += 1
