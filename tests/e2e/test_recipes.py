"""The other recipes in real processes, with the published configurations at a tiny size: from files to a result."""

import csv
import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from parts import save_language_model, save_vision_tower
from PIL import Image
from recipe_runs import REPOSITORY, launch, run

from hf_llava_vqa.data import load_records
from hf_llava_vqa.generation import answer_questions
from hf_llava_vqa.models import load_model
from hf_llava_vqa.training.checkpoints import newest_whole

pytestmark = pytest.mark.e2e
COLOURS = ("red", "green", "blue")
TINY = {
    "dtype": "float32",
    "use_cpu": True,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
    "logging_steps": 1,
    "report_to": "none",
}
TINY_LORA = {"lora_r": 8, "learning_rate": 5e-3, "projector_learning_rate": 1e-3, "num_train_epochs": 3}


def train(recipe: str, output: Path, config: str | None = None, **changes: object) -> dict[str, Any]:
    """Launch a recipe; its state. What it left in its folder is complete, and the loss fell."""
    flags = [part for name, value in (TINY | {"output_dir": output} | changes).items() for part in (f"--{name}", value)]
    if config:
        flags = ["--config", f"recipes/configs/{config}.yaml", *flags]
    done = launch(*flags, recipe=REPOSITORY / "recipes" / f"{recipe}.py")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in output.iterdir()}
    assert {"processor_config.json", "README.md", "training_recipe.json", "trainer_state.json"} <= names
    checkpoint, skipped = newest_whole(output)
    assert checkpoint is not None
    assert not skipped
    state = json.loads((output / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert mean(losses[-3:]) < mean(losses[:3])
    return state


def evaluate(model: Path, out: Path, **flags: object) -> None:
    given = [part for name, value in flags.items() for part in (f"--{name}", value)]
    done = run(
        *(sys.executable, "scripts/evaluate.py", "--model", model, "--out", out, "--max_new_tokens", 4, *given),
    )
    assert done.returncode == 0, done.stderr


def pictures(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (40, 60), COLOURS[number % 3]).save(folder / name)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    return {
        "language_model": save_language_model(folder / "language"),
        "vision_tower": save_vision_tower(folder / "tower"),
    }


def test_the_course_competition_from_its_files_to_a_submission(tiny_llava: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split, count in (("train", 12), ("valid", 5)):
        names = [f"{split}_{number:05d}.jpg" for number in range(count)]
        pictures(data / split, names)
        columns: dict[str, dict[str, Any]] = {"image": {}, "question": {}}
        columns |= {"answers": {}} if split == "train" else {}
        for number, name in enumerate(names):
            columns["image"][str(number)] = name
            columns["question"][str(number)] = "What color is it?"
            if split == "train":
                columns["answers"][str(number)] = [{"answer": COLOURS[number % 3]}] * 10
        (data / f"{split}.json").write_text(json.dumps(columns))
    adapter = tmp_path / "adapter"
    train(
        *("sft_vizwiz", adapter, "vizwiz_competition_lora"),
        **{"data_dir": data, "model_name_or_path": tiny_llava, **TINY_LORA},
    )
    evaluate(adapter, tmp_path / "out", benchmark="vizwiz_competition", data=data, split="valid")
    submission = np.load(tmp_path / "out" / "submission.npy", allow_pickle=False)
    assert submission.shape == (5,)
    assert submission.dtype.kind == "U"


def test_dacon_from_its_files_to_a_submission_and_on_for_more_epochs(parts: dict[str, Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    expected = write_dacon(data)
    flags = {"data_dir": data, "learning_rate": 1e-2, "save_strategy": "epoch", **parts}
    train("sft_dacon", tmp_path / "run", "dacon_projector", num_train_epochs=3, **flags)
    longer = train("sft_dacon", tmp_path / "run", "dacon_retrain", num_train_epochs=6, **flags)
    history = [(entry["step"], entry["learning_rate"]) for entry in longer["log_history"] if "loss" in entry]
    assert [step for step, _ in history] == list(range(1, 37))  # the second run went on after the first
    assert history[18][1] == pytest.approx(5e-3)
    counts = json.loads((tmp_path / "run" / "training_recipe.json").read_text())["trained_parameters"]
    projector, tokens = counts.pop("multi_modal_projector"), counts.pop("language_model")
    assert projector > 0
    assert tokens == 2 * 64  # the embeddings of <im_start> and <im_end>
    assert not any(counts.values())

    evaluate(tmp_path / "run", tmp_path / "out", benchmark="dacon", data=data, split="test")
    with (tmp_path / "out" / "submission.csv").open(newline="") as file:
        (header, *answers) = csv.reader(file)
    assert header == ["ID", "answer"]
    assert [name for name, _ in answers] == expected


def test_conversations_with_and_without_pictures_train_the_tower_too(tiny_llava: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    pictures(data / "images", [f"{number}.jpg" for number in range(12)])
    rows: list[dict[str, Any]] = []
    for number in range(12):
        colour = COLOURS[number % 3]
        rows += [
            chat(f"{number}", ["<image>\nWhat color is it?", colour, "Is it red?", "Yes."], f"{number}.jpg"),
            chat(f"{number}", ["<image>\nDescribe the picture.", f"It is {colour}."], f"{number}.jpg"),
        ]
    rows += [chat(f"text{number}", ["Hello?", "Hello."]) for number in range(4)]
    (data / "train.json").write_text(json.dumps(rows))
    changes = {"trainable": "lora+vision", "vision_lora_r": 4, "vision_learning_rate": 1e-3, "save_strategy": "epoch"}
    changes |= {"attn_implementation": "sdpa", "model_name_or_path": tiny_llava, "data_dir": data}
    train("sft_instruct", tmp_path / "adapter", **TINY_LORA, **changes)
    counts = json.loads((tmp_path / "adapter" / "training_recipe.json").read_text())["trained_parameters"]
    assert {part for part, count in counts.items() if count} == {
        *("vision_tower", "multi_modal_projector", "language_model")
    }
    model, processor = load_model(str(tmp_path / "adapter"))
    record = load_records("llava_json", split="train", root=data)[0]
    record["dialogues"] = [{**record["dialogues"][0], "turns": record["dialogues"][0]["turns"][:1]}]
    (answer,) = answer_questions(model, processor, [record], max_new_tokens=4)
    assert answer["answer"]


def test_labelled_documents_are_trained_merged_and_evaluated(tiny_llava: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split, count in (("train", 12), ("val", 3)):
        pictures(data / split, [f"{number}.jpg" for number in range(count)])
        documents = [labelled(f"{number}.jpg", COLOURS[number % 3]) for number in range(count)]
        (data / f"{split}.json").write_text(json.dumps(documents))
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    flags = {"data_dir": data, "model_name_or_path": tiny_llava, **TINY_LORA}
    state = train("sft_ubiai", adapter, "ubiai_lora_7b", **flags)
    assert any("eval_vizwiz_accuracy" in entry for entry in state["log_history"])
    done = run(sys.executable, "scripts/merge_adapter.py", adapter, "--out", merged, "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    evaluate(merged, tmp_path / "out", benchmark="ubiai", data=data, split="val")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (scores["role"], scores["benchmarks"]["ubiai"]["n"]) == ("merged", 3)


def write_dacon(root: Path) -> list[str]:
    """The competition's files, three questions a picture; the ids that are to be submitted."""
    questions = {"What color?": COLOURS, "Is it a box?": ("yes",) * 3, "Red?": ("yes", "no", "no")}
    for split, count in (("train", 24), ("test", 3)):
        images = [f"{split}_{number:06d}" for number in range(count)]
        pictures(root / "image" / split, [f"{image}.png" for image in images])
        asked = [
            [image, question, answers[number % 3]]
            for number, image in enumerate(images)
            for question, answers in questions.items()
        ]
        rows = [["ID", "image_id", "question", "answer"], *([f"{split}_{k}", *row] for k, row in enumerate(asked))]
        write_csv(root / f"{split}.csv", rows if split == "train" else [row[:3] for row in rows])
    ids = [f"test_{number}" for number in reversed(range(9))]  # not in the order of test.csv
    write_csv(root / "sample_submission.csv", [["ID", "answer"], *([name, "?"] for name in ids)])
    return ids


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def chat(name: str, contents: list[str], image: str | None = None) -> dict[str, Any]:
    """A row of LLaVA's JSON form."""
    turns = [{"from": ("human", "gpt")[k % 2], "value": content} for k, content in enumerate(contents)]
    return {"id": name, "conversations": turns, **({"image": image} if image else {})}


def labelled(image: str, colour: str) -> dict[str, Any]:
    """A document with one question, linked to its answer, as UBIAI exports it."""
    question = "What color?"
    spans = {"QUESTION": (question, 0), "ANSWER": (colour, 12)}
    page = [{"page": 1}]
    return {
        "documentName": image,
        "annotation": [
            {"label": label, "text": text, "start": start, "end": start + len(text), "boundingBoxes": page}
            for label, (text, start) in spans.items()
        ],
        "tokens": [{"id": 0, "start": 0, "end": 3}, {"id": 1, "start": 12, "end": 11 + len(colour)}],
        "relations": [{"head": 0, "child": 1, "relationLabel": "ANSWERED_BY"}],
        "images": [{"name": image}],
    }
