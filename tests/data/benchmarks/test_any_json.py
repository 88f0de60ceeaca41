"""Whatever JSON stands in an annotation file: checked records, or one line that names the file."""

import json

import pytest
from examples import FUZZ, damaged
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.data.benchmarks import vizwiz, vizwiz_competition
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.records import validate_record

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=3),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=6,
)
answer = st.fixed_dictionaries({"answer": st.text(max_size=3)}, optional={"answer_confidence": st.just("yes")})
FIELDS = {
    "image": st.sampled_from(["a.jpg", "b.jpg", "..", "."]) | anything,
    "question": st.text(max_size=3) | anything,
    "answers": st.lists(answer | anything, max_size=3) | anything,
    "answer_type": st.just("other") | anything,
    "answerable": st.sampled_from([0, 1, 1.0, True]) | anything,
}
row = st.fixed_dictionaries({}, optional=FIELDS) | anything
column = st.dictionaries(st.sampled_from("012"), st.one_of(*FIELDS.values()), max_size=3) | anything


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("any")
    for split in ("train", "test", "valid"):
        (root / split).mkdir()
        for name in ("a.jpg", "b.jpg"):
            (root / split / name).touch()
    return root


def read_or_refuse(read, root, split, data, **choices):
    file = root / f"{split}.json"
    file.write_bytes(data)
    try:
        records = list(read(split, root=root, **choices))
    except RecordError as error:
        message = str(error)
    else:
        for record in records:
            validate_record(record)
        message = f"{file}"
    assert message.startswith(str(file))
    assert "\n" not in message


@FUZZ
@given(content=st.lists(row, max_size=4) | anything, split=st.sampled_from(["train", "test"]))
def test_lists_of_rows(root, content, split):
    read_or_refuse(vizwiz.read, root, split, json.dumps(content).encode())


@FUZZ
@given(
    content=st.dictionaries(st.sampled_from(sorted(FIELDS)), column) | anything,
    split=st.sampled_from(["train", "valid"]),
    questions=st.sampled_from(["raw", "processed"]),
)
def test_columns(root, content, split, questions):
    read_or_refuse(vizwiz_competition.read, root, split, json.dumps(content).encode(), questions=questions)


ROWS = [{"image": name, "question": "What, für wen?", "answers": [{"answer": "a"}]} for name in ("a.jpg", "b.jpg")]
COLUMNS = {key: {str(number): row[key] for number, row in enumerate(ROWS)} for key in ROWS[0]}


@FUZZ
@given(data=damaged(json.dumps(ROWS, ensure_ascii=False).encode()))
def test_damaged_lists_of_rows(root, data):
    read_or_refuse(vizwiz.read, root, "train", data)


@FUZZ
@given(data=damaged(json.dumps(COLUMNS, ensure_ascii=False).encode()))
def test_damaged_columns(root, data):
    read_or_refuse(vizwiz_competition.read, root, "train", data)
