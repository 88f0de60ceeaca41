"""The main job in real processes: launch the recipe, evaluate, compare; and every mistake it must refuse."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from recipe_runs import RECIPE, REPOSITORY, SETTINGS, flags, launch, run
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig


@pytest.fixture(scope="module")
def trained(tiny_llava: Path, vizwiz_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "adapter"
    done = launch(*flags(tiny_llava, vizwiz_folder, output))
    assert done.returncode == 0, done.stderr
    assert "trains" in done.stderr + done.stdout
    assert "one optimizer step: 4 rows, about 4 images, 8 questions" in done.stderr + done.stdout
    return output


@pytest.mark.e2e
def test_loss_falls_and_accuracy_is_logged_with_it(trained: Path) -> None:
    history = json.loads((trained / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    evaluated = [entry for entry in history if "eval_loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    assert len(evaluated) == SETTINGS["num_train_epochs"]
    assert all(0 <= entry["eval_vizwiz_accuracy"] <= 1 for entry in evaluated)


@pytest.mark.e2e
def test_the_folder_holds_everything_and_no_secret(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "processor_config.json", "chat_template.jinja"} <= names
    assert {"README.md", "training_recipe.json", "trainer_state.json"} <= names
    tensors = load_file(trained / "adapter_model.safetensors")
    assert any("multi_modal_projector" in name for name in tensors)
    assert any("lora_A" in name for name in tensors)
    assert not any("vision_tower" in name for name in tensors)
    recipe = json.loads((trained / "training_recipe.json").read_text())
    assert recipe["global_step"] == 24
    assert recipe["trained_parameters"]["vision_tower"] == 0


@pytest.mark.e2e
def test_the_same_seed_gives_the_same_numbers(
    trained: Path, tiny_llava: Path, vizwiz_folder: Path, tmp_path: Path
) -> None:
    again = launch(*flags(tiny_llava, vizwiz_folder, tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (trained, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.e2e
def test_evaluate_compare_and_submit(trained: Path, tiny_llava: Path, vizwiz_folder: Path, tmp_path: Path) -> None:
    for model, role in ((tiny_llava, "base"), (trained, "adapter"), ("question_only", "question_only")):
        done = run(
            *(sys.executable, "scripts/evaluate.py", "--model", model, "--data", vizwiz_folder, "--split", "val"),
            *("--max_new_tokens", 8, "--out", tmp_path / role),
        )
        assert done.returncode == 0, done.stderr
        scores = json.loads((tmp_path / role / "scores.json").read_text())
        assert scores["role"] == role
        assert scores["benchmarks"]["vizwiz"]["n"] == 16
        assert len((tmp_path / role / "predictions.jsonl").read_text().splitlines()) == 16
    assert scores["benchmarks"]["vizwiz"]["ceiling"] == 1.0
    page = tmp_path / "report.html"
    folders = [tmp_path / role for role in ("base", "adapter", "question_only")]
    done = run(
        *(sys.executable, "scripts/compare.py", *folders, "--data", vizwiz_folder),
        *("--run", trained, "--page", page),
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:5]] == [
        *("question_only", "base", "adapter", "ceiling")
    ]
    assert page.read_text().count("<img") == 16
    done = run(
        *(sys.executable, "scripts/evaluate.py", "--model", trained, "--data", vizwiz_folder, "--split", "test"),
        *("--max_new_tokens", 8, "--out", tmp_path / "test"),
    )
    assert done.returncode == 0, done.stderr
    submission = json.loads((tmp_path / "test" / "submission.json").read_text())
    assert [entry["image"] for entry in submission] == [f"VizWiz_test_{number:08d}.jpg" for number in range(4)]


# What a user can get wrong. Each case changes flags or a copy of the data; the message must hold all the words.


def _break_json(data: Path) -> None:
    (data / "train.json").write_text('[{"image": ')


def _change_shape(data: Path) -> None:
    (data / "train.json").write_text('{"questions": []}')


def _remove_annotations(data: Path) -> None:
    (data / "train.json").unlink()


def _remove_image(data: Path) -> None:
    (data / "train" / "VizWiz_train_00000003.jpg").unlink()


def _spoil_image(data: Path) -> None:
    (data / "train" / "VizWiz_train_00000002.jpg").write_bytes(b"\xff\xd8 not a picture")


def _remove_answers(data: Path) -> None:
    rows = json.loads((data / "train.json").read_text())
    rows[5].pop("answers")
    (data / "train.json").write_text(json.dumps(rows))


BROKEN_DATA = {
    "broken json": (_break_json, ["train.json", "line 1"]),
    "wrong shape": (_change_shape, ["train.json", "JSON list"]),
    "no annotations": (_remove_annotations, ["train.json"]),
    "missing image": (_remove_image, ["train.json", "row", "VizWiz_train_00000003.jpg"]),
    "undecodable image": (_spoil_image, ["VizWiz_train_00000002.jpg"]),
    "no answers": (_remove_answers, ["train.json", "row 5", "answers"]),
}
BAD_FLAGS = {
    "unknown key": ({"lern_rate": 1}, ["lern_rate"]),
    "max_length too short": ({"max_length": 20}, ["dialogue", "max_length=20", "raise max_length"]),
    "eager attention": ({"attn_implementation": "eager"}, ["--attn_implementation eager", "sdpa"]),
    "flash attention": ({"attn_implementation": "flash_attention_2"}, ["flash_attention_2", "branches", "sdpa"]),
    "flex attention": ({"attn_implementation": "flex_attention"}, ["flex_attention", "CPU", "sdpa"]),
    "no such model": ({"model_name_or_path": "no/such/model/anywhere"}, ["no/such/model/anywhere"]),
    "no such data": ({"data_dir": "nowhere"}, ["--data_dir nowhere"]),
    "unknown target": ({"answer_target": "best"}, ["answer_target"]),
    "unknown lora target": ({"lora_target_modules": "fc1"}, ["--lora_target_modules fc1"]),
    "evaluation without split": ({"eval_split": None}, ["--eval_split"]),
    "no questions a row": ({"max_questions_per_row": 0}, ["--max_questions_per_row"]),
}


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: Path, *arguments: str) -> str:
    """Run a script in this process; it must end with exit code 2 and one line. Returns the line."""
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "Traceback" not in message
    return message.strip().splitlines()[-1]


@pytest.mark.parametrize("case", BROKEN_DATA)
def test_broken_data_is_refused_in_one_line(
    case: str, tiny_llava: Path, vizwiz_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    spoil, words = BROKEN_DATA[case]
    data = shutil.copytree(vizwiz_folder, tmp_path / "data")
    spoil(data)
    message = refused(monkeypatch, capsys, RECIPE, *flags(tiny_llava, data, tmp_path / "out"))
    assert message.startswith("error: ")
    assert all(word in message for word in words), message


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_bad_flags_are_refused_in_one_line(
    case: str, tiny_llava: Path, vizwiz_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    changes, words = BAD_FLAGS[case]
    message = refused(monkeypatch, capsys, RECIPE, *flags(tiny_llava, vizwiz_folder, tmp_path / "out", **changes))
    assert all(word in message for word in words), message


def test_an_unknown_yaml_key_is_refused(tiny_llava: Path, vizwiz_folder: Path, tmp_path: Path, monkeypatch, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("lora_rank: 8\n")
    message = refused(
        monkeypatch, capsys, RECIPE, "--config", str(config), *flags(tiny_llava, vizwiz_folder, tmp_path / "out")
    )
    assert "lora_rank" in message


def test_a_model_that_is_no_llava_is_refused(vizwiz_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "llama")
    model = tmp_path / "llama"
    message = refused(monkeypatch, capsys, RECIPE, *flags(model, vizwiz_folder, tmp_path / "out"))
    assert "'llama' model, not a LLaVA" in message
    script = REPOSITORY / "scripts" / "evaluate.py"
    message = refused(
        *(monkeypatch, capsys, script, "--model", str(model), "--data", str(vizwiz_folder)),
        *("--out", str(tmp_path / "scores")),
    )
    assert "'llama' model, not a LLaVA" in message


@pytest.mark.e2e
def test_an_image_that_breaks_in_a_loader_worker_stops_the_run_with_its_name(
    tiny_llava: Path, vizwiz_folder: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(vizwiz_folder, tmp_path / "data")
    for path in sorted((data / "train").iterdir())[4:]:  # the first batch is whole
        Image.new("RGB", (8, 8)).save(path)
        path.write_bytes(path.read_bytes()[:80])
    arguments = flags(tiny_llava, data, tmp_path / "out", activation_checkpointing=False)
    done = run(sys.executable, RECIPE, *arguments)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]  # a progress bar may follow
    assert "VizWiz_train_0000" in line
    assert "Traceback" not in done.stderr
