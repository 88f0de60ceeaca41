import hashlib
import json
import os
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.data.prepared.shards import read_shards
from hf_llava_vqa.errors import ConfigError, ImageError, RecordError
from hf_llava_vqa.images import open_image, read_image_bytes
from hf_llava_vqa.records import FEATURES, make_dialogue, make_record, validate_record


@pytest.fixture
def train(vizwiz_root):
    return load_records("vizwiz", split="train", root=vizwiz_root)


def text_record(name, **fields):
    return make_record(
        image_id=name, dialogues=[make_dialogue(id=name, question="Why?", answers=["so", "thus"])], **fields
    )


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Round trip


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_come_back_with_the_bytes_of_their_files(train, tmp_path, streaming):
    write_shards(train, tmp_path / "set", split="train", rows_per_shard=2, row_group_size=1)
    back = {row["image_id"]: row for row in read_shards(tmp_path / "set", split="train", streaming=streaming)}
    assert len(back) == len(train) == 5
    for row in train:
        data = read_image_bytes(row["images"][0])
        images = [{"bytes": data, "path": row["image_id"]}]
        assert back[row["image_id"]] == {**row, "images": images, "image_sha256": [hashlib.sha256(data).hexdigest()]}
        validate_record(back[row["image_id"]])


def test_a_prepared_set_prepared_again_is_the_same(train, tmp_path):
    write_shards(train, tmp_path / "one", split="train", rows_per_shard=2)
    write_shards(read_shards(tmp_path / "one"), tmp_path / "two", split="train", rows_per_shard=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_data_sets_lists_and_decoding_data_sets_give_the_same_bytes(train, tmp_path):
    decoding = train.cast_column("images", FEATURES["images"])
    for name, records in (("a", train), ("b", list(train)), ("c", decoding), ("d", iter(list(train)))):
        write_shards(records, tmp_path / name, split="train")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b") == files_of(tmp_path / "c") == files_of(tmp_path / "d")


def test_images_in_archives_several_images_and_none(tmp_path, vizwiz_root):
    images = [image for row in load_records("vizwiz", split="train", root=vizwiz_root) for image in row["images"]]
    records = [text_record("none"), text_record("two", images=images[:2])]
    write_shards(records, tmp_path / "set", split="train")
    back = {row["image_id"]: row for row in read_shards(tmp_path / "set")}
    assert back["none"]["images"] == back["none"]["image_sha256"] == []
    assert [image["bytes"] for image in back["two"]["images"]] == [read_image_bytes(image) for image in images[:2]]
    assert len(set(back["two"]["image_sha256"])) == 2


def test_no_path_of_the_machine_gets_into_a_shard(tmp_path):
    photo = tmp_path / "home" / "me" / "a.png"
    photo.parent.mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(photo)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        file.write(photo, "train/a.png")
    paths = [str(photo), f"zip://train/a.png::{tmp_path}/all.zip"]
    write_shards([text_record("a", images=paths)], tmp_path / "set", split="train")
    (row,) = read_shards(tmp_path / "set")
    assert [image["path"] for image in row["images"]] == ["a.png", "a.png"]
    assert str(tmp_path).encode() not in b"".join(files_of(tmp_path / "set").values())


# The manifest and the layout


def test_the_manifest_says_what_is_there(train, tmp_path):
    options = {"rows_per_shard": 2, "row_group_size": 1, "seed": 7, "source_files": {"train.json": "ab12"}}
    returned = write_shards(train, tmp_path, split="train", **options)
    manifest = manifest_of(tmp_path)
    assert manifest == returned
    listed = manifest["splits"]["train"].pop("shards")
    counts = {"rows": 5, "dialogues": 5, "answers": 50}
    assert manifest == {
        "schema_version": 1,
        "source": "vizwiz",
        "splits": {"train": counts | {"left_out": 0, "max_side": None, "source_files": {"train.json": "ab12"}}},
        "virtual_readers": 64,
        "row_group_size": 1,
        "seed": 7,
    }
    assert [(shard["file"], shard["rows"]) for shard in listed] == [
        ("data/train-00000-of-00003.parquet", 2),
        ("data/train-00001-of-00003.parquet", 2),
        ("data/train-00002-of-00003.parquet", 1),
    ]
    for shard in listed:
        data = (tmp_path / shard["file"]).read_bytes()
        assert shard["bytes"] == len(data)
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()
        assert pq.read_metadata(tmp_path / shard["file"]).num_row_groups == shard["rows"]


def test_a_second_split_is_added(train, vizwiz_root, tmp_path):
    first = write_shards(train, tmp_path, split="train")
    write_shards(load_records("vizwiz", split="val", root=vizwiz_root), tmp_path, split="val")
    assert manifest_of(tmp_path)["splits"]["train"] == first["splits"]["train"]
    assert [len(read_shards(tmp_path, split=split)) for split in ("train", "val")] == [5, 3]
    with pytest.raises(ConfigError, match="has no split None; there are train, val"):
        read_shards(tmp_path)


# The order of the rows


def order(records, folder, seed=0):
    write_shards(records, folder, split="train", rows_per_shard=3, seed=seed)
    return list(read_shards(folder)["image_id"])


def test_the_order_depends_on_seed_and_ids_only(tmp_path):
    records = [text_record(f"{number}.jpg") for number in range(20)]
    first = order(records, tmp_path / "a")
    assert first == order(records[::-1], tmp_path / "b")
    assert sorted(first) == sorted(record["image_id"] for record in records)
    assert first != [record["image_id"] for record in records]
    assert first != order(records, tmp_path / "c", seed=1)
    # Frozen: published sets must come out the same in later versions.
    assert first[:5] == ["2.jpg", "6.jpg", "16.jpg", "1.jpg", "10.jpg"]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), unique=True, min_size=1)
)
def test_all_rows_arrive_whatever_their_ids(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("set")
    write_shards([text_record(name) for name in ids], folder, split="train", rows_per_shard=2, row_group_size=1)
    table = pq.read_table(sorted((folder / "data").iterdir()))
    assert sorted(table["image_id"].to_pylist()) == sorted(ids)


# Bad records


def test_an_image_that_cannot_be_opened_is_named(train, tmp_path, vizwiz_root):
    photo = vizwiz_root / "train" / "VizWiz_train_00000003.jpg"
    photo.write_bytes(photo.read_bytes()[:300])
    with pytest.raises(ImageError) as caught:
        write_shards(train, tmp_path / "set", split="train")
    assert str(caught.value).startswith(f"VizWiz_train_00000003.jpg: {photo}: cannot be decoded: ")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "there are no records to write"),
        ([text_record("a"), text_record("a")], "rows 0 and 1 have the image id 'a'; put them in one record"),
        ([{**text_record("a"), "dialogues": []}], "record 'a': there must be at least one dialogue"),
        ([text_record("a", source="x"), text_record("b", source="y")], "use two folders"),
        (
            [text_record("a"), {**text_record("b"), "dialogues": text_record("a")["dialogues"]}],
            "dialogue id 'a' is taken by another image",
        ),
    ],
)
def test_records_that_cannot_be_written(tmp_path, records, message):
    with pytest.raises(RecordError) as caught:
        write_shards(records, tmp_path, split="train")
    assert message in str(caught.value)
    with pytest.raises((ConfigError, RecordError)):
        read_shards(tmp_path, split="train")


def test_one_source_a_folder_across_splits(tmp_path):
    write_shards([text_record("a", source="x")], tmp_path, split="train")
    with pytest.raises(RecordError, match="source is 'y' in a set of 'x'; use two folders"):
        write_shards([text_record("a", source="y")], tmp_path, split="val")


# Folders that are not as they should be


@pytest.mark.parametrize("split", ["", "train-2", "a/b", "..", "é"])
def test_names_of_splits(tmp_path, split):
    with pytest.raises(ConfigError, match="use letters, digits and underscores"):
        write_shards([text_record("a")], tmp_path, split=split)


def test_nothing_is_overwritten(tmp_path):
    write_shards([text_record("a")], tmp_path, split="train")
    before = files_of(tmp_path)
    with pytest.raises(ConfigError, match="holds the split train already; delete the folder or choose another"):
        write_shards([text_record("b")], tmp_path, split="train")
    with pytest.raises(ConfigError, match="was prepared with seed 0, not 1; use the same seed"):
        write_shards([text_record("b")], tmp_path, split="val", seed=1)
    with pytest.raises(ConfigError, match="with row groups of 16, not 8; use the same row group size"):
        write_shards([text_record("b")], tmp_path, split="val", row_group_size=8)
    assert files_of(tmp_path) == before


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"is there already, without a manifest\.json; choose an empty folder"):
        write_shards([text_record("a")], tmp_path, split="train")
    assert list(files_of(tmp_path).values()) == [b"precious"]


# Interruptions


KILLED = """
import os, pathlib, signal, sys
from hf_llava_vqa.data.prepared import journal, shard_writing
from test_preparation import write_ten

def killing(function, calls):
    count = iter(range(calls + 1))
    def run(*arguments, **options):
        if next(count) == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return run

if __name__ == "__main__":
    folder, place, name, calls, workers = sys.argv[1:]
    target = {"writer": shard_writing.pq.ParquetWriter, "os": os, "journal": journal.Journal}[place]
    setattr(target, name, killing(getattr(target, name), int(calls)))
    write_ten(pathlib.Path(folder), "set", workers=int(workers))
"""


def ten_photos(folder):
    """Records of ten photos, which are made if they are not there."""
    records = []
    for number in range(10):
        photo = Path(folder) / f"{number}.png"
        if not photo.exists():
            Image.new("RGB", (8, 6), (number, 0, 0)).save(photo)
        records.append(text_record(photo.name, images=[photo]))
    return records


def write_ten(folder, name, **changes):
    options = {"rows_per_shard": 4, "row_group_size": 2, **changes}
    return write_shards(ten_photos(folder), folder / name, split="train", **options)


def kill_while_writing(folder, place, name, calls, workers=1):
    command = [sys.executable, "-c", KILLED, str(folder), place, name, str(calls), str(workers)]
    if workers > 1:  # workers look for the functions of a program in its file
        (folder / "killed.py").write_text(KILLED)
        command[1:3] = [str(folder / "killed.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("place", "name", "calls", "kept"),
    [
        ("writer", "write_table", 1, 0),  # inside the first shard
        ("writer", "write_table", 3, 1),  # inside the second
        ("os", "replace", 3, 1),  # the second is complete and has no name; manifest and journal were renamed before
        ("journal", "add", 1, 1),  # it has its name and is not in the journal
        ("journal", "add", 2, 2),
        ("os", "replace", 5, 3),  # all shards are there, the manifest does not list them
    ],
)
def test_a_killed_run_goes_on(tmp_path, place, name, calls, kept):
    write_ten(tmp_path, "whole")
    kill_while_writing(tmp_path, place, name, calls)
    with pytest.raises(ConfigError, match="has no split 'train'; it is empty, as preparing it did not finish"):
        read_shards(tmp_path / "set", split="train")
    before = shards_on_disk(tmp_path / "set")
    write_ten(tmp_path, "set")
    assert files_of(tmp_path / "set") == files_of(tmp_path / "whole")
    assert len(before & shards_on_disk(tmp_path / "set")) == kept


def shards_on_disk(folder):
    """What tells a shard that was kept from one that was written again."""
    files = [(path.name, path.stat()) for path in (folder / "data").glob("*.parquet")]
    return {(name, about.st_ino, about.st_mtime_ns) for name, about in files}  # a file system gives numbers out again


@pytest.mark.e2e
def test_a_killed_run_with_workers_goes_on(tmp_path):
    write_ten(tmp_path, "whole", workers=2)
    kill_while_writing(tmp_path, "journal", "add", 1, workers=2)
    write_ten(tmp_path, "set", workers=2)
    assert files_of(tmp_path / "set") == files_of(tmp_path / "whole")


def interrupt(folder, **changes):
    """Stop at the last photo, which cannot be opened; return the names of the shards that are there."""
    broken = [record for record in ten_photos(folder) if record["image_id"] == LAST_OF_TEN]
    Path(broken[0]["images"][0]["path"]).write_bytes(b"no photo")
    with pytest.raises(ImageError, match=f"{LAST_OF_TEN}: .*: not an image of a known format"):
        write_ten(folder, "set", **changes)
    Path(broken[0]["images"][0]["path"]).unlink()
    return sorted(path.name for path in (folder / "set" / "data").glob("*.parquet"))


LAST_OF_TEN = max(
    (f"{number}.png" for number in range(10)), key=lambda name: hashlib.sha256(f"0/{name}".encode()).digest()
)


def test_a_mended_photo_costs_its_shard_only(tmp_path):
    assert interrupt(tmp_path) == ["train-00000-of-00003.parquet", "train-00001-of-00003.parquet"]
    before = shards_on_disk(tmp_path / "set")
    write_ten(tmp_path, "set")
    assert before < shards_on_disk(tmp_path / "set")
    write_ten(tmp_path, "whole")
    assert files_of(tmp_path / "set") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("choice", "value", "begun"),
    [("max_side", 4, None), ("rows_per_shard", 5, 4), ("on_bad_image", "skip", "error"), ("check", "header", "decode")],
)
def test_other_choices_do_not_go_on(tmp_path, choice, value, begun):
    interrupt(tmp_path)
    before = files_of(tmp_path / "set")
    journal = tmp_path / "set" / ".train.progress"
    message = f"holds a part that was prepared with {choice} {begun}, not {value}; use the same to go on, or delete "
    with pytest.raises(ConfigError, match=f"{message}{journal} to begin again"):
        write_ten(tmp_path, "set", **{choice: value})
    assert files_of(tmp_path / "set") == before
    journal.unlink()
    write_ten(tmp_path, "set", **{choice: value})
    write_ten(tmp_path, "whole", **{choice: value})
    assert files_of(tmp_path / "set") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["shard", "record", "journal"])
def test_what_is_not_as_it_was_is_written_again(tmp_path, damage):
    first, second = interrupt(tmp_path)
    before = shards_on_disk(tmp_path / "set")
    records = ten_photos(tmp_path)
    journal = tmp_path / "set" / ".train.progress"
    if damage == "shard":
        shard = tmp_path / "set" / "data" / second
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    elif damage == "record":
        names = pq.read_table(tmp_path / "set" / "data" / second)["image_id"].to_pylist()
        changed = next(record for record in records if record["image_id"] == names[0])
        changed["dialogues"][0]["turns"][0]["content"] = "Why not?"
    else:
        journal.write_text(journal.read_text()[:-2])  # killed in the middle of the line
    write_shards(records, tmp_path / "set", split="train", rows_per_shard=4, row_group_size=2)
    write_shards(records, tmp_path / "whole", split="train", rows_per_shard=4, row_group_size=2)
    assert files_of(tmp_path / "set") == files_of(tmp_path / "whole")
    assert {name for name, *_ in before & shards_on_disk(tmp_path / "set")} == {first}


# Workers


@pytest.mark.e2e
def test_workers_write_the_same_files(train, tmp_path):
    Path(train[2]["images"][0]["path"]).write_bytes(b"no photo")
    for workers in (1, 3):
        options = {"rows_per_shard": 1, "on_bad_image": "skip", "max_side": 4, "workers": workers}
        write_shards(train, tmp_path / str(workers), split="train", **options)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "3")
    assert manifest_of(tmp_path / "3")["splits"]["train"]["left_out"] == 1


@pytest.mark.e2e
def test_errors_of_workers_are_the_same(train, tmp_path):
    for image in train["images"][1:3]:
        Path(image[0]["path"]).write_bytes(b"no photo")
    messages = []
    for workers in (1, 3):
        with pytest.raises(ImageError) as caught:
            write_shards(train, tmp_path / str(workers), split="train", rows_per_shard=1, workers=workers)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.e2e
def test_workers_do_without_torch(tmp_path):
    """Torch in each of eight workers would be 3 GB of memory for nothing."""
    program = "import sys, hf_llava_vqa.data.prepared.preparation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# Bad pictures


def test_records_with_bad_pictures_are_left_out_and_named(train, tmp_path):
    names = ["VizWiz_train_00000001.jpg", "VizWiz_train_00000003.jpg"]
    photos = {row["image_id"]: Path(row["images"][0]["path"]) for row in train}
    for name in names:
        photos[name].write_bytes(b"no photo")
    manifest = write_shards(train, tmp_path / "set", split="train", rows_per_shard=2, on_bad_image="skip")
    counts = {key: manifest["splits"]["train"][key] for key in ("rows", "dialogues", "answers", "left_out")}
    assert counts == {"rows": 3, "dialogues": 3, "answers": 30, "left_out": 2}
    assert set(read_shards(tmp_path / "set")["image_id"]) == photos.keys() - set(names)
    cases = [json.loads(line) for line in (tmp_path / "set" / "bad_images.jsonl").read_text().splitlines()]
    assert {case["image_id"]: case["path"] for case in cases} == {name: str(photos[name]) for name in names}
    assert {case["action"] for case in cases} == {"skip"}


def test_a_shard_may_lose_all_its_rows_but_not_a_set(train, tmp_path):
    for image in train["images"][1:]:
        Path(image[0]["path"]).write_bytes(b"no photo")
    write_shards(train, tmp_path / "set", split="train", rows_per_shard=1, on_bad_image="skip")
    for streaming in (False, True):
        assert [row["image_id"] for row in read_shards(tmp_path / "set", streaming=streaming)] == [train[0]["image_id"]]
    Path(train["images"][0][0]["path"]).unlink()
    with pytest.raises(RecordError, match="no picture of the split train can be opened; the first: "):
        write_shards(train, tmp_path / "none", split="train", on_bad_image="skip")


def test_headers_only(train, tmp_path):
    """A damaged picture is stored, and named by whoever opens it; a file that is no picture is found."""
    photo = Path(train[2]["images"][0]["path"])
    photo.write_bytes(photo.read_bytes()[:-9])
    manifest = write_shards(train, tmp_path / "set", split="train", check="header")
    assert manifest["splits"]["train"]["rows"] == 5
    photo.write_bytes(b"no photo")
    with pytest.raises(ImageError, match="not an image of a known format"):
        write_shards(train, tmp_path / "other", split="train", check="header")


def test_large_pictures_are_scaled_down_and_small_ones_are_not(tmp_path):
    photos = {name: tmp_path / f"{name}.png" for name in ("small", "large")}
    Image.new("RGB", (40, 30)).save(photos["small"])
    Image.new("RGB", (80, 30)).save(photos["large"])
    records = [text_record(name, images=[photo]) for name, photo in photos.items()]
    write_shards(records, tmp_path / "set", split="train", max_side=40)
    back = {row["image_id"]: row for row in read_shards(tmp_path / "set")}
    data = {name: row["images"][0]["bytes"] for name, row in back.items()}
    assert data["small"] == photos["small"].read_bytes()
    assert open_image(data["large"]).size == (40, 15)
    for name, row in back.items():
        assert row["image_sha256"] == [hashlib.sha256(data[name]).hexdigest()]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"on_bad_image": "replace"}, "on_bad_image 'replace': preparation takes one of error, skip"),
        ({"check": "none"}, "check 'none': preparation takes one of decode, header"),
    ],
)
def test_choices_that_there_are_not(tmp_path, choice, message):
    with pytest.raises(ConfigError, match=message):
        write_shards([text_record("a")], tmp_path / "set", split="train", **choice)
    assert not (tmp_path / "set").exists()


# Memory


def test_memory_holds_a_row_group_of_images_at_a_time(tmp_path):
    """40 images of 1 MB each: holding them all would show."""
    paths = []
    for number in range(40):
        paths.append(tmp_path / f"{number}.bmp")
        Image.new("RGB", (600, 600), (number, 0, 0)).save(paths[-1])
    records = [text_record(path.name, images=[path]) for path in paths]
    tracemalloc.start()
    write_shards(records, tmp_path / "set", split="train", rows_per_shard=20, row_group_size=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    groups = pq.ParquetFile(tmp_path / "set" / "data" / "train-00000-of-00002.parquet").metadata
    assert (groups.num_rows, groups.num_row_groups) == (20, 10)
