import copy
import json

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.records import FEATURES, UNDECODED_FEATURES, make_dialogue, make_record, validate_record


def vizwiz_record():
    dialogue = make_dialogue(
        id="cup",
        question="What is this?",
        answers=[{"answer": "cup", "answer_confidence": "yes"}, "mug"],
        answer_type="other",
        answerable=1,
        metadata={"note": "naïve"},
    )
    return make_record(
        image_id="cup.jpg", images=["/photos/cup.jpg"], dialogues=[dialogue], source="vizwiz", split="train"
    )


def test_a_made_record_has_every_field_and_nothing_is_none():
    record = vizwiz_record()
    assert list(record) == list(FEATURES)
    assert list(record["dialogues"][0]) == list(FEATURES["dialogues"].feature)
    assert record["schema_version"] == 1
    assert record["images"] == [{"bytes": None, "path": "/photos/cup.jpg"}]
    assert record["dialogues"][0] == {
        "id": "cup",
        "turns": [{"role": "user", "content": "What is this?"}],
        "answers": [
            {"answer": "cup", "answer_confidence": "yes"},
            {"answer": "mug", "answer_confidence": ""},
        ],
        "answer_type": "other",
        "answerable": 1,
        "choices": [],
        "context": "",
        "metadata": '{"note": "naïve"}',
    }
    validate_record(record)


def test_defaults_say_unknown():
    dialogue = make_dialogue(id="a", question="Why?")
    record = make_record(image_id="a", dialogues=[dialogue])
    assert (dialogue["answerable"], dialogue["answer_type"], dialogue["metadata"]) == (-1, "", "{}")
    assert (record["images"], record["image_sha256"], record["source"]) == ([], [], "")
    validate_record(record)


def test_images_may_be_paths_bytes_or_dicts(tmp_path):
    images = [tmp_path / "a.png", b"bytes", {"bytes": b"b", "path": "b.png"}]
    record = make_record(image_id="a", images=images, dialogues=[make_dialogue(id="a", question="?")])
    assert record["images"] == [
        {"bytes": None, "path": str(tmp_path / "a.png")},
        {"bytes": b"bytes", "path": None},
        {"bytes": b"b", "path": "b.png"},
    ]


def test_several_turns_with_a_self_question():
    turns = [
        {"role": "user", "content": "Describe it."},
        {"role": "assistant", "content": "A red cup."},
        {"role": "vuser", "content": "What colour is it?"},
        {"role": "assistant", "content": ""},
    ]
    record = make_record(image_id="a", dialogues=[make_dialogue(id="a", turns=turns)])
    validate_record(record)
    assert record["dialogues"][0]["turns"] == turns


@pytest.mark.parametrize("given_", [{}, {"question": "?", "turns": []}])
def test_a_dialogue_is_a_question_or_turns(given_):
    with pytest.raises(RecordError, match="dialogue 'x': give either question or turns"):
        make_dialogue(id="x", **given_)


def test_datasets_stores_and_returns_the_same_record():
    record = vizwiz_record()
    rows = Dataset.from_list([record], features=UNDECODED_FEATURES)
    assert rows.features == UNDECODED_FEATURES
    assert rows[0] == record
    validate_record(rows[0])


def broken(change):
    record = copy.deepcopy(vizwiz_record())
    change(record, record["dialogues"][0])
    return record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, d: r["dialogues"].append(d), "dialogue id 'cup' occurs twice"),
        (lambda r, d: d["turns"][0].update(content=" \n"), "dialogue 'cup', turn 0: the question is empty"),
        (lambda r, d: d["turns"][0].update(role="system"), "role is 'system'; it must be one of user"),
        (lambda r, d: d["turns"][0].update(content=None), "turn 0: content must be a string"),
        (lambda r, d: d.update(turns=[]), "dialogue 'cup': turns must be a non-empty list"),
        (lambda r, d: d.update(turns=["What?"]), "turn 0: a turn must be"),
        (lambda r, d: d.update(answers=["cup"]), "dialogue 'cup': answers must be a list of"),
        (lambda r, d: d.update(answers="cup"), "dialogue 'cup': answers must be a list of"),
        (
            lambda r, d: d.update(answers=[{"answer": 3, "answer_confidence": ""}]),
            "answers must be a list of",
        ),
        (lambda r, d: d.update(answers=[{"answer": "cup"}]), "answers must be a list of"),
        (lambda r, d: d.update(answerable=2), "answerable must be 1, 0, or -1"),
        (lambda r, d: d.update(answerable=None), "answerable must be 1, 0, or -1"),
        (lambda r, d: d.update(choices=[1]), "choices must be a list of strings"),
        (lambda r, d: d.update(context=None), "context must be a string"),
        (lambda r, d: d.update(answer_type=None), "answer_type must be a string"),
        (lambda r, d: d.update(metadata="[]"), "metadata must be a JSON object"),
        (lambda r, d: d.update(metadata="{"), "metadata must be a JSON object"),
        (lambda r, d: d.update(metadata={}), "metadata must be a JSON object"),
        (lambda r, d: d.update(id=" "), "every dialogue needs a non-empty id"),
        (lambda r, d: d.pop("answers"), "dialogue 'cup': missing answers"),
        (lambda r, d: r.update(dialogues=[]), "there must be at least one dialogue"),
        (lambda r, d: r.update(dialogues=["?"]), "every dialogue must be a dict"),
        (lambda r, d: r.update(images=None), "images must be a list"),
        (lambda r, d: r.update(image_sha256=["a", "b"]), "one hash for each image"),
        (lambda r, d: r.update(source=None), "source must be a string"),
        (lambda r, d: r.pop("split"), "missing split; build it with make_record"),
        (
            lambda r, d: r.update(schema_version=2),
            "schema_version is 2, this version reads 1: upgrade hf-llava-vqa",
        ),
        (lambda r, d: r.update(schema_version=0), "prepare the data again with scripts/prepare_data.py"),
        (
            lambda r, d: r.pop("schema_version"),
            "schema_version is None, this version reads 1: prepare the data again",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(change, message):
    with pytest.raises(RecordError) as caught:
        validate_record(broken(change))
    assert message in str(caught.value)
    assert str(caught.value).startswith("record 'cup.jpg'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image_id", ["", None, 7])
def test_the_image_id_is_a_non_empty_string(image_id):
    with pytest.raises(RecordError, match="image_id must be a non-empty string"):
        validate_record(broken(lambda record, _: record.update(image_id=image_id)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)


@given(
    question=st.text(min_size=1).filter(str.strip),
    answers=st.lists(st.text()),
    metadata=st.dictionaries(st.text(), json_values),
)
def test_raw_text_survives(question, answers, metadata):
    dialogue = make_dialogue(id="a", question=question, answers=answers, metadata=metadata)
    validate_record(make_record(image_id="a", dialogues=[dialogue]))
    assert dialogue["turns"][0]["content"] == question
    assert [answer["answer"] for answer in dialogue["answers"]] == answers
    assert json.loads(dialogue["metadata"]) == metadata
