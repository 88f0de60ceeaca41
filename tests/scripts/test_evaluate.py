"""The script that answers and scores: a benchmark's own files, metric and submission, with the tiny model."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from examples import png

from hf_llava_vqa import models
from hf_llava_vqa.models import load_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"
COMPARE = SCRIPT.with_name("compare.py")
CATEGORIES = ("random", "popular", "adversarial")


def evaluate(model: Path, benchmark: str, data: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--model", str(model), "--benchmark", benchmark, "--data", str(data)]
    command += ["--max_new_tokens", "4", "--device", "cpu", "--out", str(out), *arguments]
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


def test_a_model_that_asks_itself_first(tmp_path: Path, tiny_llava: Path) -> None:
    write_pope(tmp_path / "pope")
    done = evaluate(tiny_llava, "pope", tmp_path / "pope", tmp_path / "out", "--self_questions", "2", "--limit", "1")
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "out" / "scores.json").read_text())["settings"]
    assert (settings["self_questions"], settings["prompt_template"]) == (2, "v1_sq")
    for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines():
        assert len(json.loads(line)["self_questions"]) <= 3  # the description, and two questions that were answered


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
    assert done.returncode == 0, done.stderr
    assert "nothing to submit: --limit leaves out a part, and a server takes it whole\n" in done.stdout
    assert not (tmp_path / "out" / "answers.jsonl").exists()
    done = evaluate(tiny_llava, "llava_bench", root, tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.endswith("differently: limit 1 became None; use the same to go on, or choose another --out\n")


def write_vizwiz(root: Path) -> None:
    (root / "val").mkdir(parents=True)
    for number in range(2):
        (root / "val" / f"{number}.png").write_bytes(png((9, 50, 90 * number)))
    given = [{"answer": "blue", "answer_confidence": "yes"}] * 10
    rows = [{"image": f"{number}.png", "question": "What?", "answers": given} for number in range(2)]
    (root / "val.json").write_text(json.dumps(rows))


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: Path, *arguments: str) -> str:
    """Run a script in this process; it must end with exit code 2 and one line. Returns the line."""
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark", "pope,pope"], "--benchmark pope,pope: name each once"),
        (["--benchmark", "pope,vqa9"], "unknown benchmark 'vqa9'"),
        (["--benchmark", "pope", "--split", "gqa=val"], "--split gqa=val: gqa is not in --benchmark pope"),
        (["--benchmark", "pope", "--split", "a", "b"], "--split a b: two values for all; give one"),
        (
            ["--benchmark", "pope", "--split", "pope=a", "pope=b"],
            "--split pope=a pope=b: two values for pope; give one",
        ),
        (["--benchmark", "pope", "--split", "val"], "pope: split must be one of test, not 'val'"),
        (["--benchmark", "pope,gqa", "--template", "f"], "--template f: of several benchmarks, say whose: NAME=FILE"),
        (["--limit", "1", "--template", "f"], "a submission, which is of a whole split: leave out --limit"),
        (["--limit", "0"], "limit is 0; it must be at least 1"),
    ],
)
def test_flags_that_cannot_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write_pope(tmp_path / "data")
    write_pope(tmp_path / "data" / "pope")
    common = ["--model", "m", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert message in refused(monkeypatch, capsys, SCRIPT, *common, *arguments)


def test_several_benchmarks_with_one_load_of_the_model(tmp_path: Path, tiny_llava: Path) -> None:
    write_pope(tmp_path / "data" / "pope")
    write_vizwiz(tmp_path / "elsewhere")
    where = ["--data", str(tmp_path / "data"), f"vizwiz={tmp_path / 'elsewhere'}"]
    done = evaluate(tiny_llava, "pope,vizwiz", tmp_path, tmp_path / "out", *where, "--split", "vizwiz=val", "pope=test")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Loading weights: 100%") == 1
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert list(scores["benchmarks"]) == ["pope", "vizwiz"]
    assert {name: own["split"] for name, own in scores["settings"]["benchmarks"].items()} == {
        "pope": "test",
        "vizwiz": "val",
    }
    for name, count in (("pope", 12), ("vizwiz", 2)):
        assert len((tmp_path / "out" / name / "predictions.jsonl").read_text().splitlines()) == count
    header = next(line for line in done.stdout.splitlines() if line.startswith("| Method"))
    assert header.split()[3:18:2] == ["VQAv2", "GQA", "VisWiz", "SQA", "VQAT", "POPE", "MMBench", "Avg"]

    again = evaluate(
        tiny_llava, "pope,vizwiz", tmp_path, tmp_path / "out", *where, "--split", "vizwiz=val", "pope=test"
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert "Loading weights" not in again.stderr
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == scores

    table = tmp_path / "tables" / "table.md"
    command = [sys.executable, str(COMPARE), str(tmp_path / "out"), str(tmp_path / "out"), "--table", str(table)]
    compared = subprocess.run(command, capture_output=True, text=True)
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout == table.read_text()
    assert compared.stdout.count(f"\n| {tiny_llava} ") == 2
    detail = subprocess.run([*command, "--benchmark", "vizwiz"], capture_output=True, text=True)
    assert detail.stdout.splitlines()[-1].split() == ["ceiling", "100.0"]
    page = subprocess.run([*command, "--page", str(tmp_path / "p.html")], capture_output=True, text=True)
    assert page.returncode == 2
    assert page.stderr == (
        "error: --page shows one benchmark: name it with --benchmark; there are scores of pope, vizwiz\n"
    )


def test_a_picture_that_is_gone_ends_the_run_and_the_next_goes_on(
    tmp_path: Path, tiny_llava: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write_vizwiz(tmp_path / "data")
    arguments = ["--model", str(tiny_llava), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    arguments += ["--device", "cpu", "--batch_size", "1", "--max_new_tokens", "2"]
    gone = tmp_path / "data" / "val" / "1.png"
    content = gone.read_bytes()

    def load_and_lose(*given: Any, **settings: Any) -> Any:
        gone.unlink()
        return load_model(*given, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(models, "load_model", load_and_lose)
        patched.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit, match="2"):
            runpy.run_path(str(SCRIPT), run_name="__main__")
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: 1.png: ")
    assert str(gone) in line
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 1
    assert "1.png" in refused(monkeypatch, capsys, SCRIPT, *arguments)
    gone.write_bytes(content)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["benchmarks"]["vizwiz"]["n"] == 2
