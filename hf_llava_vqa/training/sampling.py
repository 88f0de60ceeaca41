"""The order of map-style training rows: a step's rows all have pictures or all have none, its batches equal work.

Rules as in LLaVA's `group_by_modality_length`. A picture costs a vision tower and hundreds of tokens, so a rank with a
batch of text waits for the others. The batches of a step are made equal in their sum; rows within one batch differ in
length, so this saves waiting, not padding.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.utils.data import Sampler

from hf_llava_vqa.errors import ConfigError

_ROWS_AT_A_TIME = 1024


def length_grouped(lengths: Sequence[int], *, batch_size: int, batches: int, generator: torch.Generator) -> list[int]:
    """Permute the rows so that the `batches` batches of a step are of similar total length.

    A random permutation is cut into steps; a step is sorted, longest first, and dealt to its batches by length.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    result: list[int] = []
    for step in _cut(order, batch_size * batches):
        longest_first = sorted(step, key=lambda row: lengths[row], reverse=True)
        for batch in even_batches(longest_first, lengths, batches):
            result += batch
    return result


def even_batches(rows: Sequence[int], lengths: Sequence[int], batches: int) -> list[list[int]]:
    """Deal rows to equally many batches: each to the batch whose total length is the smallest and that has room.

    Rows that do not divide evenly are dealt in turn, whatever their lengths.
    """
    if len(rows) % batches:
        return [list(rows[start::batches]) for start in range(batches)]
    dealt: list[list[int]] = [[] for _ in range(batches)]
    totals = [0] * batches
    room = len(rows) // batches
    for row in rows:
        target = min((batch for batch in range(batches) if len(dealt[batch]) < room), key=totals.__getitem__)
        dealt[target].append(row)
        totals[target] += lengths[row]
    return dealt


def modality_grouped(
    lengths: Sequence[int],
    has_image: Sequence[bool],
    *,
    batch_size: int,
    batches: int,
    generator: torch.Generator,
) -> list[int]:
    """Permute the rows so that each step holds rows with pictures only or text only, in batches of similar length.

    Both kinds are grouped by length and cut into steps; the steps are shuffled. What is left of both kinds (the last
    step of each, full or not) forms one mixed step at the end, in the order of the data.

    Args:
        lengths: of each row, in any unit, at least 0.
        has_image: whether the row has a picture.
        batch_size: rows of one micro-batch on one rank.
        batches: micro-batches of one optimizer step on all ranks: ranks times gradient accumulation.
    """
    kinds = [[row for row in range(len(lengths)) if bool(has_image[row]) == kind] for kind in (True, False)]
    steps: list[list[int]] = []
    rest: list[int] = []
    for rows in filter(None, kinds):
        own = [lengths[row] for row in rows]
        grouped = length_grouped(own, batch_size=batch_size, batches=batches, generator=generator)
        *full, last = _cut([rows[index] for index in grouped], batch_size * batches)
        steps += full
        rest += last
    if not all(kinds):
        return [row for step in steps for row in step] + rest
    shuffled = [steps[index] for index in torch.randperm(len(steps), generator=generator).tolist()]
    return [row for step in shuffled for row in step] + sorted(rest)


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class ModalityGroupedSampler(Sampler[int]):
    """`modality_grouped`, drawn anew each epoch from (seed, epoch): the same on every rank and after a resume."""

    def __init__(
        self, lengths: Sequence[int], has_image: Sequence[bool], *, batch_size: int, batches: int, seed: int
    ) -> None:
        if len(lengths) != len(has_image):
            raise ConfigError(f"{len(lengths)} lengths for {len(has_image)} rows; prepare the data again")
        self.lengths = lengths
        self.has_image = has_image
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration shows; accelerate's loader calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        digest = hashlib.sha256(f"{self.seed}/{self.epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
        return iter(
            modality_grouped(
                self.lengths, self.has_image, batch_size=self.batch_size, batches=self.batches, generator=generator
            )
        )


def grouped_sampler(
    records: Dataset, *, length_column: str, batch_size: int, batches: int, seed: int
) -> ModalityGroupedSampler:
    """The sampler of a data set. Lengths stand in `length_column` if there is such a column, else words are counted.

    Raises:
        ConfigError: rows that are no records.
    """
    if "dialogues" not in records.column_names:
        raise ConfigError(
            "--train_sampling_strategy group_by_length: rows must be records, see docs/data.md; use random"
        )
    lengths, has_image = words_and_pictures(records)
    if length_column in records.column_names:
        lengths = list(records[length_column])
    return ModalityGroupedSampler(lengths, has_image, batch_size=batch_size, batches=batches, seed=seed)


def words_and_pictures(records: Dataset) -> tuple[list[int], list[bool]]:
    """Of each record: the number of words in its turns and answers, and whether it has a picture. Decodes nothing."""
    lengths: list[int] = []
    has_image: list[bool] = []
    for table in records.select_columns(["images", "dialogues"]).with_format("arrow").iter(_ROWS_AT_A_TIME):
        has_image += [count > 0 for count in pc.list_value_length(table["images"]).to_pylist()]
        lengths += [sum(map(_words, dialogues)) for dialogues in table["dialogues"].to_pylist()]
    return lengths, has_image


def _words(dialogue: dict[str, Any]) -> int:
    texts = [turn["content"] for turn in dialogue["turns"]] + [answer["answer"] for answer in dialogue["answers"]]
    return sum(len(text.split()) for text in texts)
