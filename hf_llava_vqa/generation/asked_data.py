"""What a model asked itself about pictures, written as training data in LLaVA's JSON form."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.generation.self_questions import Asked
from hf_llava_vqa.images import open_with_header, read_image_bytes
from hf_llava_vqa.prompts import IMAGE_TOKEN

IMAGE_FOLDER = "images"
_SPEAKERS = ("human", "gpt")


def write_asked(asked: Iterable[Asked], folder: Path, *, split: str = "train") -> dict[str, int]:
    """Write `SPLIT.jsonl` and the pictures in `images/`: what `load_records("llava_json", root=folder)` reads.

    A line is one conversation about a record's picture, in the order in which it was asked and answered. A question
    that was drawn twice stands there once. A record of which nothing came is not written, but counted.

    Args:
        asked: of `ask_questions`; each is written as it comes.
        folder: created; a file of the same name is an error.

    Returns:
        How many `records` were written with how many `questions`, descriptions among them; what was left out:
        questions or answers that came out `empty`, `repeated` questions, and `silent` records.

    Raises:
        RecordError: the file exists.
        ImageError: a picture that cannot be opened.
    """
    file = folder / f"{split}.jsonl"
    if file.exists():
        raise RecordError(f"{file} exists; remove it, or name another folder")
    (folder / IMAGE_FOLDER).mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(("records", "questions", "empty", "repeated", "silent"), 0)
    with file.open("w", encoding="utf-8") as lines:
        for number, each in enumerate(asked):
            pairs = list(dict(reversed(each.pairs)).items())[::-1]  # of equal questions the first
            counts["empty"] += each.empty
            counts["repeated"] += len(each.pairs) - len(pairs)
            counts["questions"] += len(pairs)
            counts["records" if pairs else "silent"] += 1
            if pairs:
                lines.write(json.dumps(_row(each.record, pairs, folder, number), ensure_ascii=False) + "\n")
                lines.flush()
    return counts


def _row(record: dict[str, Any], pairs: list[tuple[str, str]], folder: Path, number: int) -> dict[str, Any]:
    names = []
    for index, image in enumerate(record["images"]):
        _, header = open_with_header(image)
        names.append(f"{number:08d}_{index}.{header.format.lower()}")
        (folder / IMAGE_FOLDER / names[-1]).write_bytes(read_image_bytes(image))
    said = [text for pair in pairs for text in pair]
    said[0] = f"{IMAGE_TOKEN}\n" * len(names) + said[0]
    turns = [{"from": _SPEAKERS[place % 2], "value": text} for place, text in enumerate(said)]
    return {"id": record["image_id"], "image": names if len(names) > 1 else names[0], "conversations": turns}
