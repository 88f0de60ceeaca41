"""Records to batches: dialogues become paths, paths of one image become a tree, trees become rows and pixels.

The collator is the only place where text and pictures of a training example meet. It accepts our records and TRL's
own rows (`image`/`images` with `messages` or `prompt`/`completion`), which become trees with one branch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import LlavaProcessor

from hf_llava_vqa import forest, prompts
from hf_llava_vqa.answers import check_confidence_weights, confidence_counts, weighted_answers
from hf_llava_vqa.augmentation import AUGMENTATIONS, augment
from hf_llava_vqa.bad_images import BadImage, BadImagePolicy, open_pictures
from hf_llava_vqa.data import get_benchmark
from hf_llava_vqa.errors import ConfigError, PromptError, RecordError, VqaError
from hf_llava_vqa.self_questioning import check_self_questioning, own_question, with_own_questions

Batch = dict[str, Any]
MASKS = ("dense", "compact", "block", "varlen")


def image_tokens(processor: LlavaProcessor) -> int:
    """Language-model tokens one image becomes: 576 for CLIP-L/14 at 336 pixels without its CLS token."""
    crop = processor.image_processor.crop_size
    patches = (crop["height"] // processor.patch_size) * (crop["width"] // processor.patch_size)
    dropped = 1 if processor.vision_feature_select_strategy == "default" else 0
    return patches + processor.num_additional_image_tokens - dropped


def pixel_values(record: dict[str, Any], processor: LlavaProcessor) -> torch.Tensor:
    """Open a record's images and process them: `[I, 3, H, W]` float32, in order; `[0, 3, H, W]` without any.

    Raises:
        ImageError: naming the record whose image cannot be opened.
    """
    opened = open_pictures(record)
    if isinstance(opened, BadImage):
        raise opened.error()
    return _process(opened, processor)


def _process(pictures: list[Image.Image], processor: LlavaProcessor) -> torch.Tensor:
    if not pictures:
        return _blank(0, processor)
    return processor.image_processor(pictures, return_tensors="pt")["pixel_values"]


def _blank(count: int, processor: LlavaProcessor) -> torch.Tensor:
    crop = processor.image_processor.crop_size
    return torch.zeros(count, 3, crop["height"], crop["width"])


def as_record(row: dict[str, Any]) -> dict[str, Any]:
    """Our record as it is; a TRL row (`messages` or `prompt` + `completion`, string or chat form) as a record.

    Raises:
        RecordError: a row of neither form.
    """
    if "dialogues" in row:
        return row
    name = str(row.get("id", "row"))
    images = row["images"] if row.get("images") is not None else [row["image"]] if row.get("image") is not None else []
    messages = row["messages"] if row.get("messages") is not None else _completed_prompt(row)
    if not isinstance(images, Sequence) or not isinstance(messages, Sequence):
        raise RecordError(f"{name}: images and messages must be lists")
    dialogue = {"id": name, "turns": [_turn(message, name) for message in messages], "answers": []}
    record = {"image_id": name, "images": images, "source": "", "dialogues": [dialogue]}
    return record if row.get("epoch") is None else {**record, "epoch": row["epoch"]}


def _completed_prompt(row: dict[str, Any]) -> Any:
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    if isinstance(prompt, list) and isinstance(completion, list):
        return [*prompt, *completion]
    raise RecordError(
        f"{row.get('id', 'row')}: expected messages, or prompt and completion, both text or both messages; "
        f"found {', '.join(map(str, row))}"
    )


def _turn(message: Any, name: str) -> prompts.Turn:
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, list) and all(isinstance(block, Mapping) for block in content):
        content = "".join(str(block.get("text")) for block in content if block.get("type") == "text")
    if not isinstance(content, str):
        raise RecordError(f"{name}: a message must be {{role, content}}, and its content text or text and image blocks")
    return {"role": str(message.get("role")), "content": content}


def prompt_turns(
    record: dict[str, Any], dialogue: dict[str, Any], instruction: str | None = None
) -> list[prompts.Turn]:
    """A dialogue's turns with its images and instruction; the benchmark named by `source` gives the instruction
    unless `instruction` does."""
    if instruction is None:
        instruction = get_benchmark(record["source"]).instruction if record["source"] else ""
    return prompts.question_turns(dialogue["turns"], images=len(record["images"]), instruction=instruction)


class VqaCollator:
    """Turn a list of records into one batch.

    The batch holds `input_ids`, `position_ids`, `labels` [R, L] int64, `weights` [R, L] float32, `pixel_values`
    [I, 3, H, W] in the row-major order of the image slots, and the mask: `attention_mask` [R, 1, L, L] bool
    (`mask="dense"`, understood by every stock trainer), or what `VqaTrainer` makes it of, with `dialogue_ids` and rows
    without the leaves that nothing reads (see `forest.trim_leaves`):

    - `"compact"`: `subtree_end` [R, L] and `chain` (see `forest.chain_length`);
    - `"block"`: `subtree_end`, all trees packed in one row;
    - `"varlen"`: no mask but `cu_seq_lens_q`, `cu_seq_lens_k` (see `forest.path_starts`), `max_length_q` and
      `max_length_k`, all trees packed in one row; they must be paths.

    With a template in which the model asks itself there is also `own_questions` [R, L] bool, the supervised tokens that
    are no answer's.

    A batch without pictures gets an unlabelled one, so that each rank of a distributed run uses the tower and the
    projector. While the attribute `picture_in_every_batch` is False, such a batch has no `pixel_values` instead.

    Args:
        processor: LLaVA processor; its tokenizer is fast and knows `<image>`.
        template: prompt template.
        answer_target: which human answers are trained on, see `answers.weighted_answers`.
        answer_confidence_weights: how much an answer counts that was given with confidence `yes`, `maybe` and `no`.
        max_length: longest allowed path in tokens, images counted in full; None for no limit. Nothing is cut.
        max_questions_per_row: a record with more dialogues becomes several trees.
        mask: `dense`, `compact`, `block` or `varlen`.
        pad_to_multiple_of: rows are padded to a multiple of so many tokens; by default whole blocks with `block`.
        instruction: replaces the benchmark's instruction to the model.
        self_question_ratio: share of the questions about pictures that the model learns to ask itself, see
            `self_questioning`; above 0 only with a template that has the role.
        self_question_weight: weight of a token of such a question, beside 1 for one of an answer.
        augmentation: `none`, or `randaugment` for pictures seen anew each epoch, see `augmentation`.
        on_bad_image: `error`, `skip` or `replace` a record whose picture cannot be opened, see `BadImagePolicy`.
        bad_images_file: names the records that were skipped or replaced.
        seed: of whatever is drawn. Answers (`answer_target="sample"`), self-questions and augmentation also depend on
            the row's `epoch`, or on the `epoch` attribute for rows without one.

    Raises:
        VqaError: naming the dialogue, for a path that cannot be built, is too long or has nothing to train on.
    """

    def __init__(
        self,
        processor: LlavaProcessor,
        *,
        template: str = "v1",
        answer_target: str = "majority",
        answer_confidence_weights: Sequence[float] = (1.0, 1.0, 1.0),
        max_length: int | None = None,
        max_questions_per_row: int = 16,
        mask: str = "dense",
        pad_to_multiple_of: int | None = None,
        instruction: str | None = None,
        self_question_ratio: float = 0.0,
        self_question_weight: float = 1.0,
        augmentation: str = "none",
        on_bad_image: str = "error",
        bad_images_file: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        if mask not in MASKS:
            raise ConfigError(f"unknown mask {mask!r}; use one of: {', '.join(MASKS)}")
        if max_questions_per_row < 1:
            raise ConfigError(f"max_questions_per_row is {max_questions_per_row}; it must be at least 1")
        if augmentation not in AUGMENTATIONS:
            raise ConfigError(f"unknown augmentation {augmentation!r}; use one of: {', '.join(AUGMENTATIONS)}")
        weighted_answers([""], answer_target)  # an unknown target is an error now, not at the first batch
        check_self_questioning(self_question_ratio, self_question_weight, template)
        check_confidence_weights(answer_confidence_weights)
        self.processor = processor
        self.template = prompts.get_template(template).name
        self.answer_target = answer_target
        self.answer_confidence_weights = answer_confidence_weights
        self.max_length = max_length
        self.max_questions_per_row = max_questions_per_row
        self.mask = mask
        self.pad_to_multiple_of = pad_to_multiple_of
        self.instruction = instruction
        self.self_question_ratio = self_question_ratio
        self.self_question_weight = self_question_weight
        self.augmentation = augmentation
        self.bad_images = BadImagePolicy(on_bad_image, file=bad_images_file, seed=seed)
        self.seed = seed
        self.epoch = 0
        self.picture_in_every_batch = True
        self.image_token_id = processor.image_token_id
        self.image_tokens = image_tokens(processor)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        trees: list[forest.Tree] = []
        pixels: list[torch.Tensor] = []  # the pictures of each tree, in the order of its slots
        dialogue_ids: list[list[str]] = []
        records = list(map(as_record, rows))
        for record, pictures in self.bad_images.settle(records, map(self._pictures, records)):
            for dialogues in self._groups(record):
                tree = self.tree(record, dialogues)
                pixels.append(pictures[forest.image_order(tree, self.image_token_id)])
                trees.append(forest.expand_images(tree, self.image_token_id, self.image_tokens))
                dialogue_ids.append([dialogue["id"] for dialogue in dialogues])
        if not trees or (self.picture_in_every_batch and not any(map(len, pixels))):
            trees.append(self._padding_tree())
            pixels.append(_blank(1, self.processor))
            dialogue_ids.append([])
        return self._batch(trees, pixels, dialogue_ids)

    def for_evaluation(self) -> "VqaCollator":
        """The same collator for data that are measured: answers only, pictures as they are, and every one must open."""
        collator = copy(self)
        collator.self_question_ratio = 0.0
        collator.augmentation = "none"
        collator.bad_images = BadImagePolicy("error")
        return collator

    def _pictures(self, record: dict[str, Any]) -> torch.Tensor | BadImage:
        opened = open_pictures(record)
        if isinstance(opened, BadImage):
            return opened
        if self.augmentation == "randaugment":
            side = self.processor.image_processor.crop_size["height"]
            chosen = {"seed": self.seed, "epoch": self._epoch(record), "side": side}
            opened = [augment(image, key=f"{record['image_id']}/{n}", **chosen) for n, image in enumerate(opened)]
        return _process(opened, self.processor)

    def tree(self, record: dict[str, Any], dialogues: Iterable[dict[str, Any]]) -> forest.Tree:
        """The tree of some dialogues of one record, image placeholders not yet expanded."""
        paths: list[forest.Path] = []
        weights: list[float] = []
        for dialogue in dialogues:
            try:
                for path, weight in self._paths(record, dialogue):
                    paths.append(path)
                    weights.append(weight)
            except VqaError as error:
                raise type(error)(f"{record['image_id']}, dialogue {dialogue['id']}: {error}") from error
        tree = forest.merge(paths, weights)
        own = np.where(tree.supervised == prompts.QUESTION, self.self_question_weight, 1.0)
        return replace(tree, weights=own * tree.weights)

    def trees(self, record: dict[str, Any]) -> list[forest.Tree]:
        """The trees of a record, one for each row it takes."""
        return [self.tree(record, dialogues) for dialogues in self._groups(record)]

    def count_tokens(self, record: dict[str, Any]) -> int:
        """Tokens that the rows of a record hold, images counted in full."""
        rows = self._rows(self.trees(record))
        slots = sum(int((row.input_ids == self.image_token_id).sum()) for row in rows)
        return sum(map(len, rows)) + slots * (self.image_tokens - 1)

    def _groups(self, record: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
        dialogues = record["dialogues"]
        for start in range(0, len(dialogues), self.max_questions_per_row):
            yield dialogues[start : start + self.max_questions_per_row]

    def _paths(self, record: dict[str, Any], dialogue: dict[str, Any]) -> Iterator[tuple[forest.Path, float]]:
        """A path for each answer, and one for the question if the model asks it from the picture."""
        drawn = {"seed": self.seed, "epoch": self._epoch(record)}
        ratio = self.self_question_ratio if record["images"] else 0.0
        own_turns = with_own_questions(dialogue["turns"], ratio, **drawn, dialogue_id=dialogue["id"])
        turns = prompt_turns(record, {**dialogue, "turns": own_turns}, self.instruction)
        if turns[-1]["role"] == "assistant":
            yield self._encode(turns), 1.0
            return
        # People leave answers empty now and then: there is nothing in them to train on, and the others are still good.
        answers = [answer for answer in dialogue["answers"] if answer["answer"].strip()]
        if not answers:
            raise PromptError("has no answers to train on; give it answers or leave it out")
        targets = weighted_answers(
            [answer["answer"] for answer in answers],
            self.answer_target,
            counts=confidence_counts(answers, self.answer_confidence_weights),
            **drawn,
            dialogue_id=dialogue["id"],
        )
        for text, weight in targets:
            yield self._encode([*turns, {"role": "assistant", "content": text}]), weight
        if question := own_question(dialogue, ratio, **drawn):
            yield self._encode(prompts.question_turns(question, images=len(record["images"]))), 1.0

    def _epoch(self, record: dict[str, Any]) -> int:
        """The pass over the data: a streamed row says its own, as a batch can hold the end of one and the next."""
        return record.get("epoch", self.epoch)

    def _encode(self, turns: list[prompts.Turn]) -> forest.Path:
        ids, supervised = prompts.encode(turns, self.processor.tokenizer, self.template)
        length = len(ids) + ids.count(self.image_token_id) * (self.image_tokens - 1)
        if self.max_length is not None and length > self.max_length:
            raise PromptError(
                f"is {length} tokens long ({self.image_tokens} per image), over max_length={self.max_length}; "
                "raise max_length (nothing is ever cut)"
            )
        return ids, supervised

    def _padding_tree(self) -> forest.Tree:
        """An unlabelled picture: keeps tower and projector in every rank's graph when a batch has only text."""
        ids = [self.processor.tokenizer.bos_token_id, self.image_token_id]
        return forest.expand_images(forest.merge([(ids, [0, 0])]), self.image_token_id, self.image_tokens)

    def _batch(self, trees: list[forest.Tree], pixels: list[torch.Tensor], dialogue_ids: list[list[str]]) -> Batch:
        rows = self._rows(trees)
        length = self._padded(max(map(len, rows)))
        arrays = forest.pad_rows(rows, self.processor.tokenizer.pad_token_id, length)
        batch: Batch = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
        own_questions = batch.pop("supervised") == prompts.QUESTION
        if any(map(len, pixels)):
            batch["pixel_values"] = torch.cat([pixels[tree] for row in rows for tree in row.trees])
        if self.mask == "dense":
            batch["attention_mask"] = forest.attention_mask(batch.pop("subtree_end"))
            return batch
        batch["dialogue_ids"] = [[name for tree in row.trees for name in dialogue_ids[tree]] for row in rows]
        if prompts.asks_itself(self.template):
            batch["own_questions"] = own_questions
        if self.mask == "compact":
            batch["chain"] = forest.chain_length(rows)
        elif self.mask == "varlen":
            del batch["subtree_end"]
            starts = forest.path_starts(rows[0], length)
            batch |= dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), torch.from_numpy(starts))
            batch |= dict.fromkeys(("max_length_q", "max_length_k"), int(np.diff(starts).max()))
        return batch

    def _rows(self, trees: list[forest.Tree]) -> list[forest.Row]:
        packed = self.mask in ("block", "varlen")
        rows = forest.lay_out(trees, row_length=sum(map(len, trees)) if packed else None)
        return rows if self.mask == "dense" else list(map(forest.trim_leaves, rows))

    def _padded(self, length: int) -> int:
        """The next length of a row that its padding allows."""
        step = self.pad_to_multiple_of or (forest.BLOCK if self.mask == "block" else 1)
        return -(-length // step) * step
