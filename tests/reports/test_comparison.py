"""Evaluations of several models on one benchmark, side by side."""

import json
from pathlib import Path

import pytest
from answered import RECORDS, predictions

from hf_llava_vqa.data import get_benchmark
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.reports.comparison import read_evaluations, score_table
from hf_llava_vqa.reports.evaluation import Part, evaluate
from hf_llava_vqa.reports.scores import Scores


def evaluation(folder: Path, role: str, *answers: str, split: str = "val") -> Path:
    scores = Scores(folder, model=role, role=role, settings={}, benchmarks={"vizwiz": {"split": split}})
    evaluate(Part(get_benchmark("vizwiz"), split, RECORDS), scores, lambda _part, _known: predictions(*answers))
    return folder


def test_comparison_puts_baselines_first_and_the_ceiling_last(tmp_path: Path) -> None:
    folders = [
        evaluation(tmp_path / "x", "adapter", "cat", "yes", "dog"),
        evaluation(tmp_path / "y", "base", "a cat", "yes", "x"),
        evaluation(tmp_path / "z", "question_only", "dog", "yes", "x"),
    ]
    lines = score_table(read_evaluations(folders, "vizwiz")).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["question_only", "base", "adapter", "ceiling"]
    assert lines[3].split()[1] == "86.7"


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    first = evaluation(tmp_path / "x", "adapter", "cat", "yes", "dog")
    other = evaluation(tmp_path / "y", "base", "cat", "yes", "dog", split="test")
    with pytest.raises(RecordError, match=r"y: answers other questions than .*x"):
        read_evaluations([first, other], "vizwiz")
    with pytest.raises(RecordError, match="has no scores for easy_vqa; it has: vizwiz"):
        read_evaluations([first], "easy_vqa")
    with pytest.raises(RecordError, match=r"is missing; write it with scripts/evaluate.py"):
        read_evaluations([tmp_path], "vizwiz")


def test_predictions_that_are_not_those_that_were_scored(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "x", "adapter", "cat", "yes", "dog")
    file = folder / "predictions.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]))
    with pytest.raises(RecordError, match="x: 2 predictions for vizwiz, but 3 were scored; evaluate again"):
        read_evaluations([folder], "vizwiz")
    file.write_text("".join([*lines, lines[0]]))
    with pytest.raises(RecordError, match=r"predictions.jsonl, line 4: a second prediction for a#0"):
        read_evaluations([folder], "vizwiz")
    settings = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps({**settings, "settings": {"split": "val"}}))
    with pytest.raises(RecordError, match=r"scores.json is not as this version of scripts/evaluate.py writes it"):
        read_evaluations([folder], "vizwiz")
