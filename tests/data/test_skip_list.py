"""Skip lists: what is read back from them, which records they leave out, and what is refused."""

import json
import logging

import pytest
from datasets import Dataset
from examples import dataset, question, record
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.reading.missing import keep_missing_images
from hf_llava_vqa.data.skip_list import Skipped, leave_out, load_folder_without, read_skip_list, write_skip_list
from hf_llava_vqa.errors import ConfigError, MissingImageError, RecordError
from hf_llava_vqa.images import open_image

RECORDS = dataset([record(name, [question(f"{name}.0")]) for name in ("a", "b", "c")])


@pytest.fixture
def listed(tmp_path):
    def write(text):
        path = tmp_path / "skip_list.txt"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_reason_and_split_may_be_left_out(listed):
    path = listed("a.jpg\nb.jpg\tcorrupt\n\nc.jpg\tleaked\ttrain\r\nd.jpg\t\tval\n")
    assert read_skip_list(path) == {"a.jpg": "", "b.jpg": "corrupt", "c.jpg": "leaked", "d.jpg": ""}
    assert list(read_skip_list(path, split="train")) == ["a.jpg", "b.jpg", "c.jpg"]
    assert list(read_skip_list(path, split="val")) == ["a.jpg", "b.jpg", "d.jpg"]


def test_the_first_reason_of_an_id_counts(listed):
    assert read_skip_list(listed("a\tcorrupt\na\tleaked\n")) == {"a": "corrupt"}


def test_an_empty_list_leaves_nothing_out(listed):
    assert read_skip_list(listed("")) == {}


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(str.strip)


@given(st.lists(st.builds(Skipped, texts, texts | st.just(""), texts | st.just("")), unique_by=lambda line: line[0]))
def test_what_is_written_is_read(tmp_path_factory, skipped):
    path = tmp_path_factory.getbasetemp() / "written.txt"
    write_skip_list(path, skipped)
    assert read_skip_list(path) == {line.image_id: line.reason for line in skipped}


def test_a_plain_id_is_written_as_it_is(tmp_path):
    write_skip_list(tmp_path / "list", [Skipped("a photo, 1.jpg", "corrupt", "train")])
    assert (tmp_path / "list").read_bytes() == b"a photo, 1.jpg\tcorrupt\ttrain\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n\tcorrupt\n", "line 2: .*corrupt is not an image id, and after tabs a reason and a split"),
        ("a\tb\tc\td\n", "line 1: a b c d is not an image id"),
        (b"\xff\n", "not UTF-8 at byte 0"),
        ('a\n"b\n', "line 2: unexpected end of data; write an image id"),
    ],
)
def test_a_line_of_another_shape_is_refused(listed, text, message):
    with pytest.raises(RecordError, match=message):
        read_skip_list(listed(text))


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"gone\.txt: no such"):
        read_skip_list(tmp_path / "gone.txt")


def test_records_are_left_out_and_counted(caplog):
    with caplog.at_level(logging.WARNING):
        left = leave_out(RECORDS, {"a": "corrupt", "c": "", "of another split": "leaked"})
    assert left["image_id"] == ["b"]
    (line,) = caplog.messages
    assert line == f"split {RECORDS.split}: the skip list leaves out 2 of 3 records (1 corrupt, 1 no reason given)"


def test_a_list_that_fits_nothing_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(leave_out(RECORDS, {"d": "corrupt"})) == 3
    assert caplog.messages[0].endswith("the skip list leaves out 0 of 3 records")


def test_something_must_be_left():
    with pytest.raises(RecordError, match=r"leaves out 3 of 3 records .* nothing is left"):
        leave_out(RECORDS, dict.fromkeys("abc", "corrupt"))


def test_a_stream_is_refused():
    with pytest.raises(ConfigError, match="prepare the set without them"):
        leave_out(RECORDS.to_iterable_dataset(), {})


def remove(root, split, *numbers):
    for number in numbers:
        (root / split / f"VizWiz_{split}_{number:08d}.jpg").unlink()


def test_listed_images_may_be_missing(vizwiz_root):
    remove(vizwiz_root, "train", 1, 3)
    skip = {"VizWiz_train_00000001.jpg": "missing", "VizWiz_train_00000003.jpg": "missing"}
    records = load_folder_without(skip, "vizwiz", vizwiz_root, split="train")
    assert [record["image_id"][-5] for record in records] == ["0", "2", "4"]


def test_other_images_may_not_be_missing(vizwiz_root):
    remove(vizwiz_root, "train", 1, 3)
    message = r"train\.json, row 3: no .*00000003\.jpg \(1 of 4 images are missing and not on the skip list\)"
    with pytest.raises(RecordError, match=message):
        load_folder_without({"VizWiz_train_00000001.jpg": "missing"}, "vizwiz", vizwiz_root, split="train")


def test_missing_images_are_kept_where_that_is_asked_for_only(vizwiz_root):
    remove(vizwiz_root, "val", 2)
    with keep_missing_images() as missing:
        records = load_records("vizwiz", split="val", root=vizwiz_root)
    path = records[2]["images"][0]["path"]
    assert missing == {path: f"{vizwiz_root}/val.json, row 2"}
    with pytest.raises(MissingImageError):
        open_image(path)
    with pytest.raises(RecordError, match="1 of 3 images are missing"):
        load_records("vizwiz", split="val", root=vizwiz_root)


def test_missing_images_of_conversations_are_kept_too(tmp_path):
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cup."}]
    (tmp_path / "train.json").write_text(json.dumps([{"id": "1", "image": "gone.jpg", "conversations": turns}]))
    with keep_missing_images() as missing:
        (record,) = load_records("llava_json", split="train", root=tmp_path)
    assert missing == {str(tmp_path / "gone.jpg"): f"{tmp_path}/train.json, row 0"}
    assert record["images"][0]["path"] == str(tmp_path / "gone.jpg")


def test_rows_with_trls_columns_are_left_out_by_id(caplog):
    rows = Dataset.from_list([{"id": number, "messages": []} for number in range(2)])
    assert leave_out(rows, {"0": "corrupt"})["id"] == [1]


def test_links_out_of_the_folder_may_be_allowed(vizwiz_root, tmp_path):
    photo = vizwiz_root / "train" / "VizWiz_train_00000000.jpg"
    photo.rename(tmp_path / "elsewhere.jpg")
    photo.symlink_to(tmp_path / "elsewhere.jpg")
    skip = {"VizWiz_train_00000001.jpg": "corrupt"}
    with pytest.raises(RecordError, match="leads out of"):
        load_folder_without(skip, "vizwiz", vizwiz_root, split="train")
    assert len(load_folder_without(skip, "vizwiz", vizwiz_root, split="train", follow_symlinks=True)) == 4
