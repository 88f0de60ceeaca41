"""Scores of predictions, the baselines that need no model, and side-by-side comparison."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_llava_vqa.data import get_benchmark
from hf_llava_vqa.data.scoring import ceiling
from hf_llava_vqa.data.submissions import answers_by_id
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.generation import questions
from hf_llava_vqa.records import make_dialogue, make_record
from hf_llava_vqa.reports.comparison import read_evaluations, score_table
from hf_llava_vqa.reports.evaluation import (
    benchmark_scores,
    question_only_predictions,
    read_predictions,
    role_of,
    template_of,
    write_evaluation,
)

VIZWIZ = get_benchmark("vizwiz")


def record(name: str, *asked: tuple[str, list[str], str]) -> dict[str, Any]:
    dialogues = [
        make_dialogue(id=f"{name}#{k}", question=question, answers=answers, answer_type=answer_type)
        for k, (question, answers, answer_type) in enumerate(asked)
    ]
    return make_record(image_id=name, dialogues=dialogues, source="vizwiz", split="val")


RECORDS = [
    record("a", ("what?", ["cat"] * 10, "other"), ("is it?", ["yes"] * 7 + ["no"] * 3, "yes/no")),
    record("b", ("what?", ["dog"] * 2 + [f"thing {k}" for k in range(8)], "my own label")),
]
ASKED = list(questions(RECORDS))


def predictions(*answers: str) -> list[dict[str, Any]]:
    return [
        {"id": dialogue["id"], "image_id": row["image_id"], "question": "", "answer": answer, "confidence": 1.0}
        for (row, dialogue), answer in zip(ASKED, answers, strict=True)
    ]


def test_scores_by_the_users_own_labels() -> None:
    scores = benchmark_scores(VIZWIZ, ASKED, predictions("cat", "no", "dog"))
    assert scores["by"] == pytest.approx({"my own label": 0.6, "other": 1.0, "yes/no": 0.9})
    assert scores["score"] == pytest.approx(2.5 / 3)
    assert scores["n"] == 3
    assert scores["interval"][0] <= scores["score"] <= scores["interval"][1]
    assert scores["ceiling"] == pytest.approx((1 + 1 + 0.6) / 3)


def test_predictions_are_matched_by_id_not_by_place() -> None:
    shuffled = predictions("cat", "no", "dog")[::-1]
    assert benchmark_scores(VIZWIZ, ASKED, shuffled)["score"] == pytest.approx(2.5 / 3)


def test_each_question_is_answered_once() -> None:
    with pytest.raises(RecordError, match="two predictions for a#0: a question is answered once"):
        answers_by_id(predictions("cat", "no", "dog") * 2)
    with pytest.raises(RecordError, match=r"vizwiz: no prediction for question a#1 \(2 of 3 are missing\)"):
        benchmark_scores(VIZWIZ, ASKED, predictions("cat", "no", "dog")[:1])


def test_what_the_metric_itself_returns_is_kept() -> None:
    metric = benchmark_scores(VIZWIZ, ASKED, predictions("cat", "no", "dog"))["metric"]
    assert (metric["name"], metric["variant"], metric["accuracy_percent"]) == ("vizwiz_accuracy", "vizwiz", 83.33)


def test_the_ceiling_is_the_best_single_answer() -> None:
    assert ceiling(["a"] * 3 + ["b"] * 7, "vizwiz") == 1.0
    assert ceiling([str(number) for number in range(10)], "vizwiz") == pytest.approx(0.3)


def test_question_only_answers_with_the_majority_of_the_same_words() -> None:
    train = [
        record("t", ("what?", ["cat"] * 6 + ["dog"] * 4, "other"), ("is it?", ["no"] * 10, "yes/no")),
        record("u", ("who?", ["no"] * 10, "other")),
    ]
    asked = [record("v", ("what?", [], ""), ("never seen?", [], ""))]
    answered = list(question_only_predictions(train, asked))
    assert [(p["id"], p["answer"], p["confidence"]) for p in answered] == [
        ("v#0", "cat", 0.6),
        ("v#1", "no", pytest.approx(20 / 30)),
    ]


def test_half_answered_splits_are_refused(tmp_path: Path) -> None:
    asked = list(questions([RECORDS[0], record("c", ("what?", [], ""))]))
    with pytest.raises(RecordError, match="2 of 3 questions have answers"):
        write_evaluation(tmp_path, VIZWIZ, asked, [], model="m", role="base", settings={})


def test_a_submission_that_fills_in_a_published_file(tmp_path: Path) -> None:
    dacon = get_benchmark("dacon")
    asked = list(questions([record("c", ("what?", [], ""), ("who?", [], ""))]))
    with pytest.raises(RecordError, match=r"no sample_submission\.csv or open\.zip holding it"):
        template_of(dacon, asked, tmp_path, None)
    (tmp_path / "sample_submission.csv").write_text("ID,answer\nc#1,\nc#0,\n")
    template = template_of(dacon, asked, tmp_path, None)
    given = [{"id": dialogue["id"], "answer": dialogue["id"][-1]} for _, dialogue in asked]
    scores = write_evaluation(tmp_path, dacon, asked, given, model="m", role="base", settings={}, template=template)
    assert scores["benchmarks"] == {}
    assert (tmp_path / "submission.csv").read_text() == "ID,answer\nc#1,1\nc#0,0\n"
    assert template_of(dacon, ASKED, None, None) is None, "a split with answers is scored"
    assert template_of(VIZWIZ, asked, None, None) is None


def test_roles(tmp_path: Path) -> None:
    assert role_of("question_only") == "question_only"
    assert role_of("llava-hf/llava-1.5-7b-hf") == "base"
    (tmp_path / "training_recipe.json").write_text("{}")
    assert role_of(str(tmp_path)) == "merged"
    (tmp_path / "adapter_config.json").write_text("{}")
    assert role_of(str(tmp_path)) == "adapter"


def evaluate(folder: Path, role: str, *answers: str, split: str = "val") -> Path:
    folder.mkdir()
    given = predictions(*answers)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    write_evaluation(folder, VIZWIZ, ASKED, given, model=role, role=role, settings={"split": split})
    return folder


def test_comparison_puts_baselines_first_and_the_ceiling_last(tmp_path: Path) -> None:
    folders = [
        evaluate(tmp_path / "x", "adapter", "cat", "yes", "dog"),
        evaluate(tmp_path / "y", "base", "a cat", "yes", "x"),
        evaluate(tmp_path / "z", "question_only", "dog", "yes", "x"),
    ]
    lines = score_table(read_evaluations(folders, "vizwiz")).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["question_only", "base", "adapter", "ceiling"]
    assert lines[3].split()[1] == "86.7"


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    first = evaluate(tmp_path / "x", "adapter", "cat", "yes", "dog")
    other = evaluate(tmp_path / "y", "base", "cat", "yes", "dog", split="test")
    with pytest.raises(RecordError, match=r"y: answers other questions than .*x"):
        read_evaluations([first, other], "vizwiz")
    with pytest.raises(RecordError, match="has no scores for easy_vqa; it has: vizwiz"):
        read_evaluations([first], "easy_vqa")
    with pytest.raises(RecordError, match=r"is missing; write it with scripts/evaluate.py"):
        read_evaluations([tmp_path], "vizwiz")
    (first / "predictions.jsonl").write_text('{"id": "a"}\n{"id": ')
    with pytest.raises(RecordError, match=r"predictions.jsonl, line 2: not JSON"):
        read_predictions(first)
