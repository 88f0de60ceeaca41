"""Scores of predictions, the baselines that need no model, and submissions."""

import json
from pathlib import Path
from typing import Any

import pytest
from answered import ASKED, RECORDS, predictions, record
from examples import png

from hf_llava_vqa.data import BENCHMARKS, get_benchmark
from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.scoring import ceiling
from hf_llava_vqa.data.submissions import answers_by_id
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.generation import questions
from hf_llava_vqa.reports.evaluation import (
    Part,
    benchmark_scores,
    evaluate,
    load_part,
    question_only_predictions,
    role_of,
    template_of,
)
from hf_llava_vqa.reports.predictions import read_predictions
from hf_llava_vqa.reports.scores import Scores

VIZWIZ = get_benchmark("vizwiz")


def part(benchmark: Benchmark, records: list[dict[str, Any]], **settings: Any) -> Part:
    return Part(benchmark, "val", records, **settings)


def scores_of(benchmark: Benchmark, folder: Path) -> Scores:
    return Scores(folder, model="m", role="base", settings={}, benchmarks={benchmark.name: {"split": "val"}})


def by_last_letter(asked: Part, _known: Any) -> list[dict[str, Any]]:
    """Answers every question with the last letter of its id."""
    return [
        {
            "id": dialogue["id"],
            "image_id": row["image_id"],
            "question": dialogue["turns"][-1]["content"],
            "answer": dialogue["id"][-1],
            "confidence": 1.0,
        }
        for row, dialogue in questions(asked.records)
    ]


def unasked(_part: Part, _known: Any) -> list[dict[str, Any]]:
    raise AssertionError("there is nothing to answer")


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


def test_half_answered_and_empty_splits_are_refused(tmp_path: Path) -> None:
    records = [RECORDS[0], record("c", ("what?", [], ""))]
    with pytest.raises(RecordError, match="vizwiz: 2 of 3 questions have answers"):
        evaluate(part(VIZWIZ, records), scores_of(VIZWIZ, tmp_path), unasked)
    with pytest.raises(RecordError, match="vizwiz: the split val asks nothing"):
        evaluate(part(VIZWIZ, []), scores_of(VIZWIZ, tmp_path), unasked)


def test_a_submission_that_fills_in_a_published_file(tmp_path: Path) -> None:
    dacon, records = get_benchmark("dacon"), [record("c", ("what?", [], ""), ("who?", [], ""))]
    with pytest.raises(RecordError, match=r"no sample_submission\.csv or open\.zip holding it"):
        template_of(dacon, questions(records), tmp_path, None)
    (tmp_path / "sample_submission.csv").write_text("ID,answer\nc#1,\nc#0,\n")
    template = template_of(dacon, questions(records), tmp_path, None)
    scores = scores_of(dacon, tmp_path)
    file = evaluate(part(dacon, records, template=template), scores, by_last_letter)
    assert file == tmp_path / "submission.csv"
    assert file.read_text() == "ID,answer\nc#1,1\nc#0,0\n"
    assert scores.content["benchmarks"] == {}
    assert template_of(dacon, ASKED, None, None) is None, "a split with answers is scored"
    assert template_of(VIZWIZ, questions(records), None, None) is None


def test_a_part_of_a_split_is_not_submitted(tmp_path: Path) -> None:
    records = [record("c", ("what?", [], ""))]
    assert evaluate(part(VIZWIZ, records, whole=False), scores_of(VIZWIZ, tmp_path), by_last_letter) is None
    assert not (tmp_path / "submission.json").exists()
    assert evaluate(part(VIZWIZ, records), scores_of(VIZWIZ, tmp_path), unasked) == tmp_path / "submission.json"


def test_only_what_is_open_is_answered(tmp_path: Path) -> None:
    def answer(_part: Part, known: Any) -> list[dict[str, Any]]:
        asked.append(sorted(known))
        return [prediction for prediction in reversed(predictions("cat", "no", "dog")) if prediction["id"] not in known]

    asked: list[list[str]] = []
    (first, *_) = predictions("cat", "no", "dog")
    scores = scores_of(VIZWIZ, tmp_path)
    (tmp_path / "predictions.jsonl").write_text(json.dumps(first) + '\n{"id": "a#1", ')
    evaluate(part(VIZWIZ, RECORDS), scores, answer)
    evaluate(part(VIZWIZ, RECORDS), scores, unasked)
    assert asked == [["a#0"]]
    assert read_predictions(tmp_path) == predictions("cat", "no", "dog")
    assert scores.content["benchmarks"]["vizwiz"]["score"] == pytest.approx(2.5 / 3)


def test_each_benchmark_has_a_split_to_evaluate_on() -> None:
    assert all(get_benchmark(name).evaluation_split in get_benchmark(name).splits for name in BENCHMARKS)


def test_what_is_asked_is_read_from_its_usual_split(tmp_path: Path) -> None:
    for split in ("val", "test"):
        (tmp_path / split).mkdir()
        for number in range(3):
            (tmp_path / split / f"{number}.png").write_bytes(png((90, 80 * number, 50)))
        rows = [{"image": f"{number}.png", "question": "what?", "answers": [{"answer": "a"}]} for number in range(3)]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
    found = [load_part("vizwiz", data=str(tmp_path), limit=limit) for limit in (None, 2, 3)]
    assert [(part.split, len(list(part.records)), part.whole) for part in found] == [
        *(("val", 3, True), ("val", 2, False), ("val", 3, True))
    ]
    assert load_part("vizwiz", data=str(tmp_path), split="test").split == "test"
    with pytest.raises(ConfigError, match="vizwiz: split must be one of train, val, test, not 'dev'"):
        load_part("vizwiz", data=str(tmp_path), split="dev")


def test_roles(tmp_path: Path) -> None:
    assert role_of("question_only") == "question_only"
    assert role_of("llava-hf/llava-1.5-7b-hf") == "base"
    (tmp_path / "training_recipe.json").write_text("{}")
    assert role_of(str(tmp_path)) == "merged"
    (tmp_path / "adapter_config.json").write_text("{}")
    assert role_of(str(tmp_path)) == "adapter"
