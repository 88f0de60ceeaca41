"""Asking oneself about a picture before answering: a description, sampled questions, their answers.

SQ-LLaVA's flow (sqllava/eval/model_vqa_loader.py, `--sq`): the model describes the picture; from behind the
description it samples questions, each by itself, and answers them; all of this then stands in front of the real
question. Nothing of it depends on that question, so it is done once a picture, for all that is asked about it. Each
pass reads one tree a picture: the description, all questions, all their answers, all real answers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa import prompts
from hf_llava_vqa.errors import PromptError
from hf_llava_vqa.generation.answering import answer_questions
from hf_llava_vqa.generation.choosing import Sampling
from hf_llava_vqa.generation.decoding import decode
from hf_llava_vqa.generation.questions import (
    BATCH_TOKENS,
    WINDOW,
    Batch,
    Planted,
    batches,
    check_limits,
    in_order,
    plant,
)
from hf_llava_vqa.records import make_dialogue

DESCRIBE = "Can you describe the image in detail?"
TEMPLATE = prompts.V1_SQ.name
Answering = Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Asking:
    """How the model asks itself.

    Args:
        questions: how many are sampled for a picture.
        describe: what is asked first; empty to ask from the bare picture, as single questions are trained.
        temperature, top_k, top_p: how questions are drawn, see `Sampling`; the defaults are SQ-LLaVA's.
        seed: draws depend on it, on the record's `image_id` and on the question's number only.
        max_question_tokens: longest question.
        max_answer_tokens: longest description, and longest answer to a question.

    Raises:
        ConfigError: a value out of range.
    """

    questions: int = 3
    describe: str = DESCRIBE
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.65
    seed: int = 0
    max_question_tokens: int = 100
    max_answer_tokens: int = 128

    def __post_init__(self) -> None:
        check_limits(
            questions=self.questions,
            max_question_tokens=self.max_question_tokens,
            max_answer_tokens=self.max_answer_tokens,
        )
        self.sampling  # noqa: B018 (checks its values)

    @property
    def sampling(self) -> Sampling:
        """How questions are drawn."""
        return Sampling(self.temperature, self.top_p, self.seed, self.top_k)


@dataclass
class Asked:
    """What was said about a record's picture: `pairs` of a question and its answer, the description first.

    Pairs of which the model left a part empty are not among them, but counted in `empty`.
    """

    record: dict[str, Any]
    pairs: list[tuple[str, str]] = field(default_factory=list)
    empty: int = 0

    @property
    def turns(self) -> list[prompts.Turn]:
        """The pairs as turns of the user and the assistant."""
        return [
            {"role": role, "content": text}
            for pair in self.pairs
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]

    def add(self, question: str, answer: str) -> None:
        if question and answer:
            self.pairs.append((question, answer))
        else:
            self.empty += 1


def ask_questions(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    records: Iterable[dict[str, Any]],
    asking: Asking,
    *,
    template: str = TEMPLATE,
    batch_size: int = 16,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[Asked]:
    """Let the model describe and question the picture of every record, in order; a record without one stays silent.

    Args:
        template: a prompt template in which the model asks itself.
        batch_size, batch_tokens: as for `answer_questions`.

    Raises:
        PromptError: a template without self-questions.
        ImageError: naming the record whose picture cannot be opened.
        ConfigError: a value out of range, or an attention backend that does not honour the tree mask.
    """
    if not prompts.asks_itself(template):
        raise PromptError(f"the template {template} has no self-questions; use {TEMPLATE}")
    limits: dict[str, Any] = {"batch_size": batch_size, "batch_tokens": batch_tokens}
    check_limits(**limits)
    told: dict[str, Any] = {"template": template, "instruction": "", "max_new_tokens": asking.max_answer_tokens}
    answer = partial(answer_questions, model, processor, **told, **limits)
    remaining = iter(records)
    while window := [Asked(record) for record in islice(remaining, WINDOW * batch_size)]:
        seen = [asked for asked in window if asked.record["images"]]
        if asking.describe:
            _describe(seen, asking.describe, answer)
        trees = (_open_questions(processor, asked, asking.questions, template) for asked in seen)
        drawn = (_draw(model, processor, batch, asking) for batch in batches(trees, **limits))
        _answer(seen, list(in_order(drawn)), answer)
        yield from window


def answer_after_asking(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    records: Iterable[dict[str, Any]],
    asking: Asking,
    *,
    template: str = TEMPLATE,
    batch_size: int = 16,
    batch_tokens: int = BATCH_TOKENS,
    **answering: Any,
) -> Iterator[dict[str, Any]]:
    """Answer every question of `records`, in order, behind what the model asked itself about the picture.

    Args:
        template, batch_size, batch_tokens: as for `ask_questions`.
        **answering: for `answer_questions`.

    Yields:
        What `answer_questions` does, with `self_questions`: pairs of a question and its answer, the description first.

    Raises:
        VqaError: as `ask_questions` and `answer_questions`.
    """
    limits: dict[str, Any] = {"template": template, "batch_size": batch_size, "batch_tokens": batch_tokens}
    said: dict[str, list[tuple[str, str]]] = {}

    def behind_what_was_asked() -> Iterator[dict[str, Any]]:
        for asked in ask_questions(model, processor, records, asking, **limits):
            dialogues = asked.record["dialogues"]
            said.update((dialogue["id"], asked.pairs) for dialogue in dialogues)
            yield {**asked.record, "dialogues": [{**d, "turns": [*asked.turns, *d["turns"]]} for d in dialogues]}

    for prediction in answer_questions(model, processor, behind_what_was_asked(), **limits, **answering):
        yield {**prediction, "self_questions": said.pop(prediction["id"])}


def _describe(seen: Sequence[Asked], question: str, answer: Answering) -> None:
    records = [{**asked.record, "dialogues": [make_dialogue(id="description", question=question)]} for asked in seen]
    for asked, prediction in zip(seen, answer(records), strict=True):
        asked.add(question, prediction["answer"])


def _open_questions(processor: LlavaProcessor, asked: Asked, count: int, template: str) -> Planted:
    """The same prompt `count` times, each for a question of the model's own."""
    turns = prompts.question_turns(_before_asking(asked), images=len(asked.record["images"]))
    path = prompts.encode(turns, processor.tokenizer, template, next_role="vuser")
    names = [{"id": f"{asked.record['image_id']}/self-question/{number}"} for number in range(count)]
    return plant(processor, asked.record, names, [path] * count)


def _draw(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, batch: Batch, asking: Asking
) -> dict[int, list[str]]:
    """The sampled questions of each tree, by its number."""
    trees = [tree for _, tree in batch]
    drawn = decode(model, processor, trees, sampling=asking.sampling, max_new_tokens=asking.max_question_tokens)
    texts = (processor.tokenizer.decode(answer.token_ids, skip_special_tokens=True).strip() for answer in drawn)
    return {number: list(islice(texts, len(tree.dialogues))) for number, tree in batch}


def _answer(seen: Sequence[Asked], drawn: Sequence[list[str]], answer: Answering) -> None:
    """Answer each question behind the description alone: the questions of a picture do not see each other."""
    records = []
    for asked, questions in zip(seen, drawn, strict=True):
        before = _before_asking(asked)
        own = [[*before, {"role": "vuser", "content": question}] for question in questions if question]
        dialogues = [make_dialogue(id=f"self-question/{number}", turns=turns) for number, turns in enumerate(own)]
        records.append({**asked.record, "dialogues": dialogues})
    predictions = answer(records)
    for asked, questions in zip(seen, drawn, strict=True):
        for question in questions:
            asked.add(question, next(predictions)["answer"] if question else "")


def _before_asking(asked: Asked) -> list[prompts.Turn]:
    """The description, or else the picture without a word."""
    return asked.turns or [{"role": "user", "content": ""}]
