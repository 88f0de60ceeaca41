"""What readers share between parsing a file and yielding records: checked fields, images looked up, grouping.

A reader turns its rows into `Question`s; `group_questions` makes them records, one an image.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, NamedTuple

from hf_llava_vqa.data.reading.files import ImageStore, kind_of, read_json_lines
from hf_llava_vqa.data.reading.missing import place_of_missing
from hf_llava_vqa.errors import ImageError, RecordError, in_line
from hf_llava_vqa.records import make_record

_KINDS: dict[type, str] = {str: "a string", int: "an integer", list: "a list", dict: "an object"}


@dataclass(frozen=True, slots=True)
class Fields:
    """One row of an annotation file, whose fields are checked when they are asked for.

    Every method raises RecordError, naming the row, unless the field is there and of its kind.
    """

    row: Mapping[str, Any]
    where: str  # file and row, for messages
    shape: str  # what a row looks like, for messages

    @classmethod
    def of(cls, row: Any, where: str, shape: str) -> "Fields":
        """Take a parsed row, which must be an object."""
        if not isinstance(row, dict):
            raise RecordError(f"{where}: expected {shape}, found {kind_of(row)}")
        return cls(row, where, shape)

    def text(self, key: str) -> str:
        """A string with something in it."""
        text = self.string(key)
        if not text.strip():
            raise RecordError(f"{self.where}: {key} is empty; fill it in or remove the row")
        return text

    def string(self, key: str) -> str:
        """A string, perhaps empty."""
        string: str = self._get(key, str)
        return string

    def optional_text(self, key: str) -> str:
        """A string; "" where the field is missing or null."""
        return self.string(key) if self.row.get(key) is not None else ""

    def integer(self, key: str) -> int:
        """A whole number from 0 on."""
        number: int = self._get(key, int)
        if number < 0:
            raise RecordError(f"{self.where}: {key} is {number}; it cannot be negative")
        return number

    def name(self, key: str) -> str:
        """A string with something in it, or a whole number as a string: how files write ids."""
        return str(self.integer(key)) if type(self.row.get(key)) is int else self.text(key)

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        texts: list[Any] = self._get(key, list)
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise RecordError(f"{self.where}: {key}, entry {number}: expected a string, found {kind_of(text)}")
        return texts

    def rows(self, key: str, shape: str) -> Iterator["Fields"]:
        """A list of objects, at least one."""
        rows = self._get(key, list)
        if not rows:
            raise RecordError(f"{self.where}: {key} is an empty list; fill it in, remove the row or download it again")
        for number, row in enumerate(rows):
            yield Fields.of(row, f"{self.where}, {key} {number}", shape)

    def rest(self, known: Iterable[str]) -> dict[str, Any]:
        """What the row says beyond the `known` keys."""
        return {key: value for key, value in self.row.items() if key not in known}

    def _get(self, key: str, kind: type) -> Any:
        value = self.row.get(key)
        if type(value) is not kind:
            found = kind_of(value) if key in self.row else "nothing"
            raise RecordError(f"{self.where}: {key} must be {_KINDS[kind]}, found {found}; expected {self.shape}")
        return value


def read_lines(file: str, shape: str) -> Iterator[Fields]:
    """Read a JSON Lines file of objects, at least one; lines count from 1. Raises RecordError naming the line."""
    lines = read_json_lines(file)
    if not lines:
        raise RecordError(f"{file}: an empty file; expected lines of {shape}")
    for number, line in lines:
        yield Fields.of(line, f"{file}, line {number}", shape)


def with_options(question: str, options: Sequence[str]) -> str:
    """The question followed by a line `A. option` for each option, as LLaVA-1.5 asks."""
    return "\n".join(
        [question, *(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))]
    )


class Question(NamedTuple):
    """A dialogue with the image it is about."""

    where: str  # file and row, for messages
    image_id: str
    image: str  # its name in the store, "" for none
    dialogue: Mapping[str, Any]


def group_questions(
    questions: Iterable[Question], store: ImageStore, *, source: str, split: str
) -> Iterator[dict[str, Any]]:
    """Check all questions, find all images, and only then yield one record an image, in order of first appearance.

    Raises:
        RecordError: no questions, an id given to two of them, a text that cannot be stored, images that are missing.
    """
    grouped: dict[str, list[Question]] = {}
    rows: dict[str, str] = {}  # dialogue id -> where it was found
    for question in questions:
        id = question.dialogue["id"]
        check_storable([question.image_id, question.image, question.dialogue], question.where)
        if not id.strip():
            raise RecordError(f"{question.where}: the id is empty; fill it in")
        if id in rows:
            raise RecordError(f"{question.where}: id {in_line(id)} stands in {rows[id]} too; remove one")
        rows[id] = question.where
        grouped.setdefault(question.image_id, []).append(question)
    paths = locate_all({entries[0].image: entries[0].where for entries in grouped.values()}, store)
    for image_id, entries in grouped.items():
        yield make_record(
            image_id=image_id,
            images=[paths[entries[0].image]] if entries[0].image else [],
            dialogues=[entry.dialogue for entry in entries],
            source=source,
            split=split,
        )


def locate_all(names: Mapping[str, str], store: ImageStore) -> dict[str, str | bytes]:
    """Find images by name; `names` says where each was asked for, "" is no image.

    Raises:
        RecordError: an unsafe name; missing images, unless they are kept: the first, where it was asked for, and how
            many.
    """
    paths: dict[str, str | bytes] = {}
    missing: list[str] = []
    for name, where in names.items():
        path = locate(name, where, store)
        if path is None and name:
            path = place_of_missing(name, where, store)
        if path is not None:
            paths[name] = path
        elif name:
            missing.append(name)
    if missing:
        raise RecordError(
            f"{names[missing[0]]}: image {in_line(missing[0])} is not in {store.place} "
            f"({len(missing)} of {len(paths) + len(missing)} images are missing); "
            "add them, or name their place as images"
        )
    return paths


def locate(name: str, where: str, store: ImageStore) -> str | bytes | None:
    """Find one image; None if it is missing or `name` is "". Raises RecordError for an unsafe or ambiguous name."""
    try:
        return store.locate(name) if name else None
    except (ImageError, RecordError) as error:
        raise RecordError(f"{where}: {error}") from error


def check_storable(value: Any, where: str) -> None:
    """Raise RecordError if a string in `value` holds half a surrogate pair, as JSON's escapes allow."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RecordError(f"{where}: a broken character (half a surrogate pair); remove it") from None


def unique_ids(ids: Sequence[str]) -> list[str]:
    """Ids as they are where they occur once; others become `id#0`, `id#1`, … in order, skipping what is taken."""
    count = Counter(ids)
    numbers: Counter[str] = Counter()
    result = []
    for id in ids:
        name = id
        while count[name] > 0 and count[id] > 1:
            name = f"{id}#{numbers[id]}"
            numbers[id] += 1
        result.append(name)
    return result
