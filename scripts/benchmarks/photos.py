"""A prepared set of invented photos, for benchmarks that read streams."""

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from hf_llava_vqa.data.preparation import write_shards
from hf_llava_vqa.records import make_dialogue, make_record


def prepare(folder: Path, count: int, width: int) -> Path:
    """Write `count` records, each with a question, ten answers and a JPEG of `width` by 3/4 of it."""
    write_shards(_records(count, width), folder, split="train", progress=True)
    return folder


def _records(count: int, width: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        answers = [f"answer {index}" for index in range(10)]
        dialogue = make_dialogue(id=str(number), question=f"What is on photo {number}?", answers=answers)
        yield make_record(image_id=f"{number}.jpg", images=[_jpeg(number, width)], dialogues=[dialogue])


def _jpeg(number: int, width: int) -> bytes:
    """Blurred noise: as many bytes a pixel as a photo has, about 0.2."""
    size = width // 4, width * 3 // 16
    noise = Image.frombytes("RGB", size, random.Random(number).randbytes(3 * size[0] * size[1]))
    file = io.BytesIO()
    noise.resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()
