"""What was asked, as data: it is read again as it was said, and nothing is left out uncounted."""

from pathlib import Path

import pytest
from examples import colour, png, question, record

from hf_llava_vqa.data import load_records
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.generation import Asked
from hf_llava_vqa.generation.asked_data import write_asked
from hf_llava_vqa.images import read_image_bytes

ASKED = [
    Asked(record("a/1", [question("q")], colours=[colour(1)]), [("What?", "a <image>"), ("Why?", "so")], empty=2),
    Asked(record("b", [question("r")]), []),
    Asked(record("c", [question("s")], colours=[colour(2), colour(3)]), [("Is it?", "yes"), ("Is it?", "no")]),
]


def test_the_reader_of_llava_json_reads_what_was_asked(tmp_path: Path) -> None:
    counts = write_asked(iter(ASKED), tmp_path / "asked")
    assert counts == {"records": 2, "questions": 3, "empty": 2, "repeated": 1, "silent": 1}
    first, second = load_records("llava_json", split="train", root=tmp_path / "asked")
    assert [dialogue["id"] for row in (first, second) for dialogue in row["dialogues"]] == ["a/1", "c"]
    assert first["dialogues"][0]["turns"] == ASKED[0].turns
    assert second["dialogues"][0]["turns"] == ASKED[2].turns[:2]  # of two answers the first
    assert [read_image_bytes(image) for image in first["images"]] == [png(colour(1))]
    assert [read_image_bytes(image) for image in second["images"]] == [png(colour(2)), png(colour(3))]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    write_asked(ASKED, tmp_path)
    with pytest.raises(RecordError, match=r"train\.jsonl exists; remove it, or name another folder"):
        write_asked(ASKED, tmp_path)
