"""An evaluation that is killed while it answers, in a real process, and started again with the same command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recipe_runs import REPOSITORY, run


def command(model: Path, data: Path, out: Path) -> list[object]:
    arguments = {"model": model, "data": data, "split": "train", "out": out, "batch_size": 2, "device": "cpu"}
    return [
        sys.executable,
        "scripts/evaluate.py",
        *(part for key, value in arguments.items() for part in (f"--{key}", value)),
    ]


def kill_after(lines: int, arguments: list[object], predictions: Path) -> None:
    """Start a process and kill it once so many predictions are written, but not all."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        list(map(str, arguments)), cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while not predictions.exists() or predictions.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.e2e
def test_a_killed_evaluation_goes_on_to_the_same_files(tiny_llava: Path, vizwiz_folder: Path, tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    done = run(*command(tiny_llava, vizwiz_folder, straight))
    assert done.returncode == 0, done.stderr
    file = killed / "predictions.jsonl"
    for lines in (3, 9):
        kill_after(lines, command(tiny_llava, vizwiz_folder, killed), file)
        file.write_bytes(file.read_bytes()[:-20])  # as if it had died within a line
    assert json.loads((killed / "scores.json").read_text())["benchmarks"] == {}
    left = file.read_bytes()
    assert 8 <= left.count(b"\n") < 48
    assert not left.endswith(b"\n")

    done = run(*command(tiny_llava, vizwiz_folder, killed))
    assert done.returncode == 0, done.stderr
    for name in ("predictions.jsonl", "scores.json"):
        assert (killed / name).read_bytes() == (straight / name).read_bytes()
    ids = [json.loads(line)["id"] for line in file.read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 48
    assert set(left.split(b"\n")[:-1]) <= set(file.read_bytes().split(b"\n"))


@pytest.mark.e2e
def test_what_was_answered_is_not_answered_again(tiny_llava: Path, vizwiz_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    kill_after(5, command(tiny_llava, vizwiz_folder, tmp_path), file)
    kept = [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]
    file.write_text("".join(json.dumps({**prediction, "answer": "by hand"}) + "\n" for prediction in kept))
    done = run(*command(tiny_llava, vizwiz_folder, tmp_path))
    assert done.returncode == 0, done.stderr
    answers = {row["id"]: row["answer"] for row in map(json.loads, file.read_text().splitlines())}
    assert {id for id, answer in answers.items() if answer == "by hand"} == {prediction["id"] for prediction in kept}
