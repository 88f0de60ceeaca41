"""The table of seven benchmarks, computed by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.reports.results import read_results, results_table

# The published rows of LoRA and DoRA; ScienceQA's column is of the questions with a picture.
LORA = {"vqav2": 0.791, "gqa": 0.629, "vizwiz": 0.478, "scienceqa": 0.684, "textvqa": 0.582, "pope": 0.864}
LORA |= {"mmbench": 0.661}
DORA = {"vqav2": 0.786, "gqa": 0.629, "vizwiz": 0.522, "scienceqa": 0.699, "textvqa": 0.57, "pope": 0.872}
DORA |= {"mmbench": 0.661}


def content(model: str, figures: dict[str, float], *, split: str = "val", n: int = 1200) -> dict[str, Any]:
    benchmarks: dict[str, Any] = {name: {"score": figure, "n": n, "metric": {}} for name, figure in figures.items()}
    if "scienceqa" in benchmarks:
        benchmarks["scienceqa"] |= {"score": 0.111, "metric": {"image_accuracy": figures["scienceqa"]}}
    settings = {"benchmarks": {name: {"split": split} for name in figures}}
    return {"model": model, "role": "base", "benchmarks": benchmarks, "settings": settings, "versions": {}}


def test_the_published_rows_in_the_published_columns() -> None:
    *table, last = results_table([content("LoRA", LORA), content("DoRA", DORA)]).splitlines()
    assert table == [
        "| Method | VQAv2 |  GQA | VisWiz |  SQA | VQAT | POPE | MMBench |  Avg |",
        "| ---    |  ---: | ---: |   ---: | ---: | ---: | ---: |    ---: | ---: |",
        "| LoRA   |  79.1 | 62.9 |   47.8 | 68.4 | 58.2 | 86.4 |    66.1 | 67.0 |",
        "| DoRA   |  78.6 | 62.9 |   52.2 | 69.9 | 57.0 | 87.2 |    66.1 | 67.7 |",
        "",
    ]
    assert last.startswith("Per cent. vqav2: 1,200 questions of val; gqa: 1,200 questions of val; ")


def test_a_row_with_gaps_has_no_average_and_further_benchmarks_follow() -> None:
    some = content("some", {"seed": 0.5861, "pope": 0.859, "mme": 0.7})
    table = results_table([content("all", LORA), some]).splitlines()
    assert table[0] == "| Method | VQAv2 |  GQA | VisWiz |  SQA | VQAT | POPE | MMBench |  Avg | seed |  mme |"
    assert table[2] == "| all    |  79.1 | 62.9 |   47.8 | 68.4 | 58.2 | 86.4 |    66.1 | 67.0 |    - |    - |"
    assert table[3] == "| some   |     - |    - |      - |    - |    - | 85.9 |       - |    - | 58.6 | 70.0 |"


def test_scienceqa_without_pictures_is_not_measured() -> None:
    of_text = content("m", {"scienceqa": 0.7})
    of_text["benchmarks"]["scienceqa"]["metric"]["image_accuracy"] = None
    assert results_table([of_text]).splitlines()[2].split("|")[5].strip() == "-"


def test_rows_of_different_questions_do_not_share_a_column(tmp_path: Path) -> None:
    for name, changes in (("x", {}), ("y", {"split": "test"}), ("z", {"n": 10})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores.json").write_text(json.dumps(content(name, {"gqa": 0.5}, **changes)))
    with pytest.raises(
        RecordError, match=r"gqa is of 1,200 questions of test in .*y, of 1,200 questions of val in .*x;"
    ):
        read_results([tmp_path / "x", tmp_path / "y"])
    with pytest.raises(RecordError, match=r"gqa is of 10 questions of val in .*z, of 1,200 questions of val in .*x;"):
        read_results([tmp_path / "x", tmp_path / "z"])
    assert [row["model"] for row in read_results([tmp_path / "x", tmp_path / "x"])] == ["x", "x"]
