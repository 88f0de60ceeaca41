"""Self-questioning in real processes: train on single questions, evaluate, ask, and train on what was asked."""

import json
import sys
from pathlib import Path

import pytest
from recipe_runs import REPOSITORY, flags, launch, run

from hf_llava_vqa.data import load_records
from hf_llava_vqa.training.checkpoints import newest_whole

RECIPE = REPOSITORY / "recipes" / "sft_self_questioning.py"


def losses(folder: Path, name: str) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in history if name in entry]


@pytest.fixture(scope="module")
def trained(tiny_llava: Path, vizwiz_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "adapter"
    done = launch(*flags(tiny_llava, vizwiz_folder, output), recipe=RECIPE)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def asked(trained: Path, vizwiz_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked") / "data"
    short = ("--self_questions", 2, "--max_question_tokens", 12, "--max_answer_tokens", 8, "--top_p", 1)
    done = run(
        *(sys.executable, "scripts/ask.py", "--model", trained, "--data_dir", vizwiz_folder, "--limit", 4),
        *(*short, "--describe", "What color is it?", "--out", folder),
    )
    assert done.returncode == 0, done.stderr
    assert f"written to {folder}" in done.stdout
    return folder


@pytest.mark.e2e
def test_both_losses_fall_and_are_logged_apart(trained: Path) -> None:
    for name in ("loss", "answer_loss", "question_loss"):
        logged = losses(trained, name)
        assert logged[-1] < logged[0] - 0.5, name
    assert len(losses(trained, "answer_loss")) == len(losses(trained, "loss"))
    assert losses(trained, "eval_question_loss") == []
    recipe = json.loads((trained / "training_recipe.json").read_text())
    assert (recipe["settings"]["template"], recipe["settings"]["self_question_ratio"]) == ("v1_sq", 0.5)
    checkpoint, skipped = newest_whole(trained)
    assert checkpoint is not None
    assert not skipped


@pytest.mark.e2e
def test_the_adapter_is_evaluated(trained: Path, vizwiz_folder: Path, tmp_path: Path) -> None:
    done = run(
        *(sys.executable, "scripts/evaluate.py", "--model", trained, "--data", vizwiz_folder, "--split", "val"),
        *("--max_new_tokens", 8, "--out", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "scores.json").read_text())["benchmarks"]["vizwiz"]["n"] == 16


@pytest.mark.e2e
def test_what_it_asked_is_trained_on(asked: Path, tiny_llava: Path, tmp_path: Path) -> None:
    records = load_records("llava_json", split="train", root=asked)
    assert any(len(dialogue["turns"]) > 2 for record in records for dialogue in record["dialogues"])
    told = {"source": "llava_json", "num_train_epochs": 2, "eval_strategy": "no", "eval_split": None}
    told |= {"save_strategy": "no", "load_best_model_at_end": None, "metric_for_best_model": None}
    output = tmp_path / "adapter"
    done = launch(*flags(tiny_llava, asked, output, **told, self_question_ratio=1.0), recipe=RECIPE)
    assert done.returncode == 0, done.stderr
    assert len(losses(output, "question_loss")) == len(losses(output, "loss")) == 2
