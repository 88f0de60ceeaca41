import json
import logging

import pytest
from examples import FUZZ, damaged
from hypothesis import given
from hypothesis import strategies as st
from reader_checks import (
    mutated,
    read_all,
    read_or_refuse,
    refusal,
    trained_texts,
    write,
    write_photos,
    zip_up,
)

from hf_llava_vqa.collate import prompt_turns
from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.benchmarks.llava_json import read
from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.data.reading.questions import unique_ids
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.images import open_image

COCO, VG = "coco/train2017/000000000009.jpg", "vg/VG_100K_2/2.jpg"
PHOTOS = [COCO, "gqa/images/7.jpg", "ocr_vqa/images/0.jpg", "textvqa/train_images/a.jpg", "vg/VG_100K/1.jpg", VG]


def row(id, *values, image=None, start="human", **more):
    speakers = ["human", "gpt"] if start == "human" else ["gpt", "human"]
    turns = [{"from": speakers[number % 2], "value": value} for number, value in enumerate(values)]
    return {"id": id, **({"image": image} if image is not None else {}), "conversations": turns, **more}


MIX = [
    row("000000000009", "<image>\nWhat is this?", "A cup.", "Is it red?", "Yes.", image=COCO),
    row("000000000009", "Describe the picture.\n<image>", "A cup on a table.", image=COCO),
    row("wNBG8Gp_0", "Hello", "Hi!", model="gpt-4"),
    row("VG", " <image> Where is it? ", "There.", image=VG),
    row(17, "Which is larger?\n<image>\n<image>", "The first.", image=[COCO, VG]),
    row("wNBG8Gp_0", "How do I write <image> in HTML?", "Like this: <image>."),
]


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "playground"
    write(root / "llava_v1_5_mix665k.json", MIX)
    write_photos(root, *PHOTOS)
    return root


def contents(records):
    return {
        dialogue["id"]: [turn["content"] for turn in dialogue["turns"]]
        for record in records
        for dialogue in record["dialogues"]
    }


# What is read


def test_conversations_about_the_same_pictures_are_one_record(root):
    records = read_all(read, "train", root=root)
    assert [(record["image_id"], [dialogue["id"] for dialogue in record["dialogues"]]) for record in records] == [
        (COCO, ["000000000009#0", "000000000009#1"]),
        ("wNBG8Gp_0#0", ["wNBG8Gp_0#0"]),
        (VG, ["VG"]),
        (f"{COCO} {VG}", ["17"]),
        ("wNBG8Gp_0#1", ["wNBG8Gp_0#1"]),
    ]
    assert [len(record["images"]) for record in records] == [1, 0, 1, 2, 0]
    assert {record["source"] for record in records} == {"llava_json"}
    roles = [turn["role"] for turn in records[0]["dialogues"][0]["turns"]]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert json.loads(records[1]["dialogues"][0]["metadata"]) == {"model": "gpt-4"}


def test_image_marks_leave_the_questions_about_pictures(root):
    assert contents(read_all(read, "train", root=root)) == {
        "000000000009#0": ["What is this?", "A cup.", "Is it red?", "Yes."],
        "000000000009#1": ["Describe the picture.", "A cup on a table."],
        "wNBG8Gp_0#0": ["Hello", "Hi!"],
        "VG": ["Where is it?", "There."],
        "17": ["Which is larger?", "The first."],
        "wNBG8Gp_0#1": ["How do I write <image> in HTML?", "Like this: <image>."],
    }


@pytest.mark.parametrize(
    "question", ["<image>\nWhat is this?", "What is this?\n<image>", "<image> What is this?", "What is this?"]
)
def test_the_picture_stands_before_the_first_question_as_llava_puts_it(root, question):
    write(root / "llava_v1_5_mix665k.json", [row("1", question, "A cup.", "Why?", "So.", image=COCO)])
    (record,) = load_records("llava_json", split="train", root=root)
    turns = prompt_turns(record, record["dialogues"][0])
    assert [turn["content"] for turn in turns] == ["<image>\nWhat is this?", "A cup.", "Why?", "So."]


@pytest.mark.parametrize("photo", PHOTOS)
def test_pictures_lie_where_the_mixture_has_them(root, photo):
    write(root / "llava_v1_5_mix665k.json", [row("1", "What is this?", "A cup.", image=photo)])
    (record,) = load_records("llava_json", split="train", root=root)
    assert open_image(record["images"][0]).size == (28, 28)
    assert record["images"][0]["path"] == str(root / photo)


def test_captions_with_their_archive_as_downloaded(tmp_path):
    write(tmp_path / "blip_laion_cc_sbu_558k.json", [row("004539375", "<image>\nWhat?", "a cup", image="00453/1.jpg")])
    write_photos(tmp_path, "00453/1.jpg", "00454/1.jpg")
    zip_up(tmp_path / "images.zip", tmp_path / "00453", tmp_path / "00454")
    (record,) = read_all(read, "train", root=tmp_path)
    assert record["images"][0]["path"] == f"zip://00453/1.jpg::{tmp_path}/images.zip"
    assert open_image(record["images"][0]).mode == "RGB"


def test_json_lines(root, tmp_path):
    expected = read_all(read, "train", root=root)
    lines = tmp_path / "mix.jsonl"
    lines.write_text("\ufeff" + "\n\n".join(map(json.dumps, MIX)) + "\n", encoding="utf-8")
    assert read_all(read, "train", annotations=lines, images=root) == expected


def test_the_file_is_named_by_its_split_or_by_the_user_if_there_are_several(root):
    write(root / "sharegpt4v.json", MIX[:1])
    assert refusal(read, "train", root=root).startswith(f"{root}: no train.json among its 2 JSON files; name the file")
    assert len(read_all(read, "train", root=root, annotations=root / "sharegpt4v.json")) == 1
    write(root / "val.json", MIX[2:3])
    assert list(contents(read_all(read, "val", root=root))) == ["wNBG8Gp_0"]


def test_a_held_out_split_is_never_the_only_file(root):
    assert "no val.json among its 1 JSON files" in refusal(read, "val", root=root)


def test_a_set_can_be_prepared(root, tmp_path):
    records = load_records("llava_json", split="train", root=root)
    write_shards(records, tmp_path / "shards", split="train")
    assert contents(load_records("parquet", path=tmp_path / "shards")) == contents(records)


def test_all_that_the_assistant_says_is_trained_on(root, tiny_llava):
    trained = [
        answers for _, answers in trained_texts(load_records("llava_json", split="train", root=root), tiny_llava)
    ]
    assert trained == [
        "A cup.</s> Yes.</s> A cup on a table.</s>",
        "Hi!</s>",
        "There.</s>",
        "The first.</s>",
        "Like this: < image>.</s>",
    ]


def test_ids_become_unique_whatever_they_are():
    assert unique_ids(["a", "b", "a", "a#0", "a"]) == ["a#1", "b", "a#2", "a#0", "a#3"]
    assert unique_ids(["a#0", "a", "a#0", "a"]) == ["a#0#0", "a#1", "a#0#1", "a#2"]


@given(st.lists(st.text("a#01", max_size=4), max_size=12))
def test_unique_ids_are_unique_and_leave_unique_ones_alone(ids):
    names = unique_ids(ids)
    assert len(set(names)) == len(names) == len(ids)
    assert all(name == id for name, id in zip(names, ids, strict=True) if ids.count(id) == 1)


def test_rows_without_id_are_called_by_their_number(root):
    write(root / "llava_v1_5_mix665k.json", [{"conversations": MIX[2]["conversations"]}, MIX[2]])
    assert list(contents(read_all(read, "train", root=root))) == ["0", "wNBG8Gp_0"]


# Odd rows


def test_a_first_turn_of_gpt_and_a_question_without_answer_are_left_out_loudly(root, caplog):
    odd = [
        row("late", "I am ready.", "Hello", "Hi!", start="gpt"),
        row("later", "I am ready.", "Hello", "Hi!", "And?", start="gpt"),
        row("open", "Hello", "Hi!", "And?"),
    ]
    write(root / "llava_v1_5_mix665k.json", [*MIX, *odd])
    read_texts = contents(read_all(read, "train", root=root))
    assert [read_texts[name] for name in ("late", "later", "open")] == [["Hello", "Hi!"]] * 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{root}/llava_v1_5_mix665k.json: 2 of 9 rows begin with gpt; that turn is left out, as LLaVA does",
        f"{root}/llava_v1_5_mix665k.json: 2 of 9 rows end with a question that has no answer; it is left out",
    ]


BAD = [
    ("text", ": expected {", None),
    (row("x"), ": conversations is an empty list", "x"),
    ({"id": "x", "conversation": []}, ": conversations must be a list, found nothing; expected {", "x"),
    (row("x", "Hello"), ": no question with an answer; remove the row", "x"),
    (row("x", "Hello", "Hi!", start="gpt"), ": no question with an answer", "x"),
    (row("x", "Hello", ""), ", conversations 1: value is empty", "x"),
    (row("x", "Hello", None), ", conversations 1: value must be a string, found null", "x"),
    (row("x", "\ud800", "Hi!"), ": a broken character", "x"),
    (
        {"id": "x", "conversations": [{"from": "system", "value": "Be nice."}, *MIX[0]["conversations"]]},
        ", conversations 0: from is system where human is due",
        "x",
    ),
    (
        {"id": "x", "conversations": [*MIX[2]["conversations"][:1] * 2, *MIX[2]["conversations"][1:]]},
        ", conversations 1: from is human where gpt is due",
        "x",
    ),
    (row({}, "Hello", "Hi!"), ": id must be a string, found an object", {}),
    (row("x", "<image>", "A cup.", image=COCO), ": a question that is only <image>; put it into words", "x"),
    (row("x", "<image>\nWhat?", "A cup."), ": <image>, but no image; add its path as image", "x"),
    (row("x", "<image>\n<image>\n<image>\nWhat?", "A cup.", image=[COCO, VG]), ": 3 times <image> for 2 images", "x"),
    (row("x", "What?", "A cup.", image=5), ": image must be a string, found a number", "x"),
    (row("x", "What?", "A cup.", image=[COCO, None]), ": image, entry 1: expected a string, found null", "x"),
    (row("x", "What?", "A cup.", image="coco/none.jpg"), ": image coco/none.jpg is not in ", "x"),
    (row("x", "What?", "A cup.", image="../x.jpg"), ": unsafe name '../x.jpg'", "x"),
    (row("x", "What?", "A cup.", image="/etc/x.jpg"), ": unsafe name '/etc/x.jpg'", "x"),
]


@pytest.mark.parametrize(("bad", "message", "id"), BAD)
def test_a_row_that_cannot_be_used(root, tmp_path, bad, message, id, caplog):
    file = root / "llava_v1_5_mix665k.json"
    write(file, [MIX[2], bad, *MIX])
    refused = refusal(read, "train", root=root)
    assert refused.startswith(f"{file}, row 1{message}")
    assert refused.endswith(f"(1 of 8 rows of {file} cannot be used; bad_rows=FILE leaves them out)")

    records = read_all(read, "train", root=root, bad_rows=tmp_path / "bad_rows.jsonl")
    assert len(contents(records)) == 7
    (line,) = (tmp_path / "bad_rows.jsonl").read_text().splitlines()
    named = json.loads(line)
    assert (named["row"], named["id"]) == (1, id)
    assert named["reason"].startswith(f"{file}, row 1{message}")
    assert caplog.records[-1].getMessage() == (
        f"1 of 8 rows of {file} are left out; {tmp_path}/bad_rows.jsonl names each with the reason"
    )


def test_nothing_is_said_where_no_row_is_left_out(root, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    read_all(read, "train", root=root, bad_rows=tmp_path / "bad_rows.jsonl")
    assert (tmp_path / "bad_rows.jsonl").read_text() == ""
    assert not caplog.records


def test_a_set_of_bad_rows_only_is_refused_all_the_same(root, tmp_path):
    write(root / "llava_v1_5_mix665k.json", [5, 6])
    assert "no row that can be used" in refusal(read, "train", root=root, bad_rows=tmp_path / "bad_rows.jsonl")


def test_bad_rows_must_be_a_file_that_can_be_written(root, tmp_path):
    with pytest.raises(ConfigError, match=r"bad_rows: .* cannot be written"):
        list(read("train", root=root, bad_rows=tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"id": "x"}', ": expected a list of {"),
        ("a.json", b"[]", ": no row that can be used"),
        ("a.json", b'[{"id": ', ": broken JSON at line 1, column 9"),
        ("a.json", b'["\xff"]', ": not UTF-8 at byte 2"),
        ("a.jsonl", b'{"id": "x"}\n\n{"id": \n', ": broken JSON at line 3, column 8"),
        ("a.jsonl", b"", ": no row that can be used"),
    ],
)
def test_files_that_are_not_what_they_are_called(tmp_path, name, content, message):
    write(tmp_path / name, content)
    assert refusal(read, "train", root=tmp_path).startswith(f"{tmp_path}/{name}{message}")


@pytest.mark.parametrize("paths", [{}, {"annotations": "a.json"}, {"images": "."}])
def test_too_few_paths(paths):
    with pytest.raises(ConfigError, match="give "):
        list(read("train", **paths))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_photos(root, *PHOTOS)
    return root


@FUZZ
@given(
    content=mutated(MIX) | damaged(json.dumps(MIX).encode()) | damaged("\n".join(map(json.dumps, MIX)).encode()),
    suffix=st.sampled_from(["json", "jsonl"]),
    set_aside=st.booleans(),
)
def test_whatever_stands_in_the_file(fuzzed, content, suffix, set_aside):
    file = fuzzed / f"mix.{suffix}"
    if isinstance(content, list) and suffix == "jsonl":
        content = "\n".join(map(json.dumps, content)).encode()
    write(file, content)
    more = {"bad_rows": fuzzed / "bad"} if set_aside else {}
    read_or_refuse(read, "train", root=fuzzed, annotations=file, **more)
