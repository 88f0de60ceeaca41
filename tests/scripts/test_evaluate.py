"""The script that answers and scores: a benchmark's own files, metric and submission, with the tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

from examples import png

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"
CATEGORIES = ("random", "popular", "adversarial")


def evaluate(model: Path, benchmark: str, data: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--model", str(model), "--benchmark", benchmark, "--data", str(data)]
    command += ["--split", "test", "--max_new_tokens", "4", "--device", "cpu", "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def write_pope(root: Path) -> None:
    (root / "val2014").mkdir(parents=True)
    for shade in range(2):
        (root / "val2014" / f"{shade}.jpg").write_bytes(png((100 * shade, 50, 60)))
    for category in CATEGORIES:
        rows = [
            {"question_id": number, "image": f"{number % 2}.jpg", "text": "Is there a dog?", "label": label}
            for number, label in enumerate(["yes", "no", "no", "yes"])
        ]
        (root / f"coco_pope_{category}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_benchmark_with_one_split_and_its_own_metric(tmp_path: Path, tiny_llava: Path) -> None:
    write_pope(tmp_path / "pope")
    done = evaluate(tiny_llava, "pope", tmp_path / "pope", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pope: 0.")
    entry = json.loads((tmp_path / "out" / "scores.json").read_text())["benchmarks"]["pope"]
    assert (entry["n"], entry["metric"]["name"], set(entry["by"])) == (12, "pope", set(CATEGORIES))
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 12


def test_a_benchmark_with_a_judge(tmp_path: Path, tiny_llava: Path) -> None:
    root = tmp_path / "mm-vet"
    (root / "images").mkdir(parents=True)
    (root / "images" / "1.png").write_bytes(png((9, 50, 60)))
    question = {"imagename": "1.png", "question": "What is d?", "answer": "1", "capability": ["math"]}
    (root / "mm-vet.json").write_text(json.dumps({"v1_0": question, "v1_1": question}))
    done = evaluate(tiny_llava, "mmvet", root, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert set(json.loads((tmp_path / "out" / "mm-vet.json").read_text())) == {"v1_0", "v1_1"}
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["benchmarks"] == {}


def test_a_part_of_a_test_is_no_submission(tmp_path: Path, tiny_llava: Path) -> None:
    root = tmp_path / "wild"
    (root / "images").mkdir(parents=True)
    for number in range(2):
        (root / "images" / f"{number}.jpg").write_bytes(png((9 * number, 50, 60)))
    rows = [{"question_id": n, "image": f"{n}.jpg", "text": "Why?", "category": "conv"} for n in range(2)]
    (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = evaluate(tiny_llava, "llava_bench", root, tmp_path / "out", "--limit", "1")
    assert done.returncode == 2
    message = f"error: {root}/questions.jsonl: no prediction for ID 1 (1 of 2 are missing); answer all of its split\n"
    assert done.stderr.endswith(message)
    assert not (tmp_path / "out" / "answers.jsonl").exists()
