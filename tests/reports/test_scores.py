"""`scores.json`: which evaluation a folder holds, and which may go on in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.reports import scores as scores_module
from hf_llava_vqa.reports.scores import Scores, read_scores

SETTINGS = {"weights": "a" * 64, "limit": None, "engine": "forest", "max_new_tokens": 128}
VAL = {"split": "val", "instruction": "Be brief."}


def begin(folder: Path, *names: str, model: str = "m", own: dict[str, Any] = VAL, **changes: Any) -> Scores:
    """Scores of some benchmarks, each with a prediction."""
    settings = {**SETTINGS, **changes}
    scores = Scores(folder, model=model, role="base", settings=settings, benchmarks=dict.fromkeys(names, own))
    for name in names:
        scores.folder_of(name).mkdir(exist_ok=True)
        (scores.folder_of(name) / "predictions.jsonl").write_text("{}\n")
    return scores


def test_the_settings_stand_there_before_the_first_answer(tmp_path: Path) -> None:
    Scores(tmp_path, model="m", role="base", settings=SETTINGS, benchmarks={"vizwiz": VAL})
    content = read_scores(tmp_path)
    assert (content["model"], content["role"], content["benchmarks"]) == ("m", "base", {})
    assert content["settings"] == {**SETTINGS, "benchmarks": {"vizwiz": VAL}}
    assert "torch" in content["versions"]


def test_one_benchmark_lies_in_the_folder_and_several_in_folders_of_their_names(tmp_path: Path) -> None:
    assert begin(tmp_path / "one", "vizwiz").folder_of("vizwiz") == tmp_path / "one"
    several = begin(tmp_path / "two", "vizwiz", "gqa")
    assert [several.folder_of(name) for name in ("vizwiz", "gqa")] == [tmp_path / "two/vizwiz", tmp_path / "two/gqa"]


def test_a_second_run_keeps_what_the_first_wrote(tmp_path: Path) -> None:
    begin(tmp_path, "vizwiz", "gqa").add("vizwiz", {"score": 0.5})
    begin(tmp_path, "gqa", "pope").add("gqa", {"score": 0.25})
    scores = begin(tmp_path, "vizwiz")
    assert scores.folder_of("vizwiz") == tmp_path / "vizwiz"
    assert read_scores(tmp_path) == scores.content
    assert scores.content["benchmarks"] == {"vizwiz": {"score": 0.5}, "gqa": {"score": 0.25}}
    assert list(scores.content["settings"]["benchmarks"]) == ["vizwiz", "gqa", "pope"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "b" * 64}, "weights aaaaaaaa… became bbbbbbbb…"),
        ({"weights": "b" * 64, "model": "n"}, "model m became n; weights aaaaaaaa… became bbbbbbbb…"),
        ({"limit": 5}, "limit None became 5"),
        ({"engine": "generate"}, "engine forest became generate"),
        ({"max_new_tokens": 16, "limit": 2}, "limit None became 2; max_new_tokens 128 became 16"),
        ({"own": {**VAL, "split": "test"}}, "split val became test"),
        ({"own": {**VAL, "instruction": ""}}, "instruction Be brief. became "),
    ],
)
def test_answers_that_came_about_differently_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    begin(tmp_path, "vizwiz")
    before = (tmp_path / "scores.json").read_bytes()
    with pytest.raises(ConfigError) as caught:
        begin(tmp_path, "vizwiz", **changes)
    assert str(caught.value) == (
        f"{tmp_path} holds answers to vizwiz that came about differently: {message}; use the same to go on, or choose "
        "another --out"
    )
    assert (tmp_path / "scores.json").read_bytes() == before


def test_other_versions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path, "vizwiz")
    monkeypatch.setattr(scores_module, "versions", lambda: {"torch": "9.9"})
    with pytest.raises(ConfigError, match=r"differently: torch \S+ became 9.9;"):
        begin(tmp_path, "vizwiz")


def test_the_same_weights_may_have_moved(tmp_path: Path) -> None:
    begin(tmp_path, "vizwiz")
    assert begin(tmp_path, "vizwiz", model="elsewhere/m").content["model"] == "elsewhere/m"


def test_a_run_that_answered_nothing_binds_nobody(tmp_path: Path) -> None:
    begin(tmp_path, "vizwiz")
    (tmp_path / "predictions.jsonl").write_text("")
    assert begin(tmp_path, "gqa", limit=3).content["settings"]["benchmarks"] == {"gqa": VAL}


def test_a_folder_of_one_benchmark_takes_no_other(tmp_path: Path) -> None:
    begin(tmp_path, "vizwiz")
    for names in (["gqa"], ["vizwiz", "gqa"]):
        with pytest.raises(ConfigError, match="holds an evaluation of vizwiz; choose another --out for gqa"):
            begin(tmp_path, *names)


def test_predictions_without_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"predictions.jsonl: no scores.json says how these answers came about"):
        begin(tmp_path, "vizwiz")


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"model": "m", "settings": {"split": "val"}})])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(RecordError, match=r"scores.json is not as this version of scripts/evaluate.py writes it"):
        begin(tmp_path, "vizwiz")
