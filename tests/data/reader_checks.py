"""What tests of readers share: files written and damaged, records checked, mistakes caught."""

import copy
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from examples import png
from hypothesis import strategies as st
from transformers import LlavaProcessor

from hf_llava_vqa.collate import VqaCollator
from hf_llava_vqa.data import get_benchmark
from hf_llava_vqa.errors import RecordError, VqaError
from hf_llava_vqa.generation import questions
from hf_llava_vqa.records import validate_record
from hf_llava_vqa.reports.evaluation import Part, template_of
from hf_llava_vqa.reports.evaluation import evaluate as score_and_submit
from hf_llava_vqa.reports.predictions import PREDICTIONS_FILE
from hf_llava_vqa.reports.scores import SCORES_FILE, Scores, read_scores

GOLDEN = Path(__file__).parents[1] / "golden" / "parity" / "submission"
"""What LLaVA's scripts made of answer files."""

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=3) | st.just("\ud800"),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=4,
)
"""Any JSON value, and one that no file can hold."""


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document in which one to three parts were replaced, removed, doubled or given another's name."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(document))))
        change = draw(st.sampled_from(("replace", "remove", "double")))
        if change == "replace":
            holder[key] = draw(anything)
        elif change == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[draw(st.text(max_size=3))] = holder[key]
        if not document:
            return document
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a document, by what holds it and where."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def write(path: Path, content: Any) -> None:
    """Write JSON, or a file as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content), encoding="utf-8")


def write_photos(folder: Path, *names: str, suffix: str = "") -> None:
    """Write a small picture under each name."""
    for name in names:
        write(folder / (name + suffix), png((len(name), 50, 60)))


def read_all(read: Callable[..., Iterator[dict[str, Any]]], split: str, **paths: Any) -> list[dict[str, Any]]:
    """The records of a split, each checked against the format; dialogue and image ids are unique among them."""
    records = list(read(split, **paths))
    for record in records:
        validate_record(record)
        assert record["split"] == split
        json.dumps(record, ensure_ascii=False, default=len).encode()  # pictures in memory are bytes
    image_ids = [record["image_id"] for record in records]
    dialogue_ids = [dialogue["id"] for record in records for dialogue in record["dialogues"]]
    assert len(set(image_ids)) == len(image_ids) > 0
    assert len(set(dialogue_ids)) == len(dialogue_ids)
    return records


def refusal(read: Callable[..., Iterator[dict[str, Any]]], split: str, **paths: Any) -> str:
    """The one line with which a split is refused."""
    with pytest.raises(RecordError) as caught:
        list(read(split, **paths))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusal_after(
    change: Callable[[Any], object], file: Path, read: Callable[..., Iterator[dict[str, Any]]], **paths: Any
) -> str:
    """The one line with which the training split is refused once a JSON file of it was changed."""
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    write(file, document)
    return refusal(read, "train", **paths)


def mark_byte_order(*files: Path) -> None:
    """Put a byte order mark in front of each file, as some editors do."""
    for file in files:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())


def zip_up(archive: Path, *files: Path) -> None:
    """Move files and folders into a zip archive, under their names."""
    with zipfile.ZipFile(archive, "w") as opened:
        for path in files:
            inside = sorted(path.rglob("*.*")) if path.is_dir() else [path]
            for file in inside:
                opened.write(file, file.relative_to(path.parent))
                file.unlink()
            if path.is_dir():
                shutil.rmtree(path)


def read_or_refuse(read: Callable[..., Iterator[dict[str, Any]]], split: str, **paths: Any) -> None:
    """Sound records or one line that names the folder: for files that may be anything."""
    try:
        read_all(read, split, **paths)
    except VqaError as error:
        message = str(error)
    else:
        message = str(paths["root"])
    assert "\n" not in message
    assert str(paths["root"]) in message


def questions_of(records: list[dict[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Image id, and id and first turn of each of its dialogues."""
    return [
        (record["image_id"], [(d["id"], d["turns"][0]["content"]) for d in record["dialogues"]]) for record in records
    ]


def trained_texts(rows: Iterable[dict[str, Any]], llava: Path) -> list[tuple[str, str]]:
    """What the collator makes of records: all text of a row without its padding, and the part that is trained on."""
    processor = LlavaProcessor.from_pretrained(llava)
    batch = VqaCollator(processor)(list(rows))
    texts = []
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        kept = ids[ids != processor.tokenizer.pad_token_id]
        texts.append((processor.decode(kept), processor.decode(labels[labels >= 0])))
    return texts


def evaluate(
    name: str,
    records: Iterable[dict[str, Any]],
    answers: Mapping[str, str],
    out: Path,
    root: Path | None = None,
    template: Path | None = None,
) -> dict[str, Any]:
    """Score a split, or write its submission file into `out`, as scripts/evaluate.py does; the answers are by id.

    Returns:
        The benchmark's entry of `scores.json`, {} for a split without answers.
    """
    benchmark, records = get_benchmark(name), list(records)
    found = template_of(benchmark, questions(records), root, template)
    for file in (PREDICTIONS_FILE, SCORES_FILE):
        (out / file).unlink(missing_ok=True)
    part = Part(benchmark, "its split", records, template=found)
    scores = Scores(out, model="stub", role="base", settings={}, benchmarks={name: {"split": part.split}})
    predictions = [
        {
            "id": dialogue["id"],
            "image_id": record["image_id"],
            "question": dialogue["turns"][-1]["content"],
            "answer": answers[dialogue["id"]],
            "confidence": 1.0,
        }
        for record, dialogue in questions(records)
    ]
    score_and_submit(part, scores, lambda _part, _known: predictions)
    entry = read_scores(out)["benchmarks"].get(name, {})
    assert not entry or 0 <= entry["interval"][0] <= entry["score"] <= entry["interval"][1] <= 1
    return entry


def golden_answers(name: str) -> dict[str, str]:
    """The answers that LLaVA took from a file of answers, by question id: broken lines are skipped, the last counts.

    Here such files do not come about, and two predictions for one question are an error.
    """
    answers = {}
    for line in (GOLDEN / f"{name}_answers.jsonl").read_text().splitlines():
        with suppress(json.JSONDecodeError):
            row = json.loads(line)
            answers[str(row["question_id"])] = row["text"]
    return answers


def golden_json(name: str) -> Any:
    """One of the JSON files, or the rows of a JSON Lines file."""
    text = (GOLDEN / name).read_text()
    return [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)


def predictions_of(answers: Mapping[str, str]) -> list[dict[str, Any]]:
    """Answers by dialogue id as predictions, the id being the image's name too."""
    return [{"id": id, "image_id": id, "question": "", "answer": a, "confidence": 1.0} for id, a in answers.items()]
