"""Predictions checked against the questions they answer, and the files for servers."""

import builtins

import pytest
from reader_checks import predictions_of

from hf_llava_vqa.data.benchmarks.mmbench import find_template
from hf_llava_vqa.data.submissions import answers_of_all, known_answers, write_excel, write_json
from hf_llava_vqa.errors import ConfigError, RecordError


def test_answers_by_id():
    predictions = predictions_of({"2": "b", "1": "a"})
    assert answers_of_all(["1", "2"], predictions, "q.json") == {"1": "a", "2": "b"}
    assert known_answers(["1", "2", "3"], predictions, "q.json") == {"1": "a", "2": "b"}


@pytest.mark.parametrize(
    ("ids", "predictions", "message"),
    [
        (["1", "1"], predictions_of({"1": "a"}), "q.json: ID 1 stands there 2 times; download the file again"),
        (["1"], predictions_of({"1": "a", "x\n": "b"}), r"q.json: no ID 'x\n', which was predicted"),
        (["1"], predictions_of({"1": "a"}) * 2, "two predictions for 1: a question is answered once"),
        (["1", "2", "3"], predictions_of({"1": "a"}), "q.json: no prediction for ID 2 (2 of 3 are missing)"),
        (["1"], [], "q.json: no prediction for ID 1 (1 of 1 are missing)"),
    ],
)
def test_predictions_that_do_not_fit_the_questions(ids, predictions, message):
    with pytest.raises(RecordError) as caught:
        answers_of_all(ids, predictions, "q.json")
    assert str(caught.value).startswith(message)


def test_json_is_ascii(tmp_path):
    write_json({"a": "돌고래"}, tmp_path / "new" / "s.json")
    assert (tmp_path / "new" / "s.json").read_bytes().isascii()


def test_excel_needs_its_package(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_openpyxl(name, *args, **kwargs):
        if name == "openpyxl":
            raise ModuleNotFoundError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_openpyxl)
    with pytest.raises(ConfigError, match=r'needs the package openpyxl: pip install "hf-llava-vqa\[mmbench\]"'):
        write_excel([["a"]], tmp_path / "s.xlsx")
    with pytest.raises(ConfigError, match="openpyxl"):  # before any question is answered
        find_template(["q.tsv"], tmp_path)
