import csv
import json
import zipfile

import pytest
from examples import FUZZ, colour, damaged, png
from hypothesis import given
from hypothesis import strategies as st
from reader_checks import evaluate

from hf_llava_vqa.data import get_benchmark, load_records
from hf_llava_vqa.data.benchmarks.dacon import read, submit
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.records import validate_record

TRAIN = """ID,image_id,question,answer
TRAIN_000000,train_000001,What is the man doing?,surfing
TRAIN_000001,train_000000,"Is it red, or blue?",red
TRAIN_000002,train_000001,"He said ""hi"",
twice?",yes
TRAIN_000003,train_000002,몇 개입니까?,2
"""
TEST = "ID,image_id,question\nTEST_0,test_00001,Why?\nTEST_1,test_00000,What is this?\nTEST_2,test_00001,Who?\n"
SAMPLE = "ID,answer\nTEST_2,yes\nTEST_0,yes\nTEST_1,yes\n"


def write_set(root, suffix=".png"):
    for split, count in (("train", 3), ("test", 2)):
        folder = root / "image" / split
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{split}_{number:0{6 if split == 'train' else 5}d}{suffix}").write_bytes(png(colour(number)))
    (root / "train.csv").write_text(TRAIN)
    (root / "test.csv").write_text(TEST)
    (root / "sample_submission.csv").write_text(SAMPLE)


def zip_up(root):
    """Make what the site offers for download of the folder."""
    with zipfile.ZipFile(root / "open.zip", "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.name != "open.zip":
                archive.write(path, path.relative_to(root))
                path.unlink()
    for name in ("image/train", "image/test", "image"):
        (root / name).rmdir()


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "dacon")
    return tmp_path / "dacon"


def refused(root, split="train", **paths):
    with pytest.raises(RecordError) as caught:
        list(read(split, root=root, **paths))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def asked(records):
    return [
        (record["image_id"], [(d["id"], d["turns"][0]["content"]) for d in record["dialogues"]]) for record in records
    ]


# What is read


def test_questions_of_one_image_are_one_record_in_order_of_first_appearance(root):
    records = list(read("train", root=root))
    for record in records:
        validate_record(record)
        assert (record["source"], record["split"]) == ("dacon", "train")
    assert asked(records) == [
        ("train_000001", [("TRAIN_000000", "What is the man doing?"), ("TRAIN_000002", 'He said "hi",\ntwice?')]),
        ("train_000000", [("TRAIN_000001", "Is it red, or blue?")]),
        ("train_000002", [("TRAIN_000003", "몇 개입니까?")]),
    ]
    assert [d["answers"] for d in records[0]["dialogues"]] == [
        [{"answer": "surfing", "answer_confidence": ""}],
        [{"answer": "yes", "answer_confidence": ""}],
    ]
    assert records[1]["images"] == [{"bytes": None, "path": f"{root}/image/train/train_000000.png"}]


def test_the_test_split_has_no_answers(root):
    records = list(read("test", root=root))
    assert asked(records) == [
        ("test_00001", [("TEST_0", "Why?"), ("TEST_2", "Who?")]),
        ("test_00000", [("TEST_1", "What is this?")]),
    ]
    assert all(d["answers"] == [] for record in records for d in record["dialogues"])


def test_the_download_is_read_without_unpacking(root):
    loose = list(read("train", root=root))
    pixels = [open_image(record["images"][0]).tobytes() for record in loose]
    zip_up(root)
    zipped = list(read("train", root=root))
    assert zipped[0]["images"][0]["path"] == f"zip://image/train/train_000001.png::{root}/open.zip"
    assert [open_image(record["images"][0]).tobytes() for record in zipped] == pixels
    for record in loose + zipped:
        record["images"] = []
    assert zipped == loose


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images_may_lie_elsewhere_and_be_jpegs(tmp_path, suffix):
    write_set(tmp_path, suffix)
    (tmp_path / "image" / "train").rename(tmp_path / "train")
    (first, *_) = read("train", root=tmp_path)
    assert first["images"][0]["path"] == f"{tmp_path}/train/train_000001{suffix}"
    (tmp_path / "train").rename(tmp_path / "photos")
    (tmp_path / "train.csv").rename(tmp_path / "questions.csv")
    (first, *_) = read("train", annotations=tmp_path / "questions.csv", images=tmp_path / "photos")
    assert first["images"][0]["path"] == f"{tmp_path}/photos/train_000001{suffix}"


def test_columns_are_found_by_name(root):
    (root / "train.csv").write_bytes(
        b"\xef\xbb\xbfanswer,Level,IMAGE_ID, id ,Question\r\nred,easy,train_000000,A,Which?\r\n\r\n"
    )
    (record,) = read("train", root=root)
    (dialogue,) = record["dialogues"]
    assert asked([record]) == [("train_000000", [("A", "Which?")])]
    assert dialogue["answers"][0]["answer"] == "red"
    assert json.loads(dialogue["metadata"]) == {"Level": "easy"}


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": an empty file; expected CSV with a header"),
        ("ID,image_id,question\n", ", line 1: no column answer; expected ID, image_id, question, answer, found ID, im"),
        ("ID,image_id,question,answer,id\n", ", line 1: two columns are called id; rename or remove one"),
        ("ID,image_id,question,answer\n", ": no rows under the header; download it again"),
        (TRAIN + "A,train_000000,Why?\n", ", line 7: 3 fields under a header of 4; quote fields that hold commas"),
        (TRAIN + "A,train_000000,Why, so?,no\n", ", line 7: 5 fields under a header of 4"),
        (TRAIN + 'A,train_000000,"Why?,no\n', ", line 7: broken CSV: unexpected end of data"),
        (TRAIN + 'A,train_000000,"Why"?,no\n', ", line 7: broken CSV: "),
        (TRAIN + f"A,train_000000,{'why' * 50_000},no\n", ", line 7: broken CSV: field larger than field limit"),
        (TRAIN + "TRAIN_000001,train_000000,Why?,no\n", ", line 7: id TRAIN_000001 stands in "),
        (TRAIN + ",train_000000,Why?,no\n", ", line 7: ID is empty; fill it in or remove the row"),
        (TRAIN + "A,,Why?,no\n", ", line 7: image_id is empty"),
        (TRAIN + "A,train_000000, ,no\n", ", line 7: question is empty"),
        (TRAIN + "A,train_000000,Why?,\n", ", line 7: answer is empty"),
        (TRAIN + "A,train_000009,Why?,no\n", ", line 7: image train_000009.png is not in "),
        (TRAIN + "A,../train/train_000000,Why?,no\n", ", line 7: unsafe name '../train/train_000000.png'"),
    ],
)
def test_mistakes_are_placed(root, text, message):
    (root / "train.csv").write_text(text)
    assert refused(root).startswith(f"{root}/train.csv{message}")


@pytest.mark.parametrize(("encoding", "line"), [("cp949", 6), ("utf-16", 1)])
def test_another_encoding_is_placed(root, encoding, line):
    (root / "train.csv").write_bytes(TRAIN.encode(encoding))
    message = refused(root)
    assert message.startswith(f"{root}/train.csv: not UTF-8 at byte ")
    assert message.endswith(f" (line {line}); save it as UTF-8")


def test_missing_images_are_counted(root):
    for number in (1, 2):
        (root / "image" / "train" / f"train_{number:06d}.png").unlink()
    message = refused(root)
    assert message.startswith(f"{root}/train.csv, line 2: image train_000001.png is not in {root}/image/train (2 of 3 ")


def test_missing_files(root, tmp_path):
    with pytest.raises(ConfigError, match="give root"):
        list(read("train"))
    (root / "train.csv").unlink()
    assert refused(root).startswith(f"{root}: no train.csv or open.zip holding it; download the annotations into it")
    assert refused(None, annotations=tmp_path / "no.csv", images=root).endswith("no.csv: no such annotation file")
    assert refused(root, annotations=root / "test.csv", images=tmp_path / "no").endswith(
        "/no: no such folder, zip or tar archive of images"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({8: b"\x00\x08", 46: b"\xff"}, "{root}/open.zip: not a readable zip archive"),  # a name said to be UTF-8
        ({6: b"\xff\x00"}, "{root}/open.zip: not a readable zip archive"),  # a version of the format yet to come
        ({8: b"\x01\x00"}, "zip://train.csv::{root}/open.zip: cannot be read: "),  # encrypted
        ({10: b"\x63\x00"}, "zip://train.csv::{root}/open.zip: cannot be read: "),  # an unknown compression
    ],
)
def test_an_archive_that_zipfile_does_not_read(root, changes, message):
    zip_up(root)
    data = bytearray((root / "open.zip").read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # train.csv is the last member
    for offset, new in changes.items():
        data[entry + offset : entry + offset + len(new)] = new
    (root / "open.zip").write_bytes(data)
    assert refused(root).startswith(message.format(root=root))


# Submission


def predictions(**answers):
    return [{"id": id, "image_id": "", "answer": answer} for id, answer in answers.items()]


def test_a_submission_is_joined_by_id_in_the_order_of_the_sample(root, tmp_path):
    (root / "sample_submission.csv").write_text("id,Answer,memo\nTEST_2,yes,a\nTEST_0,yes,\nTEST_1,yes,c\n")
    path = tmp_path / "out" / "submission.csv"
    submit(predictions(TEST_0="a, b", TEST_1='"', TEST_2="돌고래"), path, f"{root}/sample_submission.csv")
    assert path.read_bytes().decode() == 'id,Answer,memo\nTEST_2,돌고래,a\nTEST_0,"a, b",\nTEST_1,"""",c\n'


@pytest.mark.parametrize(
    ("answered", "message"),
    [
        (predictions(), "no prediction for ID TEST_2 (3 of 3 are missing); answer all of its split"),
        (predictions(TEST_0="", TEST_2=""), "no prediction for ID TEST_1 (1 of 3 are missing)"),
        (predictions(TEST_0="", TEST_1="", TEST_2="", TRAIN_3=""), "no ID TRAIN_3, which was predicted"),
        (predictions(TEST_0="") * 2, "two predictions for TEST_0: a question is answered once"),
    ],
)
def test_what_cannot_be_submitted(root, tmp_path, answered, message):
    with pytest.raises(RecordError) as caught:
        submit(answered, tmp_path / "s.csv", f"{root}/sample_submission.csv")
    assert message in str(caught.value)
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (None, "no such annotation file"),
        ("ID\nTEST_0\n", "line 1: no column answer"),
        (SAMPLE + "TEST_0,yes\n", "ID TEST_0 stands there 2 times; download the file again"),
    ],
)
def test_a_sample_of_another_shape(root, tmp_path, sample, message):
    (root / "sample_submission.csv").unlink()
    if sample is not None:
        (root / "sample_submission.csv").write_text(sample)
    with pytest.raises(RecordError) as caught:
        submit(predictions(TEST_0="", TEST_1="", TEST_2=""), tmp_path / "s.csv", f"{root}/sample_submission.csv")
    assert str(caught.value).startswith(f"{root}/sample_submission.csv")
    assert message in str(caught.value)


def test_from_the_download_to_a_submission(root, tmp_path):
    benchmark = get_benchmark("dacon")
    answered = [
        {"id": dialogue["id"], "image_id": row["image_id"], "answer": dialogue["turns"][0]["content"]}
        for row in load_records("dacon", split="test", root=root)
        for dialogue in row["dialogues"]
    ]
    zip_up(root)
    benchmark.submit(answered, tmp_path / "s.csv", benchmark.find_template(root))
    with (tmp_path / "s.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            *(["ID", "answer"], ["TEST_2", "Who?"], ["TEST_0", "Why?"], ["TEST_1", "What is this?"])
        ]


def test_from_files_to_the_score(root, tmp_path):
    answers = {"TRAIN_000000": "Surfing.", "TRAIN_000001": "blue", "TRAIN_000002": "yes", "TRAIN_000003": "two"}
    entry = evaluate("dacon", load_records("dacon", split="train", root=root), answers, tmp_path)
    assert entry["score"] == 0.75


def test_from_files_to_the_submission(root, tmp_path):
    answers = {"TEST_0": "a, b", "TEST_1": "돌고래", "TEST_2": ""}
    records = load_records("dacon", split="test", root=root)
    assert evaluate("dacon", records, answers, tmp_path, root) == {}
    with (tmp_path / "submission.csv").open(newline="", encoding="utf-8-sig") as file:
        assert list(csv.reader(file)) == [["ID", "answer"], ["TEST_2", ""], ["TEST_0", "a, b"], ["TEST_1", "돌고래"]]


# Fuzz


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


def records_or_one_line(split, **paths):
    message = ""
    try:
        for record in read(split, **paths):
            validate_record(record)
    except RecordError as error:
        message = str(error)
    assert "\n" not in message


@FUZZ
@given(data=damaged(TRAIN.encode()))
def test_any_file(fuzzed, data):
    (fuzzed / "any.csv").write_bytes(data)
    records_or_one_line("train", annotations=fuzzed / "any.csv", images=fuzzed / "image" / "train")


field = st.sampled_from(["train_000000", "train_000001", "", "a", "..", "/", "\0", "ID", '"', "\n"]) | st.text(
    max_size=3
)


@FUZZ
@given(
    header=st.lists(st.sampled_from(["ID", "image_id", "question", "answer", "x"]), max_size=6)
    | st.permutations(["ID", "image_id", "question", "answer"]),
    rows=st.lists(st.lists(field, min_size=3, max_size=5), max_size=4),
    split=st.sampled_from(["train", "test"]),
)
def test_any_table(fuzzed, header, rows, split):
    with (fuzzed / "table.csv").open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([header, *rows])
    records_or_one_line(split, annotations=fuzzed / "table.csv", images=fuzzed / "image" / "train")


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """A folder with `open.zip`, and the bytes of that file."""
    root = tmp_path_factory.mktemp("download")
    write_set(root)
    zip_up(root)
    return root, (root / "open.zip").read_bytes()


@FUZZ
@given(data=st.data())
def test_any_archive(download, data):
    root, archive = download
    (root / "open.zip").write_bytes(data.draw(damaged(archive)))
    records_or_one_line("train", root=root)
