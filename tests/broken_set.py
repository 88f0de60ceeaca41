"""A VizWiz folder with one of each defect, for tests of its inspection."""

import io
import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

SIDE = 40  # pixels
EXIF_ORIENTATION = 0x0112


def jpeg(colour: int, size: tuple[int, int] = (SIDE, SIDE), orientation: int = 1) -> bytes:
    """The file of a grey picture."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    file = io.BytesIO()
    Image.new("RGB", size, (colour, colour, colour)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def huge_png(side: int = 8_000) -> bytes:
    """A PNG of a few bytes whose header promises 64 million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def row(image: str, question: str = "What is this?", answers: Iterable[str] = ("cup",) * 10) -> dict[str, Any]:
    """A row of an annotation file."""
    given = [{"answer": answer, "answer_confidence": "yes"} for answer in answers]
    return {"image": image, "question": question, "answers": given, "answer_type": "other", "answerable": 1}


def write_split(root: Path, split: str, pictures: dict[str, bytes | None], rows: list[dict[str, Any]]) -> None:
    """Write a split; a picture that is None is missing."""
    (root / split).mkdir(parents=True)
    for name, data in pictures.items():
        if data is not None:
            (root / split / name).write_bytes(data)
    (root / f"{split}.json").write_text(json.dumps(rows))


def write_broken_set(root: Path) -> Path:
    """Write train with nine records, of which three are fine, and val with two."""
    train = {
        "fine.jpg": jpeg(10),
        "gone.jpg": None,
        "cut.jpg": jpeg(20)[:200],
        "text.jpg": b"no picture",
        "huge.png": huge_png(),
        "turned.jpg": jpeg(30, (60, SIDE), orientation=6),
        "tiny.jpg": jpeg(40, (SIDE, 31)),
        "twin.jpg": jpeg(10),
        "leaked.jpg": jpeg(50),
    }
    write_split(root, "train", train, [row(name) for name in train])
    val = {"mine.jpg": jpeg(60), "known.jpg": jpeg(50)}
    write_split(root, "val", val, [row(name, answers=("unanswerable",) * 10) for name in val])
    return root


SKIPPED = {"gone.jpg": "missing", "cut.jpg": "corrupt", "text.jpg": "corrupt", "huge.png": "oversized"} | {
    "leaked.jpg": "leaked"
}
"""The skip list of train."""


def write_sound_set(root: Path) -> Path:
    """Write train and val with two records each and nothing wrong."""
    for number, split in enumerate(("train", "val")):
        names = [f"{split}_{index}.jpg" for index in range(2)]
        pictures = {name: jpeg(100 * number + 20 * index) for index, name in enumerate(names)}
        write_split(root, split, dict(pictures), [row(name) for name in names])
    return root
