"""Which questions become the model's own: SQ-LLaVA's rule, and that a draw depends on seed, epoch and dialogue only."""

import json
from pathlib import Path
from typing import Any

import pytest
from examples import chain, question
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.self_questioning import check_self_questioning, own_question, with_own_questions

GOLDEN = Path(__file__).parent / "golden" / "parity" / "labels_v1_sq.jsonl"
TEXTS = st.lists(st.sampled_from(["What?", "Why?", "so", "Where is it?"]), min_size=1, max_size=9)
KEYS = st.fixed_dictionaries({"seed": st.integers(0, 9), "epoch": st.integers(0, 9)})
RATIOS = st.floats(0, 1)


def switched(dialogue: dict[str, Any], ratio: float, **drawn: int) -> list[int]:
    """The numbers of the turns that became the model's own; nothing else may change."""
    turns = with_own_questions(dialogue["turns"], ratio, **drawn, dialogue_id=dialogue["id"])
    for before, after in zip(dialogue["turns"], turns, strict=True):
        assert after in (before, {"role": "vuser", "content": before["content"]})
    return [number for number, turn in enumerate(turns) if turn["role"] == "vuser"]


@given(TEXTS, KEYS)
def test_a_ratio_of_0_changes_nothing_and_of_1_every_question_behind_the_first(texts: list[str], drawn: Any) -> None:
    dialogue = chain("d", *texts)
    assert switched(dialogue, 0.0, **drawn) == []
    assert switched(dialogue, 1.0, **drawn) == list(range(2, len(texts), 2))
    assert own_question(dialogue, 0.0, **drawn) is None
    asked = own_question(dialogue, 1.0, **drawn)
    assert (asked is not None) == (len(texts) == 1)
    if asked:
        assert asked == [{"role": "user", "content": ""}, {"role": "vuser", "content": texts[0]}]


@given(TEXTS, RATIOS, RATIOS, KEYS)
def test_draws_are_a_pure_function_and_grow_with_the_ratio(
    texts: list[str], ratio: float, other: float, drawn: Any
) -> None:
    dialogue = chain("d", *texts)
    first = switched(dialogue, ratio, **drawn)
    assert switched(chain("d", *texts, "more", "still more"), ratio, **drawn)[: len(first)] == first
    assert set(switched(dialogue, min(ratio, other), **drawn)) <= set(switched(dialogue, max(ratio, other), **drawn))


@pytest.mark.parametrize("name", ["seed", "epoch", "id"])
def test_each_seed_epoch_and_dialogue_draws_for_itself(name: str) -> None:
    draws = []
    for number in range(400):
        drawn = {"seed": 0, "epoch": 0} | ({name: number} if name != "id" else {})
        texts = chain(f"d{number if name == 'id' else ''}", *"abcd")
        draws.append((bool(switched(texts, 0.5, **drawn)), own_question(question(texts["id"]), 0.5, **drawn) is None))
    for share in (sum(column) / 400 for column in zip(*draws, strict=True)):
        assert 0.4 < share < 0.6


def test_what_may_become_the_models_own_is_what_upstream_switches() -> None:
    rows = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    for row in (row for row in rows if row["image"] and row["sq_r"] and not row["category"].startswith("explicit")):
        dialogue = chain("d", *(turn["value"] for turn in row["conversations"]))
        eligible = switched(dialogue, 1.0, seed=0, epoch=0)
        assert len(eligible) == len(row["draws"])
        drawn = [turn for turn, draw in zip(eligible, row["draws"], strict=True) if draw < row["sq_r"]]
        assert drawn == row["switched_turns"]


@pytest.mark.parametrize(
    ("ratio", "weight", "template", "message"),
    [
        (1.5, 1.0, "v1_sq", r"self_question_ratio is 1.5; it must be from 0 to 1"),
        (float("nan"), 1.0, "v1_sq", "self_question_ratio is nan"),
        (0.5, 1.0, "v1", "self_question_ratio 0.5 with the template v1: use the template v1_sq"),
        (0.5, 0.0, "v1_sq", r"self_question_weight is 0.0; it must be above 0 \(a ratio of 0 leaves questions out\)"),
    ],
)
def test_what_cannot_work_is_refused(ratio: float, weight: float, template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_self_questioning(ratio, weight, template)
    check_self_questioning(0.0, 1.0, "v1")
