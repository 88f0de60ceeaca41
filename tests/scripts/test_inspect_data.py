"""The script that looks at a set: what it prints and writes, how it ends, and that training accepts its skip list."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from broken_set import SKIPPED, write_broken_set, write_sound_set

from hf_llava_vqa.data.skip_list import load_folder_without, read_skip_list

SCRIPT = Path(__file__).parents[2] / "scripts" / "inspect_data.py"


def inspect(root: Path, out: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--data_dir", str(root), "--out", str(out), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_sound_set_ends_with_0(tmp_path: Path, tiny_llava: Path) -> None:
    root = write_sound_set(tmp_path / "set")
    done = inspect(root, tmp_path / "out", "--model", tiny_llava, "--batch_size", 2, "--augmentation", "randaugment")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # not a terminal: no progress bar
    lines = done.stdout.splitlines()
    assert lines[0].startswith("train_0.jpg: ")
    assert lines[1].endswith("ASSISTANT:⟦ cup</s>⟧ × 1")
    assert "train: 2 records, 2 pictures, 2 questions, 20 answers; 1 step an epoch, 2 records each" in lines
    assert lines[-2:] == ["skip list: 0 records", f"look at it: {tmp_path}/out/inspection.html"]
    assert (tmp_path / "out" / "skip_list.txt").read_text() == ""
    report = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert [line["image_id"] for line in report["splits"]["train"]["tokens"]["marked"]] == [
        "train_0.jpg",
        "train_1.jpg",
    ]


def test_something_to_leave_out_ends_with_1(tmp_path: Path) -> None:
    root = write_broken_set(tmp_path / "set")
    done = inspect(root, tmp_path / "out", "--workers", 2)
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-2].startswith("skip list: 5 records (1 missing, 2 corrupt, 1 oversized, 1 leaked)")
    skip = read_skip_list(tmp_path / "out" / "skip_list.txt", split="train")
    assert skip == SKIPPED
    assert len(load_folder_without(skip, "vizwiz", root, split="train")) == 4


def test_the_first_records_only(tmp_path: Path) -> None:
    root = write_broken_set(tmp_path / "set")
    done = inspect(root, tmp_path / "out", "--splits", "train", "--limit", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("train: 1 record, 1 picture, 1 question, 10 answers")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "vizwizz"], "error: unknown source 'vizwizz'"),
        (["--splits", "valid"], "error: vizwiz: split must be one of train, val, test, not 'valid'"),
        (["--model", "gone"], "error: cannot load a model from 'gone'"),
        (["--workers", "0"], "--workers: 0 is not positive"),
        (["--out", SCRIPT], f"error: --out {SCRIPT} cannot be made: File exists"),
    ],
)
def test_mistakes_end_with_2_and_write_nothing(tmp_path: Path, arguments: list[object], message: str) -> None:
    done = inspect(write_sound_set(tmp_path / "set"), tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
