"""Scores of given answers equal those of one plain pass over each whole sequence."""

from math import exp
from typing import Any

import pytest
import torch
from examples import MIXED, Loaded, chain, colour, question, record

from hf_llava_vqa import prompts
from hf_llava_vqa.collate import pixel_values
from hf_llava_vqa.errors import ConfigError, PromptError, RecordError
from hf_llava_vqa.generation import questions, score_candidates

ANSWERS = ["yes", "no", "a red can", "unanswerable", "Two bottles."]
MANY = record("many", [question(f"many.{k}", f"Is there a dog in box {k}?") for k in range(20)], colours=[colour(3)])
TALK = record("talk", [chain("talk.0", "Hello?", "Hi.", "Why?"), chain("talk.1", "Hello?", "Hi.", "Who?")])


@torch.no_grad()
def plain_log_prob(loaded: Loaded, row: dict[str, Any], dialogue: dict[str, Any], answer: str) -> float:
    model, processor = loaded
    turns = prompts.question_turns(dialogue["turns"], images=len(row["images"]))
    ids, _ = prompts.encode([*turns, {"role": "assistant", "content": answer}], processor.tokenizer)
    prompt, _ = prompts.encode(turns, processor.tokenizer)
    assert ids[: len(prompt)] == prompt
    widened = [token for token in ids for _ in range(4 if token == processor.image_token_id else 1)]
    pixels = {"pixel_values": pixel_values(row, processor)} if row["images"] else {}
    logits = model(input_ids=torch.tensor([widened]), **pixels).logits[0]
    said = ids[len(prompt) :]
    log_probs = logits[-1 - len(said) : -1].log_softmax(-1)
    return log_probs[range(len(said)), said].double().sum().item()


@pytest.mark.parametrize("most", [1, 7, 64])
def test_log_probs_equal_a_plain_pass_over_each_sequence(loaded: Loaded, most: int) -> None:
    rows = [*MIXED, MANY, TALK]
    results = list(score_candidates(*loaded, rows, ANSWERS, batch_size=3, max_branches_per_row=most))
    asked = list(questions(rows))
    assert [result["id"] for result in results] == [dialogue["id"] for _, dialogue in asked]
    for result, (row, dialogue) in zip(results, asked, strict=True):
        expected = [plain_log_prob(loaded, row, dialogue, answer) for answer in ANSWERS]
        # Large random weights: in float32, log-probabilities of about -50 carry about 1e-5.
        assert result["log_probs"] == pytest.approx(expected, rel=1e-6, abs=1e-5)
        total = sum(map(exp, expected))
        assert result["probabilities"] == pytest.approx([exp(value) / total for value in expected], rel=1e-4)
        assert result["answer"] == ANSWERS[expected.index(max(expected))]
        assert result["candidates"] == ANSWERS


def test_each_question_has_its_own_choices(loaded: Loaded) -> None:
    choices = [["yes", "no"], ["red", "green", "blue"]]
    dialogues = [{**question(str(number)), "choices": own} for number, own in enumerate(choices)]
    row = record("r", dialogues, colours=[colour(7)])
    results = list(score_candidates(*loaded, [row]))
    assert [result["candidates"] for result in results] == choices
    for result, dialogue in zip(results, dialogues, strict=True):
        expected = [plain_log_prob(loaded, row, dialogue, answer) for answer in result["candidates"]]
        assert result["log_probs"] == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_a_candidate_given_twice_has_half_the_probability(loaded: Loaded) -> None:
    (result,) = score_candidates(*loaded, MIXED[3:], ["yes", "yes"])
    assert result["probabilities"] == pytest.approx([0.5, 0.5], rel=1e-5)


@pytest.mark.parametrize(
    ("row", "candidates", "error", "message"),
    [
        (record("r", [question("q")]), None, RecordError, "r, dialogue q: has no choices; give candidates"),
        (record("r", [question("q")]), [], ConfigError, "there are no candidates"),
        (record("r", [question("q")]), ["yes", " "], PromptError, "r, dialogue q: turn 1"),
    ],
)
def test_what_cannot_be_scored_is_named(
    loaded: Loaded, row: dict[str, Any], candidates: list[str] | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(score_candidates(*loaded, [row], candidates))
