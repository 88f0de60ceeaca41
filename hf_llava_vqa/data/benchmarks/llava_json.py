"""Instruction data in LLaVA's own form: LLaVA-Instruct, the 665k mixture, ShareGPT4V, the 558k captions, and your own.

A JSON list, or JSON Lines, of `{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}`. `image` is the
path of a picture below one folder (`coco/train2017/000000000009.jpg`), a list of such paths, or missing for text-only
rows. `<image>` in a question marks where LLaVA wants the picture, which is in front: it is taken out of the text.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.reading.files import ImageStore, Place, kind_of, open_images, read_json, read_json_lines
from hf_llava_vqa.data.reading.missing import place_of_missing
from hf_llava_vqa.data.reading.questions import Fields, check_storable, locate, unique_ids
from hf_llava_vqa.errors import ConfigError, RecordError, in_line
from hf_llava_vqa.records import Record, make_dialogue, make_record

SHAPE = '{"id", "image", "conversations": [{"from": "human" or "gpt", "value"}]}'
_TURN_SHAPE = '{"from": "human" or "gpt", "value"}'
_KNOWN_KEYS = ("id", "image", "conversations")
_SPEAKERS = ("human", "gpt")  # in the order in which they speak
_ROLES = ("user", "assistant")
_IMAGE = "<image>"

logger = logging.getLogger(__name__)


class Conversation(NamedTuple):
    """A row that can be used: what is said, the user and the assistant in alternation, about which pictures."""

    id: str
    images: tuple[str, ...]  # names in the store
    contents: tuple[str, ...]
    metadata: dict[str, Any]


def read(
    split: str,
    *,
    root: Place = None,
    annotations: Place = None,
    images: Place = None,
    bad_rows: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read conversations.

    A first turn that is from `gpt` is left out, as LLaVA does, and so is a last one that is from `human`, since nobody
    answers it: both are counted in a warning.

    Args:
        split: what the rows are called; it chooses the file in `root` if several lie there.
        root: folder with the JSON file, and with the pictures in `images/`, `images.zip` or folders named in the rows.
        annotations: the JSON or JSON Lines file.
        images: the folder, zip or tar archive in which the rows' paths begin.
        bad_rows: a file to which rows that cannot be used are written, as `{"row", "id", "reason"}`, one a line; they
            are left out. Without it, the first of them is an error.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a picture (or tuple of pictures), its conversations as dialogues; one for each text-only row. Ids
        that several rows share become `id#0`, `id#1`, …

    Raises:
        ConfigError: too few paths.
        RecordError: a file that is missing or broken; a row of another shape, with roles out of order, an empty
            turn or a missing picture, and how many such rows there are; rows count from 0.
    """
    file = _find_annotations(split, root, annotations)
    store = _find_images(root, images, follow_symlinks)
    conversations, paths = _read_rows(file, store, bad_rows)
    yield from _records(conversations, paths, split)


def _find_annotations(split: str, root: Place, annotations: Place) -> str:
    if annotations is not None:
        return str(annotations)
    if root is None:
        raise ConfigError("give root (the folder with the JSON file and the images), or both annotations and images")
    if not Path(root).is_dir():
        raise RecordError(f"{root}: no such folder")
    files = sorted(path for path in Path(root).iterdir() if path.suffix in (".json", ".jsonl"))
    named = [path for path in files if path.stem == split]
    if len(named) == 1:
        return str(named[0])
    if split == "train" and len(files) == 1:
        return str(files[0])
    raise RecordError(f"{root}: no {split}.json among its {len(files)} JSON files; name the file as annotations")


def _find_images(root: Place, images: Place, follow_symlinks: bool) -> ImageStore:
    if images is not None:
        return open_images(images, follow_symlinks=follow_symlinks)
    if root is None:
        raise ConfigError("give images: the folder or archive in which the rows' image paths begin")
    places = (Path(root, name) for name in ("images", "images.zip", "images.tar"))
    return open_images(next((place for place in places if place.exists()), root), follow_symlinks=follow_symlinks)


def _read_rows(file: str, store: ImageStore, bad_rows: Place) -> tuple[list[Conversation], dict[str, str | bytes]]:
    """The conversations of a file, and where the pictures are that they name."""
    reader = _Reader(file, store)
    conversations: list[Conversation] = []
    bad: list[dict[str, Any]] = []
    for number, row in enumerate(_parsed(file)):
        try:
            conversations.append(reader.read(number, row))
        except RecordError as error:
            id = row.get("id") if isinstance(row, dict) else None
            bad.append({"row": number, "id": id, "reason": str(error)})
    total = len(conversations) + len(bad)
    for repair, count in reader.repairs.items():
        logger.warning(f"{file}: {count:,} of {total:,} rows {repair}")
    _set_aside(bad, bad_rows, f"{len(bad):,} of {total:,} rows of {file}")
    if not conversations:
        raise RecordError(f"{file}: no row that can be used; expected a list of {SHAPE}")
    return conversations, reader.paths


def _parsed(file: str) -> list[Any]:
    rows = [row for _, row in read_json_lines(file)] if file.endswith(".jsonl") else read_json(file)
    if not isinstance(rows, list):
        raise RecordError(f"{file}: expected a list of {SHAPE}, found {kind_of(rows)}")
    return rows


def _set_aside(bad: Sequence[dict[str, Any]], bad_rows: Place, count: str) -> None:
    """Write the rows that cannot be used to a file, or raise RecordError for the first of them."""
    if bad_rows is None:
        if bad:
            raise RecordError(f"{bad[0]['reason']} ({count} cannot be used; bad_rows=FILE leaves them out)")
        return
    lines = [json.dumps(row) + "\n" for row in bad]
    try:
        Path(bad_rows).write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"bad_rows: {bad_rows} cannot be written: {error.strerror}") from error
    if bad:
        logger.warning(f"{count} are left out; {bad_rows} names each with the reason")


class _Reader:
    """Reads the rows of a file; remembers the pictures that were found and counts the repairs that were made."""

    def __init__(self, file: str, store: ImageStore) -> None:
        self.file = file
        self.store = store
        self.paths: dict[str, str | bytes] = {}
        self.repairs: Counter[str] = Counter()

    def read(self, number: int, row: Any) -> Conversation:
        fields = Fields.of(row, f"{self.file}, row {number}", SHAPE)
        check_storable(fields.row, fields.where)
        id = fields.name("id") if fields.row.get("id") is not None else str(number)
        images = _image_names(fields)
        for name in images:
            self._locate(name, fields.where)
        turns = self._repair(list(fields.rows("conversations", _TURN_SHAPE)))
        return Conversation(id, images, _contents(turns, len(images), fields.where), fields.rest(_KNOWN_KEYS))

    def _locate(self, name: str, where: str) -> None:
        if name in self.paths:
            return
        path = locate(name, where, self.store) or place_of_missing(name, where, self.store)
        if path is None:
            place = self.store.place
            raise RecordError(f"{where}: image {in_line(name)} is not in {place}; add it, or name its place as images")
        self.paths[name] = path

    def _repair(self, turns: list[Fields]) -> list[Fields]:
        if len(turns) > 1 and turns[0].row.get("from") == "gpt":
            self.repairs["begin with gpt; that turn is left out, as LLaVA does"] += 1
            turns = turns[1:]
        if len(turns) > 1 and turns[-1].row.get("from") == "human":
            self.repairs["end with a question that has no answer; it is left out"] += 1
            turns = turns[:-1]
        return turns


def _image_names(fields: Fields) -> tuple[str, ...]:
    if fields.row.get("image") in (None, "", []):
        return ()
    if isinstance(fields.row["image"], list):
        return tuple(fields.texts("image"))
    return (fields.text("image"),)


def _contents(turns: Sequence[Fields], images: int, where: str) -> tuple[str, ...]:
    """What is said, without `<image>` where there are pictures; checks who says it and that all is answered."""
    if len(turns) < 2:
        raise RecordError(f"{where}: no question with an answer; remove the row")
    contents = []
    for number, turn in enumerate(turns):
        speaker, due = turn.text("from"), _SPEAKERS[number % 2]
        if speaker != due:
            raise RecordError(f"{turn.where}: from is {in_line(speaker)} where {due} is due; mend or remove the row")
        contents.append(turn.text("value"))
    _check_marks(contents[::2], images, where)
    if images:
        contents[::2] = [_without_marks(text, where) for text in contents[::2]]
    return tuple(contents)


def _without_marks(question: str, where: str) -> str:
    if _IMAGE not in question:
        return question
    text = question.replace(_IMAGE, "").strip()
    if not text:
        raise RecordError(f"{where}: a question that is only {_IMAGE}; put it into words")
    return text


def _check_marks(questions: Sequence[str], images: int, where: str) -> None:
    """Where `<image>` counts pictures, there must be as many; a text-only row may only mention it in passing."""
    marks = sum(text.count(_IMAGE) for text in questions)
    if images > 1 and marks not in (0, images):
        raise RecordError(f"{where}: {marks} times <image> for {images} images; make them equal, or remove <image>")
    if not images and any(text.strip().startswith(_IMAGE) or text.strip().endswith(_IMAGE) for text in questions):
        raise RecordError(f"{where}: <image>, but no image; add its path as image, or remove <image>")


def _records(conversations: Sequence[Conversation], paths: dict[str, str | bytes], split: str) -> Iterator[Record]:
    dialogue_ids = unique_ids([conversation.id for conversation in conversations])
    grouped: dict[Any, list[int]] = {}  # by pictures; a row without any is a group of its own
    for number, conversation in enumerate(conversations):
        grouped.setdefault(conversation.images or number, []).append(number)
    image_ids = unique_ids([_image_id(key, dialogue_ids) for key in grouped])
    for image_id, numbers in zip(image_ids, grouped.values(), strict=True):
        yield make_record(
            image_id=image_id,
            images=[paths[name] for name in conversations[numbers[0]].images],
            dialogues=[_dialogue(conversations[number], dialogue_ids[number]) for number in numbers],
            source="llava_json",
            split=split,
        )


def _image_id(key: Any, dialogue_ids: Sequence[str]) -> str:
    return dialogue_ids[key] if isinstance(key, int) else " ".join(key)


def _dialogue(conversation: Conversation, id: str) -> dict[str, Any]:
    turns = [{"role": _ROLES[number % 2], "content": content} for number, content in enumerate(conversation.contents)]
    return make_dialogue(id=id, turns=turns, metadata=conversation.metadata)


BENCHMARK = Benchmark(
    name="llava_json",
    splits=("train", "val"),
    read=read,
    instruction="",
    metric="",
    metric_variant="",
)
