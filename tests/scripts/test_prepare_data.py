import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_stub import HubStub
from PIL import Image

from hf_llava_vqa.data import load_records
from hf_llava_vqa.images import open_image

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_data.py"


@pytest.fixture
def root(tmp_path):
    """A VizWiz folder with three training and two validation questions."""
    root = tmp_path / "vizwiz"
    for split, count in (("train", 3), ("val", 2)):
        (root / split).mkdir(parents=True)
        rows = []
        for number in range(count):
            name = f"VizWiz_{split}_{number:08d}.jpg"
            Image.new("RGB", (8, 6), (number, 0, 0)).save(root / split / name)
            rows.append(
                {"image": name, "question": "What?", "answers": [{"answer": "cup", "answer_confidence": "yes"}] * 10}
            )
        (root / f"{split}.json").write_text(json.dumps(rows))
    return root


def prepare(*arguments, home=None, **environment):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = environment or {**os.environ, "HF_HOME": str(home)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_two_splits_are_written_and_summed_up(root, tmp_path):
    out = tmp_path / "set"
    done = prepare(
        "vizwiz", "--root", root, "--split", "train", "val", "--out", out, "--rows_per_shard", 2, home=tmp_path / "home"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # not a terminal: no progress bar
    lines = done.stdout.splitlines()
    assert lines[0].startswith("train: 3 images, 3 questions, 30 answers in 2 files of ")
    assert lines[1].startswith("val: 2 images, 2 questions, 20 answers in 1 file of ")
    assert lines[2] == f"read it with: --source parquet --data_dir {out}"
    assert not (tmp_path / "home").exists()
    assert load_records("parquet", path=out, split="val", streaming=True).num_shards == 1
    assert len(list(load_records("parquet", path=out, split="train", streaming=True))) == 3


def test_files_named_one_by_one(root, tmp_path):
    arguments = ["--annotations", root / "val.json", "--images", root / "val"]
    done = prepare("vizwiz", *arguments, "--split", "val", "--out", tmp_path / "set", home=tmp_path / "home")
    assert done.stdout.startswith("val: 2 images"), done.stderr


def test_links_out_of_the_folder_are_followed_by_permission(root, tmp_path):
    (root / "val").rename(tmp_path / "photos")
    (root / "val").mkdir()
    for photo in (tmp_path / "photos").iterdir():
        (root / "val" / photo.name).symlink_to(photo)
    arguments = ["vizwiz", "--root", root, "--split", "val", "--out", tmp_path / "set"]
    assert "follow_symlinks" in prepare(*arguments, home=tmp_path / "home").stderr
    done = prepare(*arguments, "--follow_symlinks", home=tmp_path / "home")
    assert done.stdout.startswith("val: 2 images"), done.stderr


def test_what_else_a_source_takes_is_named_too(root, tmp_path):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cup."}]
    rows = [{"id": name, "image": f"VizWiz_train_0000000{name}.jpg", "conversations": turns} for name in "01239"]
    (tmp_path / "mix.json").write_text(json.dumps(rows))
    arguments = ["--annotations", tmp_path / "mix.json", "--images", root / "train", "--split", "train"]
    bad_rows = tmp_path / "bad_rows.jsonl"
    done = prepare(
        "llava_json", *arguments, "--path", f"bad_rows={bad_rows}", "--out", tmp_path / "set", home=tmp_path / "home"
    )
    assert done.stdout.startswith("train: 3 images, 3 questions, 0 answers"), done.stderr
    assert done.stderr == (f"2 of 5 rows of {tmp_path}/mix.json are left out; {bad_rows} names each with the reason\n")
    assert [json.loads(line)["id"] for line in bad_rows.read_text().splitlines()] == ["3", "9"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "valid"], "error: vizwiz: split must be one of train, val, test, not 'valid'"),
        (["--split", "train", "test"], "no test.json, Annotations/test.json or Annotations.zip holding it"),
        (
            ["--split", "train", "val", "--images", "a.zip"],
            "error: --annotations, --images and --path name the files of one split",
        ),
        (["--split", "train", "--path", "bad_rows=x"], "error: vizwiz does not take 'bad_rows'; it takes root, "),
        (["--split", "train", "--annotations", "gone.json"], "error: gone.json: no such annotation file"),
        (["--split", "train", "--private"], "error: --private is for --push_to_hub; give that, or leave it out"),
        (["--split", "train", "--skip_list", "gone.txt"], "error: gone.txt: no such "),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(root, tmp_path, arguments, message):
    done = prepare("vizwiz", "--root", root, *arguments, "--out", tmp_path / "set", home=tmp_path / "home")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (tmp_path / "set").exists()


def test_a_broken_photo_is_one_line(root, tmp_path):
    photo = root / "val" / "VizWiz_val_00000001.jpg"
    photo.write_bytes(b"no photo")
    done = prepare("vizwiz", "--root", root, "--split", "val", "--out", tmp_path / "set", home=tmp_path / "home")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: VizWiz_val_00000001.jpg: {photo}: not an image of a known format")
    assert done.stderr.count("\n") == 1


def test_bad_photos_and_a_skip_list(root, tmp_path):
    (root / "train" / "VizWiz_train_00000001.jpg").write_bytes(b"no photo")
    (root / "train" / "VizWiz_train_00000002.jpg").unlink()
    skip_list = tmp_path / "skip_list.txt"
    skip_list.write_text("VizWiz_train_00000002.jpg\tmissing\n")
    out = tmp_path / "set"
    choices = ["--skip_list", skip_list, "--on_bad_image", "skip", "--max_side", 4]
    done = prepare("vizwiz", "--root", root, "--split", "train", "--out", out, *choices, home=tmp_path / "home")
    assert done.stdout.startswith("train: 1 images, 1 questions, 10 answers in 1 file of "), done.stderr
    assert done.stdout.splitlines()[0].endswith("; 1 left out, see bad_images.jsonl")
    assert done.stderr == "split train: the skip list leaves out 1 of 3 records (1 missing)\n"
    assert json.loads((out / "bad_images.jsonl").read_text())["image_id"] == "VizWiz_train_00000001.jpg"
    (row,) = load_records("parquet", path=out, streaming=True)
    assert open_image(row["images"][0]).size == (4, 3)


def test_workers_and_the_files_read(root, tmp_path):
    out = tmp_path / "set"
    choices = ["--rows_per_shard", 1, "--workers", 2]
    done = prepare("vizwiz", "--root", root, "--split", "train", "val", "--out", out, *choices, home=tmp_path / "home")
    assert (done.returncode, done.stderr) == (0, "")
    splits = json.loads((out / "manifest.json").read_text())["splits"]
    for split, counts in splits.items():
        data = (root / f"{split}.json").read_bytes()
        assert counts["source_files"] == {f"{split}.json": hashlib.sha256(data).hexdigest()}


@pytest.fixture
def hub():
    with HubStub() as stub:
        yield stub


@pytest.mark.e2e
def test_a_set_is_pushed_and_read_by_its_name(hub, root, tmp_path):
    (root / "train" / "VizWiz_train_00000001.jpg").write_bytes(b"no photo")
    hub.repos["dataset", "user/photos"] = {"data/train-00000-of-00009.parquet": b"old", "LICENSE": b"ours"}
    out = tmp_path / "set"
    arguments = ["--root", root, "--split", "train", "val", "--out", out, "--on_bad_image", "skip"]
    done = prepare("vizwiz", *arguments, "--push_to_hub", "user/photos", **hub.environment(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "read it with: --source parquet --data_dir hf://datasets/user/photos"
    names = ["README.md", "manifest.json", "data/train-00000-of-00001.parquet", "data/val-00000-of-00001.parquet"]
    ours = {name: (out / name).read_bytes() for name in names}
    assert hub.repos["dataset", "user/photos"] == ours | {"LICENSE": b"ours"}
    program = """
from hf_llava_vqa import load_records
rows = load_records("parquet", path="hf://datasets/user/photos", split="train", streaming=True)
print(len(list(rows)))
"""
    environment = hub.environment(tmp_path / "stranger")
    read = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert read.stdout == "2\n", read.stderr


@pytest.mark.e2e
def test_a_hub_that_refuses_is_found_before_the_work(hub, root, tmp_path):
    out = tmp_path / "set"
    environment = hub.environment(tmp_path / "home") | {"HF_TOKEN": "hf_wrong"}
    arguments = ["--root", root, "--split", "train", "--out", out, "--push_to_hub", "user/photos", "--private"]
    done = prepare("vizwiz", *arguments, **environment)
    assert done.returncode == 2
    assert "the Hub did not take user/photos (" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_help_shows_an_example_and_every_source(tmp_path):
    done = prepare("--help", home=tmp_path / "home")
    assert done.returncode == 0
    assert "python scripts/prepare_data.py vizwiz --root" in done.stdout
    for word in ("vizwiz_competition", "easy_vqa", "--rows_per_shard", "--annotations"):
        assert word in done.stdout


def test_usage_mistakes_leave_no_trace(tmp_path):
    known = ["vizwiz", "--split", "train", "--out", "x"]
    for arguments in (["coco", *known[1:]], ["vizwiz", "--out", "x"], [*known, "--path", "bad_rows"]):
        done = prepare(*arguments, home=tmp_path / "home")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    done = prepare("vizwiz", "--split", "train", "--out", "x", "--rows_per_shard", "0", home=tmp_path / "home")
    assert "--rows_per_shard: 0 is not positive" in done.stderr
