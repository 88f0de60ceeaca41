"""Answerability is what a plain pass leaves after the two ways of saying unanswerable."""

from math import exp

import pytest
from examples import MIXED, Loaded

from hf_llava_vqa.generation import questions, score_answerability, score_candidates


def test_what_is_left_after_both_spellings(loaded: Loaded) -> None:
    said = list(score_answerability(*loaded, MIXED, batch_size=2))
    candidates = list(score_candidates(*loaded, MIXED, ["unanswerable", "Unanswerable"]))
    assert [set(row) for row in said] == [{"id", "image_id", "question", "answerable"}] * len(said)
    assert [row["id"] for row in said] == [dialogue["id"] for _, dialogue in questions(MIXED)]
    for row, scored in zip(said, candidates, strict=True):
        assert row["answerable"] == pytest.approx(1 - sum(map(exp, scored["log_probs"])), abs=1e-9)
