"""What the base is told: full sentences only; questions whose words do not give the answer away."""

import re
from collections import Counter

import numpy as np
import pytest

from hf_llava_vqa.data.benchmarks.vizwiz import INSTRUCTION
from hf_llava_vqa.demo.dialogues import QUESTIONS, ask, base_dialogues, tokenizer_corpus
from hf_llava_vqa.demo.pictures import COLORS, KINDS
from hf_llava_vqa.models.tiny import tiny_tokenizer


@pytest.mark.parametrize("blurred", [False, True])
def test_answers_are_full_sentences_in_another_style_than_vizwiz(train_scenes, blurred: bool):
    rng = np.random.default_rng(0)
    for scene in train_scenes[:300]:
        for question, answer in base_dialogues(scene, blurred, 7, rng):
            assert re.fullmatch(r"[A-Z].*\.", answer)
            assert len(answer.split()) >= 3
            assert "unanswerable" not in answer.lower()
            assert INSTRUCTION not in question
            named = set(re.findall(r"\w+", answer.lower())) & {*KINDS, *COLORS}
            assert not named if blurred else named <= {scene.kind, scene.color, *_asked(question)}


def _asked(question: str) -> set[str]:
    return set(re.findall(r"\w+", question.lower()))


@pytest.mark.parametrize("wording", QUESTIONS["yes/no"])
def test_yes_and_no_are_balanced_whatever_is_asked_for(train_scenes, wording: str):
    rng = np.random.default_rng(0)
    answers: dict[str, Counter[str]] = {}
    for scene in train_scenes:
        _, answer, thing = ask(scene, "yes/no", (wording,), rng)
        answers.setdefault(thing, Counter())[answer] += 1
    assert len(answers) == len(COLORS) + len(KINDS)
    for counts in answers.values():
        assert 0.35 < counts["yes"] / counts.total() < 0.65


def test_questions_are_answered_with_the_truth(train_scenes):
    rng = np.random.default_rng(0)
    for scene in train_scenes[:100]:
        assert ask(scene, "color", QUESTIONS["color"], rng)[1] == scene.color
        assert ask(scene, "kind", QUESTIONS["kind"], rng)[1] == scene.kind
        _, answer, thing = ask(scene, "yes/no", QUESTIONS["yes/no"], rng)
        assert (answer == "yes") == (thing in (scene.kind, f"{scene.color} shape"))


def test_short_answers_are_single_pieces_though_never_trained_on():
    tokenizer = tiny_tokenizer(tokenizer_corpus(), 900)
    for answer in (*KINDS, *COLORS, "yes", "no", "unanswerable"):
        assert tokenizer.tokenize(answer) == ["▁" + answer]
