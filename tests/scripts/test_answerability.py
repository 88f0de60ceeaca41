"""The script of VizWiz's second task, with the tiny model: scores where labels are, else the server's file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from examples import png

SCRIPT = Path(__file__).parents[2] / "scripts" / "answerability.py"


@pytest.fixture
def vizwiz(tmp_path: Path) -> Path:
    root = tmp_path / "vizwiz"
    for split in ("val", "test"):
        (root / split).mkdir(parents=True)
        rows = []
        for number in range(3):
            row = {"image": f"{split}_{number}.png", "question": "What is this?"}
            if split == "val":
                people = [{"answer": "cup", "answer_confidence": "yes"}] * 10
                row |= {"answers": people, "answer_type": "other", "answerable": number % 2}
            (root / split / f"{split}_{number}.png").write_bytes(png((80 * number, 50, 60)))
            rows.append(row)
        (root / f"{split}.json").write_text(json.dumps(rows))
    return root


def run(model: Path, data: Path, split: str, out: Path) -> str:
    command = [sys.executable, str(SCRIPT), "--model", str(model), "--data", str(data), "--split", split]
    command += ["--device", "cpu", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_split_with_labels_is_scored(tmp_path: Path, tiny_llava: Path, vizwiz: Path) -> None:
    printed = run(tiny_llava, vizwiz, "val", tmp_path / "out")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (scores["split"], scores["n"], scores["unanswerable"]) == ("val", 3, 2)
    assert f"average precision {scores['average_precision']:.4f}" in printed
    assert not (tmp_path / "out" / "answerability.json").exists()


def test_a_split_without_labels_is_submitted(tmp_path: Path, tiny_llava: Path, vizwiz: Path) -> None:
    run(tiny_llava, vizwiz, "test", tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "answerability.jsonl").read_text().splitlines()]
    submitted = json.loads((tmp_path / "out" / "answerability.json").read_text())
    assert submitted == [{"image": row["image_id"], "answerable": row["answerable"]} for row in rows]
    assert [row["image"] for row in submitted] == ["test_0.png", "test_1.png", "test_2.png"]
    assert not (tmp_path / "out" / "scores.json").exists()
