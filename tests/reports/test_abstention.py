"""Folders of evaluations: a threshold of one split, applied to another."""

import json
from dataclasses import replace

import numpy as np
import pytest
from examples import png
from PIL import Image

from hf_llava_vqa.data import get_benchmark
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.generation import questions
from hf_llava_vqa.reports.abstention import abstain, check_applicable, credited, read_evaluated, write_abstained
from hf_llava_vqa.reports.calibration_plot import write_plot
from hf_llava_vqa.reports.evaluation import evaluate, load_part
from hf_llava_vqa.reports.scores import Scores

VIZWIZ = get_benchmark("vizwiz")
PEOPLE = {"train": ["cup"] * 10, "val": ["cup"] * 6 + ["unanswerable"] * 4}
CONFIDENCES = [0.9, 0.4, 0.2]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "vizwiz"
    for split in ("train", "val", "test"):
        rows = [{"image": f"{split}_{number}.png", "question": "What is this?"} for number in range(3)]
        (folder / split).mkdir(parents=True)
        for number, row in enumerate(rows):
            (folder / split / row["image"]).write_bytes(png((80 * number, 50, 60)))
            if split in PEOPLE:
                row |= {"answers": [{"answer": text, "answer_confidence": "yes"} for text in PEOPLE[split]]}
        (folder / f"{split}.json").write_text(json.dumps(rows))
    return folder


def evaluation(root, split, *, answers=("cup", "mug", "mug"), model="m", limit=None, **change):
    """An evaluation folder as scripts/evaluate.py writes it."""
    part = load_part("vizwiz", data=str(root), split=split, limit=limit)
    predictions = [
        {
            "id": dialogue["id"],
            "image_id": record["image_id"],
            "question": "What is this?",
            "answer": answer,
            "confidence": confidence,
            **change,
        }
        for (record, dialogue), answer, confidence in zip(questions(part.records), answers, CONFIDENCES, strict=False)
    ]
    folder = root.parent / f"eval_{split}_{model}"
    settings = {"weights": f"of {model}", "limit": limit}
    scores = Scores(folder, model=model, role="base", settings=settings, benchmarks={"vizwiz": {"split": split}})
    evaluate(part, scores, lambda *_: predictions)
    return folder


def read(folder, root):
    return read_evaluated(folder, "vizwiz", str(root))


def test_credits_of_answers_and_of_unanswerable(root):
    answered = credited(read(evaluation(root, "val"), root))
    assert answered.confidence.tolist() == CONFIDENCES
    assert answered.credit.tolist() == [1, 0, 0]
    assert answered.abstaining.tolist() == [1, 1, 1]  # four of ten people say so
    assert list(answered.image_ids) == ["val_0.png", "val_1.png", "val_2.png"]


def test_a_part_of_a_split(root):
    evaluated = read(evaluation(root, "val", limit=2), root)
    assert len(evaluated.asked) == len(credited(evaluated).credit) == 2


def test_answers_below_the_threshold_are_replaced():
    rows = [{"id": str(c), "answer": "cup", "confidence": c} for c in (0.9, 0.5, 0.49)]  # the threshold is for these
    rows.append({"id": "said", "answer": "unanswerable", "confidence": 0.1})
    sure, at, below, said = abstain(rows, temperature=2.0, threshold=0.5)
    assert sure == {"id": "0.9", "answer": "cup", "confidence": pytest.approx(0.9**0.5)}
    assert at == {"id": "0.5", "answer": "cup", "confidence": pytest.approx(0.5**0.5)}
    assert (below["answer"], below["withheld"]) == ("unanswerable", "cup")
    assert below["confidence"] == pytest.approx(0.7)
    assert (said["answer"], "withheld" in said) == ("unanswerable", False)


def test_another_split_is_written_with_its_submission(root, tmp_path):
    fitted = read(evaluation(root, "val"), root)
    applied = read(evaluation(root, "test"), root)
    check_applicable(fitted, applied)
    out = tmp_path / "out" / "test"
    written = write_abstained(out, applied, temperature=1.0, threshold=0.4)
    assert [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()] == written
    assert json.loads((out / "submission.json").read_text()) == [
        {"image": "test_0.png", "answer": "cup"},
        {"image": "test_1.png", "answer": "mug"},
        {"image": "test_2.png", "answer": "unanswerable"},
    ]
    settings = json.loads((out / "scores.json").read_text())["settings"]
    assert settings["abstention"] == {"temperature": 1.0, "threshold": 0.4}


def test_a_split_with_answers_is_scored_anew(root, tmp_path):
    applied = read(evaluation(root, "train"), root)
    write_abstained(tmp_path / "out", applied, temperature=1.0, threshold=2.0)
    scores = [json.loads((folder / "scores.json").read_text()) for folder in (applied.folder, tmp_path / "out")]
    assert [entry["benchmarks"]["vizwiz"]["score"] for entry in scores] == [pytest.approx(1 / 3), 0]


def test_where_it_was_fitted_it_is_not_applied(root):
    one, other = (read(evaluation(root, split), root) for split in ("val", "train"))
    with pytest.raises(RecordError, match=r"eval_val_m: question val_0 is in .*eval_val_m too; apply to another split"):
        check_applicable(one, one)
    stranger = read(evaluation(root, "train", model="n"), root)
    with pytest.raises(ConfigError, match=r"eval_train_n was answered by n, .*eval_val_m by m with other weights"):
        check_applicable(one, stranger)
    check_applicable(one, other)


@pytest.mark.parametrize("confidence", [None, "0.9", True, 1.5, -0.1, float("nan")])
def test_a_prediction_without_confidence(root, confidence):
    folder = evaluation(root, "val", confidence=confidence)
    with pytest.raises(RecordError, match=r"eval_val_m: val_0: confidence must be a number from 0 to 1, found"):
        read(folder, root)


def test_folders_that_cannot_be_calibrated(root):
    folder = evaluation(root, "test")
    with pytest.raises(RecordError, match="question test_0 has no answers; calibrate on a split that has them"):
        credited(read(folder, root))
    (folder / "predictions.jsonl").write_text((folder / "predictions.jsonl").read_text().replace("test_1", "val_1"))
    with pytest.raises(RecordError, match="no ID val_1, which was predicted; answer the split of this file"):
        read(folder, root)
    (folder / "scores.json").unlink()
    with pytest.raises(RecordError, match=r"scores\.json is missing; write it with scripts/evaluate\.py"):
        read(folder, root)


def test_a_score_that_is_no_mean_has_no_threshold(root):
    evaluated = read(evaluation(root, "val"), root)

    def f1(answers, asked, variant):
        scores = VIZWIZ.score_answers(answers, asked, variant)
        return replace(scores, combine=lambda sums: 2 * sums[0])

    part = replace(evaluated.part, benchmark=replace(VIZWIZ, name="f1", score_answers=f1))
    with pytest.raises(ConfigError, match="f1: its score is no mean over answers"):
        credited(replace(evaluated, part=part))


def test_the_plot_is_a_picture(root, tmp_path):
    answered = credited(read(evaluation(root, "val"), root))
    write_plot(tmp_path / "p.png", answered, temperature=1.0, threshold=0.5)
    with Image.open(tmp_path / "p.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
