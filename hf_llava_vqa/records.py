"""What an image with its dialogues is: the `datasets` features, how records are made and checked.

One record is one image with everything that is asked about it. A VQA question is a dialogue of one user turn
with its raw human answers; instruction data have assistant turns and no answers; text-only rows, no images.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Features, Image, List, Value

from hf_llava_vqa.errors import RecordError

Record = dict[str, Any]
"""One row in the format of `FEATURES`."""

SCHEMA_VERSION = 1
"""Version of the record format. It is raised whenever a field is added, removed or changes its meaning."""

ROLES = ("user", "assistant", "vuser")
"""Who may speak in a turn; `vuser` is the model asking itself about the picture."""


def _features(decode: bool) -> Features:
    text = Value("string")
    dialogue = {
        "id": text,
        "turns": List({"role": text, "content": text}),
        "answers": List({"answer": text, "answer_confidence": text}),
        "answer_type": text,
        "answerable": Value("int8"),
        "choices": List(text),
        "context": text,
        "metadata": text,
    }
    return Features(
        {
            "schema_version": Value("int32"),
            "image_id": text,
            "images": List(Image(decode=decode)),
            "image_sha256": List(text),
            "source": text,
            "split": text,
            "dialogues": List(dialogue),
        }
    )


FEATURES = _features(decode=True)
"""The published format: `images` decode to PIL, as the Hub viewer and `datasets.load_dataset` expect."""

UNDECODED_FEATURES = _features(decode=False)
"""The same format with `images` left as `{"bytes", "path"}`, for `images.open_image`."""


def make_dialogue(
    *,
    id: str,
    question: str | None = None,
    turns: Iterable[Mapping[str, str]] | None = None,
    answers: Iterable[str | Mapping[str, str]] = (),
    answer_type: str = "",
    answerable: int = -1,
    choices: Iterable[str] = (),
    context: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build one dialogue of a record from a `question` or from `turns`, whichever is given.

    Args:
        id: unique within the data set; predictions carry it.
        question: the raw text of a single user turn: no image placeholder, no instruction.
        turns: `{"role", "content"}` in order, for dialogues of several turns.
        answers: raw human answers, as strings or as `{"answer", "answer_confidence"}`.
        answerable: 1, 0, or -1 if unknown.
        metadata: whatever else the source says about the question; stored as JSON.

    Raises:
        RecordError: both or neither of `question` and `turns` are given.
    """
    if (question is None) == (turns is None):
        raise RecordError(f"dialogue {id!r}: give either question or turns, and not both")
    if question is not None:
        turns = [{"role": "user", "content": question}]
    return {
        "id": id,
        "turns": [dict(turn) for turn in turns or ()],
        "answers": [_answer(answer) for answer in answers],
        "answer_type": answer_type,
        "answerable": answerable,
        "choices": list(choices),
        "context": context,
        "metadata": json.dumps(metadata or {}, ensure_ascii=False, sort_keys=True),
    }


def _answer(answer: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(answer, str):
        return {"answer": answer, "answer_confidence": ""}
    return {"answer": answer["answer"], "answer_confidence": answer.get("answer_confidence", "")}


def make_record(
    *,
    image_id: str,
    dialogues: Iterable[Mapping[str, Any]],
    images: Iterable[Any] = (),
    image_sha256: Iterable[str] = (),
    source: str = "",
    split: str = "",
) -> dict[str, Any]:
    """Build one record.

    Args:
        image_id: unique within a split; for benchmarks the name under which the image is submitted.
        images: none, one or more, each a path, the bytes of an image file, or `{"bytes", "path"}`.
        image_sha256: hashes of the image files, or empty where they were not computed.
        source: the benchmark's name, by which its instruction and its metric are found.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "image_id": image_id,
        "images": [_image(image) for image in images],
        "image_sha256": list(image_sha256),
        "source": source,
        "split": split,
        "dialogues": [dict(dialogue) for dialogue in dialogues],
    }


def _image(image: Any) -> Any:
    if isinstance(image, bytes):
        return {"bytes": image, "path": None}
    if isinstance(image, str | Path):
        return {"bytes": None, "path": str(image)}
    return image


def validate_record(record: Mapping[str, Any]) -> None:
    """Check one record, in the form `make_record` builds and `datasets` returns, against the format.

    Raises:
        RecordError: the first thing that is wrong, with the image and the dialogue it was found in.
    """
    where = f"record {record.get('image_id')!r}"
    _check_version(record, where)
    _require_keys(record, FEATURES, where)
    _require(_is_text(record["image_id"]), where, "image_id must be a non-empty string")
    for key in ("source", "split"):
        _require(isinstance(record[key], str), where, f'{key} must be a string ("" if unknown)')
    for key in ("images", "image_sha256", "dialogues"):
        _require(_is_list(record[key]), where, f"{key} must be a list")
    _require(
        len(record["image_sha256"]) in (0, len(record["images"])),
        where,
        "image_sha256 must be empty or hold one hash for each image",
    )
    _require(len(record["dialogues"]) > 0, where, "there must be at least one dialogue")
    seen: set[str] = set()
    for dialogue in record["dialogues"]:
        _check_dialogue(dialogue, where)
        _require(dialogue["id"] not in seen, where, f"dialogue id {dialogue['id']!r} occurs twice; make ids unique")
        seen.add(dialogue["id"])


def _check_version(record: Mapping[str, Any], where: str) -> None:
    version = record.get("schema_version")
    if version == SCHEMA_VERSION:
        return
    if isinstance(version, int) and version > SCHEMA_VERSION:
        remedy = "upgrade hf-llava-vqa"
    else:
        remedy = "prepare the data again with scripts/prepare_data.py"
    raise RecordError(f"{where}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}: {remedy}")


def _check_dialogue(dialogue: Any, where: str) -> None:
    _require(isinstance(dialogue, Mapping), where, "every dialogue must be a dict")
    _require(_is_text(dialogue.get("id")), where, "every dialogue needs a non-empty id")
    where = f"{where}, dialogue {dialogue['id']!r}"
    _require_keys(dialogue, FEATURES["dialogues"].feature, where)
    _check_turns(dialogue["turns"], where)
    _require(
        _is_list(dialogue["answers"]) and all(_is_answer(answer) for answer in dialogue["answers"]),
        where,
        'answers must be a list of {"answer": text, "answer_confidence": text}',
    )
    _require(dialogue["answerable"] in (1, 0, -1), where, "answerable must be 1, 0, or -1 for unknown")
    _require(
        _is_list(dialogue["choices"]) and all(isinstance(choice, str) for choice in dialogue["choices"]),
        where,
        "choices must be a list of strings",
    )
    for key in ("answer_type", "context"):
        _require(isinstance(dialogue[key], str), where, f'{key} must be a string ("" if unknown)')
    _require(_is_json_object(dialogue["metadata"]), where, 'metadata must be a JSON object as text ("{}" if none)')


def _check_turns(turns: Any, where: str) -> None:
    _require(_is_list(turns) and len(turns) > 0, where, 'turns must be a non-empty list of {"role", "content"}')
    for number, turn in enumerate(turns):
        here = f"{where}, turn {number}"
        _require(isinstance(turn, Mapping), here, 'a turn must be {"role": text, "content": text}')
        role = turn.get("role")
        _require(role in ROLES, here, f"role is {role!r}; it must be one of {', '.join(ROLES)}")
        _require(isinstance(turn.get("content"), str), here, "content must be a string")
        _require(role == "assistant" or _is_text(turn["content"]), here, "the question is empty")


def _require_keys(mapping: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    missing = [key for key in keys if key not in mapping]
    _require(not missing, where, f"missing {', '.join(missing)}; build it with make_record and make_dialogue")


def _require(holds: bool, where: str, message: str) -> None:
    if not holds:
        raise RecordError(f"{where}: {message}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_answer(answer: Any) -> bool:
    return isinstance(answer, Mapping) and all(
        isinstance(answer.get(key), str) for key in ("answer", "answer_confidence")
    )


def _is_json_object(text: Any) -> bool:
    if not isinstance(text, str):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        return False
