import json
import os
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_checks import evaluate, golden_answers, golden_json, predictions_of

from hf_llava_vqa.data import get_benchmark, load_records
from hf_llava_vqa.data.benchmarks.vizwiz import read, submit, submit_answerability
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.records import validate_record


def rows_of(root, split="train"):
    return json.loads((root / f"{split}.json").read_text())


def write_rows(root, rows, split="train"):
    (root / f"{split}.json").write_text(json.dumps(rows))


def refused(root, split="train", **paths):
    with pytest.raises(RecordError) as caught:
        list(read(split, root=root, **paths))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is read


def test_the_published_folder(vizwiz_root):
    records = list(read("train", root=vizwiz_root))
    for record in records:
        validate_record(record)
    assert [record["image_id"] for record in records] == [f"VizWiz_train_{n:08d}.jpg" for n in range(5)]
    path = f"{vizwiz_root}/train/VizWiz_train_00000000.jpg"
    assert records[0] == {
        "schema_version": 1,
        "image_id": "VizWiz_train_00000000.jpg",
        "images": [{"bytes": None, "path": path}],
        "image_sha256": [],
        "source": "vizwiz",
        "split": "train",
        "dialogues": [
            {
                "id": "VizWiz_train_00000000",
                "turns": [{"role": "user", "content": "What is number 0?"}],
                "answers": [{"answer": "cup", "answer_confidence": "yes"}] * 9
                + [{"answer": "mug", "answer_confidence": "yes"}],
                "answer_type": "other",
                "answerable": 1,
                "choices": [],
                "context": "",
                "metadata": "{}",
            }
        ],
    }


def test_the_test_split_has_no_answers(vizwiz_root):
    for record in read("test", root=vizwiz_root):
        (dialogue,) = record["dialogues"]
        assert (dialogue["answers"], dialogue["answer_type"], dialogue["answerable"]) == ([], "", -1)


def zip_up(root):
    """Turn a folder of loose files into what the site offers for download."""
    with zipfile.ZipFile(root / "Annotations.zip", "w") as file:
        for split in ("train", "val", "test"):
            file.write(root / f"{split}.json", f"Annotations/{split}.json")
            (root / f"{split}.json").unlink()
    for split in ("train", "val", "test"):
        with zipfile.ZipFile(root / f"{split}.zip", "w") as file:
            file.mkdir(split)
            for image in sorted((root / split).iterdir()):
                file.write(image, f"{split}/{image.name}")
                file.writestr(f"__MACOSX/{split}/._{image.name}", b"")
                image.unlink()
        (root / split).rmdir()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_zip_files_as_downloaded_give_the_same_records(vizwiz_root, split):
    loose = list(read(split, root=vizwiz_root))
    pixels = [open_image(record["images"][0]).tobytes() for record in loose]
    zip_up(vizwiz_root)
    zipped = list(read(split, root=vizwiz_root))
    assert [open_image(record["images"][0]).tobytes() for record in zipped] == pixels
    first = loose[0]["image_id"]
    assert zipped[0]["images"][0]["path"] == f"zip://{split}/{first}::{vizwiz_root}/{split}.zip"
    for record in loose + zipped:
        record["images"] = []
    assert zipped == loose


def test_files_may_be_named_one_by_one(vizwiz_root, tmp_path):
    records = list(read("val", root=vizwiz_root))
    (vizwiz_root / "val").rename(tmp_path / "photos")
    (vizwiz_root / "val.json").rename(tmp_path / "questions.json")
    moved = list(read("val", annotations=str(tmp_path / "questions.json"), images=tmp_path / "photos"))
    assert [r["dialogues"] for r in moved] == [r["dialogues"] for r in records]
    assert moved[0]["images"][0]["path"] == f"{tmp_path}/photos/VizWiz_val_00000000.jpg"
    assert (
        list(read("val", root=vizwiz_root, annotations=tmp_path / "questions.json", images=tmp_path / "photos"))
        == moved
    )


def test_annotations_in_their_folder_and_images_below_it(vizwiz_root):
    (vizwiz_root / "Annotations").mkdir()
    rows = rows_of(vizwiz_root)
    for row in rows:
        row["image"] = f"train/{row['image']}"
    (vizwiz_root / "Annotations" / "train.json").write_text(json.dumps(rows))
    (vizwiz_root / "train.json").unlink()
    records = list(read("train", root=vizwiz_root, images=vizwiz_root))
    assert records[1]["images"][0]["path"] == f"{vizwiz_root}/train/VizWiz_train_00000001.jpg"
    assert records[1]["dialogues"][0]["id"] == "train/VizWiz_train_00000001"


def test_paths_are_absolute_whatever_the_working_folder(vizwiz_root, monkeypatch):
    monkeypatch.chdir(vizwiz_root.parent)
    for record in read("train", root="vizwiz"):
        assert os.path.isabs(record["images"][0]["path"])


def test_questions_of_one_image_become_one_record(vizwiz_root):
    rows = rows_of(vizwiz_root)
    rows = [rows[2], rows[0], {**rows[2], "question": "And this?"}, rows[1], {**rows[2], "question": "Why?"}]
    write_rows(vizwiz_root, rows)
    records = list(read("train", root=vizwiz_root))
    assert [record["image_id"][-5] for record in records] == ["2", "0", "1"]
    asked = [(d["id"][-4:], d["turns"][0]["content"]) for d in records[0]["dialogues"]]
    assert asked == [("02#0", "What is number 2?"), ("02#1", "And this?"), ("02#2", "Why?")]
    assert records[1]["dialogues"][0]["id"] == "VizWiz_train_00000000"


def test_unpublished_keys_are_kept(vizwiz_root):
    rows = rows_of(vizwiz_root)
    rows[0] |= {"text_detected": True, "note": "né"}
    write_rows(vizwiz_root, rows)
    metadata = next(read("train", root=vizwiz_root))["dialogues"][0]["metadata"]
    assert json.loads(metadata) == {"text_detected": True, "note": "né"}


def test_a_byte_order_mark_and_raw_text_are_kept_apart(vizwiz_root):
    rows = rows_of(vizwiz_root)
    rows[0]["question"] = "  ¿Qué es <image>?\n"
    (vizwiz_root / "train.json").write_bytes(json.dumps(rows, ensure_ascii=False).encode("utf-8-sig"))
    question = next(read("train", root=vizwiz_root))["dialogues"][0]["turns"][0]["content"]
    assert question == "  ¿Qué es <image>?\n"


@given(
    order=st.permutations([0, 0, 0, 1, 1, 2, 3]),
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=10),
)
def test_every_question_and_answer_arrives_exactly_once(tmp_path_factory, order, texts):
    root = tmp_path_factory.mktemp("set")
    (root / "train").mkdir()
    rows = []
    for number, image in enumerate(order):
        (root / "train" / f"{image}.jpg").touch()
        answers = [{"answer": text, "answer_confidence": "no"} for text in texts]
        rows.append({"image": f"{image}.jpg", "question": f"{number}?", "answers": answers})
    write_rows(root, rows)
    records = list(read("train", root=root))
    arrived = {
        (record["image_id"], dialogue["turns"][0]["content"]) for record in records for dialogue in record["dialogues"]
    }
    assert arrived == {(row["image"], row["question"]) for row in rows}
    dialogues = [dialogue for record in records for dialogue in record["dialogues"]]
    assert len({dialogue["id"] for dialogue in dialogues}) == len(rows)
    assert all([a["answer"] for a in dialogue["answers"]] == texts for dialogue in dialogues)


# What is refused: files


def test_missing_paths(vizwiz_root, tmp_path):
    for paths in ({}, {"annotations": "a.json"}, {"images": "a"}):
        with pytest.raises(ConfigError, match=r"give root .*, or both annotations and images"):
            list(read("train", **paths))
    assert refused(tmp_path / "no") == f"{tmp_path}/no: no such folder"
    assert (
        refused(None, annotations=tmp_path / "a.json", images=vizwiz_root)
        == f"{tmp_path}/a.json: no such annotation file"
    )
    message = refused(None, annotations=vizwiz_root / "train.json", images=tmp_path / "no")
    assert message == f"{tmp_path}/no: no such folder, zip or tar archive of images"
    assert "cannot be read" in refused(None, annotations=vizwiz_root / "train", images=vizwiz_root / "train")


def test_missing_files_of_a_split(vizwiz_root):
    (vizwiz_root / "train.json").unlink()
    message = refused(vizwiz_root)
    assert message.startswith(f"{vizwiz_root}: no train.json, Annotations/train.json or Annotations.zip holding it")
    assert message.endswith("download the annotations into it, or name the file as annotations")
    (vizwiz_root / "val").rename(vizwiz_root / "other")
    message = refused(vizwiz_root, "val")
    assert message.startswith(f"{vizwiz_root}: no folder val and no val.zip or val.tar; download the images")


def test_an_archive_without_the_split(vizwiz_root):
    zip_up(vizwiz_root)
    with zipfile.ZipFile(vizwiz_root / "Annotations.zip", "w") as file:
        file.writestr("Annotations/constrain.json", "[]")
    assert "no train.json" in refused(vizwiz_root)


@pytest.mark.parametrize("name", ["Annotations.zip", "train.zip"])
def test_a_broken_archive(vizwiz_root, name):
    zip_up(vizwiz_root)
    data = (vizwiz_root / name).read_bytes()
    (vizwiz_root / name).write_bytes(data[: len(data) // 2])
    assert refused(vizwiz_root).startswith(f"{vizwiz_root}/{name}: not a readable zip archive")


def test_broken_json_is_placed(vizwiz_root):
    (vizwiz_root / "train.json").write_text('[\n {"image": }\n]')
    message = refused(vizwiz_root)
    assert message.startswith(f"{vizwiz_root}/train.json: broken JSON at line 2, column 12: Expecting value")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe[\0", "not UTF-8 at byte 0 (line 1); save it as UTF-8"),
        (b"[" * 100_000, "JSON that cannot be read"),
        (b"[" + b"9" * 10_000 + b"]", "JSON that cannot be read"),
        (b"", "broken JSON at line 1, column 1"),
        (b"[]", "found an empty list"),
        (b"{}", "expected a JSON list of"),
        (b'"train"', "found a string"),
        (b"3", "found a number"),
        (b'{"image": {"0": "a.jpg"}}', "a column-oriented file; read it with the source vizwiz_competition"),
    ],
)
def test_a_file_of_another_shape(vizwiz_root, data, message):
    (vizwiz_root / "train.json").write_bytes(data)
    assert refused(vizwiz_root).startswith(f"{vizwiz_root}/train.json: ")
    assert message in refused(vizwiz_root)


# What is refused: rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("image"), "image must be a string, found nothing; expected {"),
        (lambda row: row.update(image=7), "image must be a string, found a number"),
        (lambda row: row.update(image=""), "image is empty"),
        (lambda row: row.pop("question"), "question must be a string, found nothing"),
        (lambda row: row.update(question=None), "question must be a string, found null"),
        (lambda row: row.update(question=" \t"), "question is empty; fill it in or remove the row"),
        (lambda row: row.update(question="\ud83d"), "a broken character"),
        (lambda row: row.pop("answers"), "no answers; read a file without answers as split test or valid"),
        (lambda row: row.update(answers=[]), "no answers"),
        (lambda row: row.update(answers="cup"), "answers must be a list, found a string"),
        (lambda row: row.update(answers=None), "answers must be a list, found null"),
        (lambda row: row["answers"].insert(2, "cup"), "answer 2 must be an object, found a string; expected {"),
        (lambda row: row["answers"].insert(2, {}), "answer 2: answer must be a string, found nothing"),
        (lambda row: row["answers"][4].update(answer=3), "answer 4: answer must be a string, found a number"),
        (
            lambda row: row["answers"][4].update(answer_confidence=None),
            "answer 4: answer_confidence must be a string, found null",
        ),
        (lambda row: row.update(answer_type=1), "answer_type must be a string, found a number"),
        (lambda row: row.update(answerable="yes"), "answerable must be 1 or 0, found 'yes'"),
    ],
)
def test_a_row_of_another_shape_is_named(vizwiz_root, change, message):
    rows = rows_of(vizwiz_root)
    change(rows[3])
    write_rows(vizwiz_root, rows)
    assert refused(vizwiz_root).startswith(f"{vizwiz_root}/train.json, row 3: {message}")


def test_a_row_that_is_no_object(vizwiz_root):
    write_rows(vizwiz_root, [*rows_of(vizwiz_root), ["a.jpg", "What?"]])
    assert refused(vizwiz_root) == (
        f'{vizwiz_root}/train.json, row 5: expected {{"image", "question", '
        '"answers": [{"answer", "answer_confidence"}]}, found a list'
    )


def test_answers_given_in_the_test_split_are_checked_and_kept(vizwiz_root):
    rows = rows_of(vizwiz_root, "test")
    rows[1]["answers"] = [{"answer": "cup"}]
    write_rows(vizwiz_root, rows, "test")
    records = list(read("test", root=vizwiz_root))
    assert records[1]["dialogues"][0]["answers"] == [{"answer": "cup", "answer_confidence": ""}]
    rows[1]["answers"] = ["cup"]
    write_rows(vizwiz_root, rows, "test")
    assert "row 1: answer 0 must be an object" in refused(vizwiz_root, "test")


# What is refused: images


@pytest.mark.parametrize("zipped", [False, True])
def test_missing_images_are_counted_before_the_first_record(vizwiz_root, zipped):
    for number in (1, 4):
        (vizwiz_root / "train" / f"VizWiz_train_{number:08d}.jpg").unlink()
    if zipped:
        zip_up(vizwiz_root)
    place = f"{vizwiz_root}/train.zip" if zipped else f"{vizwiz_root}/train"
    message = refused(vizwiz_root)
    assert ", row 1: image VizWiz_train_00000001.jpg is not in " in message
    assert f"is not in {place} (2 of 5 images are missing); add them" in message


def test_odd_names_are_read_and_shown_in_one_line(vizwiz_root):
    rows = rows_of(vizwiz_root)
    rows[0]["image"] = "Screenshot 3.00\u202fPM.png"
    rows[1]["image"] = "two\nlines.jpg"
    write_rows(vizwiz_root, rows)
    (vizwiz_root / "train" / rows[0]["image"]).touch()
    assert "row 1: image 'two\\nlines.jpg' is not in" in refused(vizwiz_root)
    (vizwiz_root / "train" / rows[1]["image"]).touch()
    assert [record["image_id"] for record in read("train", root=vizwiz_root)] == [row["image"] for row in rows]


@pytest.mark.parametrize("name", [".", "/", "../secret.jpg", "/etc/hostname", "train/../../secret.jpg", "a\0.jpg"])
def test_images_outside_the_folder_are_refused(vizwiz_root, name):
    (vizwiz_root / "secret.jpg").touch()
    rows = rows_of(vizwiz_root)
    rows[2]["image"] = name
    write_rows(vizwiz_root, rows)
    assert refused(vizwiz_root).startswith(f"{vizwiz_root}/train.json, row 2: unsafe name")


def test_links_out_of_the_folder_are_refused(vizwiz_root, tmp_path):
    image = vizwiz_root / "train" / "VizWiz_train_00000002.jpg"
    image.rename(tmp_path / "elsewhere.jpg")
    image.symlink_to(tmp_path / "elsewhere.jpg")
    assert "row 2: unsafe name 'VizWiz_train_00000002.jpg': it leads out of" in refused(vizwiz_root)


def test_links_within_the_folder_are_followed(vizwiz_root):
    image = vizwiz_root / "train" / "VizWiz_train_00000002.jpg"
    image.rename(vizwiz_root / "train" / "real.jpg")
    image.symlink_to("real.jpg")
    assert len(list(read("train", root=vizwiz_root))) == 5


def test_an_ambiguous_archive_is_refused(vizwiz_root):
    zip_up(vizwiz_root)
    with zipfile.ZipFile(vizwiz_root / "train.zip", "a") as file:
        file.writestr("old/VizWiz_train_00000003.jpg", b"")
    message = refused(vizwiz_root)
    assert "row 3: " in message
    assert "VizWiz_train_00000003.jpg could be train/VizWiz_train_00000003.jpg or old/" in message


def test_names_that_differ_in_their_suffix_only(vizwiz_root):
    rows = rows_of(vizwiz_root)
    rows.append({**rows[0], "image": "VizWiz_train_00000000.png"})
    write_rows(vizwiz_root, rows)
    (vizwiz_root / "train" / "VizWiz_train_00000000.png").touch()
    message = refused(vizwiz_root)
    assert "row 5: VizWiz_train_00000000.png and VizWiz_train_00000000.jpg differ in their suffix only" in message


# Submission


def test_the_submission_file(tmp_path):
    predictions = [
        {"id": "VizWiz_test_00000001", "image_id": "VizWiz_test_00000001.jpg", "answer": "café", "confidence": 0.5},
        {"id": "VizWiz_test_00000000", "image_id": "VizWiz_test_00000000.jpg", "answer": "", "confidence": 0.1},
    ]
    get_benchmark("vizwiz").submit(predictions, tmp_path / "out" / "submission.json")
    assert json.loads((tmp_path / "out" / "submission.json").read_text()) == [
        {"image": "VizWiz_test_00000001.jpg", "answer": "café"},
        {"image": "VizWiz_test_00000000.jpg", "answer": ""},
    ]


def test_a_submission_answers_each_image_once(tmp_path):
    prediction = {"id": "a", "image_id": "a.jpg", "answer": "cup"}
    with pytest.raises(RecordError, match=r"two predictions for a\.jpg: a submission holds one answer per image"):
        submit([prediction, prediction], tmp_path / "s.json")
    with pytest.raises(RecordError, match="there are no predictions"):
        submit([], tmp_path / "s.json")
    assert not (tmp_path / "s.json").exists()


def test_from_files_to_the_score(vizwiz_root, tmp_path):
    names = [row["image"].removesuffix(".jpg") for row in rows_of(vizwiz_root, "val")]
    answers = dict(zip(names, ["Cup.", "mug", "glass"], strict=True))  # nine people say cup, one says mug
    entry = evaluate("vizwiz", load_records("vizwiz", split="val", root=vizwiz_root), answers, tmp_path)
    assert entry["score"] == pytest.approx((1 + 0.3 + 0) / 3)
    assert (entry["by"], entry["ceiling"]) == ({"other": pytest.approx(entry["score"])}, 1)


def test_from_files_to_the_servers_file(vizwiz_root, tmp_path):
    names = [row["image"] for row in rows_of(vizwiz_root, "test")]
    answers = {name.removesuffix(".jpg"): f"The cup {number}." for number, name in enumerate(names)}
    assert evaluate("vizwiz", load_records("vizwiz", split="test", root=vizwiz_root), answers, tmp_path) == {}
    submitted = json.loads((tmp_path / "submission.json").read_text())
    assert submitted == [{"image": name, "answer": f"cup {number}"} for number, name in enumerate(names)]


def test_the_servers_file_is_that_of_llava(tmp_path):
    answers = golden_answers("vizwiz")
    asked = golden_json("vizwiz_questions.jsonl")
    submit(predictions_of({row["image"]: answers[row["question_id"]] for row in asked}), tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text()) == golden_json("vizwiz_expected.json")


def how_answerable(**confidences):
    return [{"id": name, "image_id": f"{name}.jpg", "answerable": value} for name, value in confidences.items()]


def test_the_file_of_the_second_task(tmp_path):
    submit_answerability(how_answerable(b=0.25, a=1.0), tmp_path / "out" / "s.json", ["a.jpg", "b.jpg"])
    assert json.loads((tmp_path / "out" / "s.json").read_text()) == [
        {"image": "a.jpg", "answerable": 1.0},
        {"image": "b.jpg", "answerable": 0.25},
    ]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([], "there are no predictions to submit"),
        (how_answerable(a=0.5) * 2, r"two predictions for a\.jpg"),
        (how_answerable(a=0.5), r"no prediction for b\.jpg \(1 of 2 are missing\); answer the whole split"),
        (how_answerable(a=0.5, b=0.5, c=0.5), r"c\.jpg was predicted and is not in the split"),
        (how_answerable(a=0.5, b=1.5), r"b\.jpg: answerable is 1\.5; it must be a confidence from 0 to 1"),
        (how_answerable(a=0.5, b=float("nan")), r"b\.jpg: answerable is nan"),
    ],
)
def test_what_cannot_be_submitted_to_the_second_task(tmp_path, predictions, message):
    with pytest.raises(RecordError, match=message):
        submit_answerability(predictions, tmp_path / "s.json", ["a.jpg", "b.jpg"])
    assert not (tmp_path / "s.json").exists()
