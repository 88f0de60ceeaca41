"""The file of predictions: what an interruption leaves of it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from answered import ASKED, predictions
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.reports.predictions import earlier_predictions, read_predictions, write_predictions

GIVEN = predictions("cat", "no\u2028\x85é", "dog")


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predictions")


@given(written=st.permutations(GIVEN), length=st.integers(0, len(lines(*GIVEN))))
def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(
    shared: Path, written: list[dict[str, Any]], length: int
) -> None:
    path = shared / "predictions.jsonl"
    path.write_bytes(lines(*written)[:length])
    known = earlier_predictions(path, ASKED)
    assert path.read_bytes() == lines(*known.values())
    assert list(known.values()) == written[: len(known)]
    new = [prediction for prediction in reversed(GIVEN) if prediction["id"] not in known]
    assert write_predictions(new, path, ASKED, known) == GIVEN
    assert path.read_bytes() == lines(*GIVEN)
    assert read_predictions(shared) == GIVEN


def test_every_prediction_is_in_the_file_before_the_next_is_asked_for(tmp_path: Path) -> None:
    path, seen = tmp_path / "predictions.jsonl", []

    def answers() -> Any:
        for prediction in GIVEN:
            yield prediction
            seen.append(path.read_bytes())

    write_predictions(answers(), path, ASKED, {})
    assert seen == [lines(*GIVEN[:count]) for count in (1, 2, 3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": "a#0", \n' + lines(GIVEN[1]), "line 1: not JSON"),
        (lines(GIVEN[0]) + b'{"id": "\xff"}\n', "line 2: not JSON"),
        (lines(GIVEN[0]) + b"\n" + lines(GIVEN[1]), "line 2: not JSON"),
        (lines([]), "line 1: not a prediction with id, image_id, question, answer"),
        (lines({**GIVEN[0], "answer": None}), "line 1: not a prediction with id, image_id, question, answer"),
        (lines(GIVEN[0], GIVEN[1], GIVEN[0]), "line 3: a second prediction for a#0"),
        (lines(GIVEN[0], {**GIVEN[1], "id": "z#0"}), "line 2: z#0 is not among the questions"),
        (lines({**GIVEN[0], "question": "who?"}), "line 1: a#0 is another question now than when it was answered"),
        (lines({**GIVEN[0], "image_id": "z"}), "line 1: a#0 is another question now than when it was answered"),
    ],
)
def test_a_file_that_an_interruption_does_not_leave_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(content)
    with pytest.raises(
        RecordError, match=f"^{path}, {message}; delete the file to answer anew, or choose another --out$"
    ):
        earlier_predictions(path, ASKED)
    assert path.read_bytes() == content


def test_questions_that_share_an_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="two questions are called a#1; predictions are told apart by their ids"):
        earlier_predictions(tmp_path / "predictions.jsonl", [*ASKED, ASKED[1]])


def test_a_folder_without_predictions(tmp_path: Path) -> None:
    assert earlier_predictions(tmp_path / "predictions.jsonl", ASKED) == {}
    with pytest.raises(RecordError, match=r"predictions.jsonl is missing; write it with scripts/evaluate.py --out"):
        read_predictions(tmp_path)
