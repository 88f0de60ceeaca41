"""Invented photos with questions, as files or as a prepared set, for benchmarks of preparation and of streams."""

import io
import random
from functools import partial
from pathlib import Path

from datasets import Dataset
from PIL import Image
from tqdm import tqdm

from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.records import UNDECODED_FEATURES, Record, make_dialogue, make_record


def prepare(folder: Path, count: int, width: int) -> Path:
    """Write a prepared set of `count` records with JPEGs of `width` by 3/4 of it."""
    write_shards(
        (_record(number, jpeg(number, width)) for number in range(count)), folder, split="train", progress=True
    )
    return folder


def write_photos(folder: Path, count: int, width: int) -> None:
    """Write `count` JPEGs of `width` by 3/4 of it, called 0.jpg and so on."""
    folder.mkdir()
    for number in tqdm(range(count), desc="making photos", unit="image", disable=None):
        (folder / f"{number}.jpg").write_bytes(jpeg(number, width))


def records_of(folder: Path, count: int) -> Dataset:
    """Records of the first `count` photos of a folder: each with a question and ten answers. They lie on the disk."""
    rows = partial(map, lambda number: _record(number, folder / f"{number}.jpg"), range(count))
    return Dataset.from_generator(rows, features=UNDECODED_FEATURES, cache_dir=str(folder.with_suffix(".records")))


def _record(number: int, image: bytes | Path) -> Record:
    answers = [f"answer {index}" for index in range(10)]
    dialogue = make_dialogue(id=str(number), question=f"What is on photo {number}?", answers=answers)
    return make_record(image_id=f"{number}.jpg", images=[image], dialogues=[dialogue])


def jpeg(number: int, width: int) -> bytes:
    """Blurred noise: as many bytes a pixel as a photo has, about 0.2."""
    size = width // 4, width * 3 // 16
    noise = Image.frombytes("RGB", size, random.Random(number).randbytes(3 * size[0] * size[1]))
    file = io.BytesIO()
    noise.resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()
