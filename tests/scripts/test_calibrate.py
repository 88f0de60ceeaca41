"""The script that fits a threshold to one split and applies it to another, on predictions written by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

from examples import png

SCRIPT = Path(__file__).parents[2] / "scripts" / "calibrate.py"
IMAGES = 40


def calibrate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def write_split(root: Path, split: str) -> Path:
    """Every second picture is unanswerable, and the model is unsure of its guess there; the evaluation's folder."""
    rows, predictions = [], []
    (root / split).mkdir(parents=True)
    for number in range(IMAGES):
        name, blurred = f"{split}_{number:02d}.png", number % 2
        (root / split / name).write_bytes(png((6 * number, 50, 60)))
        people = [{"answer": "unanswerable" if blurred else "cup", "answer_confidence": "yes"}] * 10
        rows.append({"image": name, "question": "What?", **({} if split == "test" else {"answers": people})})
        confidence = (0.3 if blurred else 0.8) + number / 1000
        row = {"id": name[:-4], "image_id": name, "question": "What?", "answer": "cup", "confidence": confidence}
        predictions.append(json.dumps(row) + "\n")
    (root / f"{split}.json").write_text(json.dumps(rows))
    folder = root / "eval" / split
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_text("".join(predictions))
    settings = {"weights": "w", "limit": None, "benchmarks": {"vizwiz": {"split": split}}}
    scores = {"model": "m", "role": "base", "benchmarks": {}, "settings": settings, "versions": {}}
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


def test_from_a_split_with_answers_to_a_submission(tmp_path: Path) -> None:
    val, test = (write_split(tmp_path, split) for split in ("val", "test"))
    done = calibrate(val, "--data", tmp_path, "--out", tmp_path / "out", "--apply", test)
    assert done.returncode == 0, done.stderr
    assert "50.0 % of the answers below it, score 0.5000 -> 1.0000: +0.5000" in done.stdout
    assert "test: 20 of 40 answers are now unanswerable" in done.stdout
    found = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert (found["model"], found["benchmark"], found["split"]) == ("m", "vizwiz", "val")
    assert 0.339 < found["threshold"] < 0.8
    assert (tmp_path / "out" / "calibration.png").stat().st_size > 1000
    submitted = json.loads((tmp_path / "out" / "test" / "submission.json").read_text())
    assert [row["answer"] for row in submitted] == ["cup", "unanswerable"] * 20


def test_the_same_folder_twice_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    val = write_split(tmp_path, "val")
    done = calibrate(val, "--data", tmp_path, "--out", tmp_path / "out", "--apply", val)
    assert done.returncode == 2
    assert done.stderr == f"error: {val}: question val_00 is in {val} too; apply to another split\n"
    assert not (tmp_path / "out").exists()
