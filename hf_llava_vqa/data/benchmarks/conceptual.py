"""Conceptual Captions: pictures of the web, each with the cleaned text of its `alt` attribute.

Published at ai.google.com/research/ConceptualCaptions as `Train_GCC-training.tsv` and
`Validation_GCC-1.1.0-Validation.tsv`, lines of a caption, a tab and an address. The pictures have to be fetched; the
tool img2dataset calls each by its line, counted from 0: `00001/000012345.jpg`. Many addresses are dead by now.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.benchmarks.captions import caption_dialogue, score_captions
from hf_llava_vqa.data.reading.files import ImageStore, Place, find_file, find_images, read_text
from hf_llava_vqa.data.reading.questions import Question, group_questions, locate
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.records import Record

_FILES = {"train": "Train_GCC-training.tsv", "val": "Validation_GCC-1.1.0-Validation.tsv"}
_HEADER = ["caption", "url"]  # added by those who follow img2dataset's instructions
_FOLDER_SIZE = 10_000  # pictures in a folder of img2dataset

logger = logging.getLogger(__name__)

Row = tuple[Question, str]  # with the address of its picture


def read(
    split: str,
    *,
    root: Place = None,
    annotations: Place = None,
    images: Place = None,
    dead_links: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read a split, from `root` or from the files named by `annotations` and `images`.

    Args:
        root: folder with the TSV file, with or without a header, and with `train/` or `val/` as img2dataset writes them
            (`--output_format files`).
        annotations: the TSV file.
        images: the folder, zip or tar archive with the pictures.
        dead_links: a file to which rows without a picture are written, as `{"image", "url"}`, one a line; they are left
            out. Without it, the first of them is an error.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a picture, in the order of the file, with one request for a caption.

    Raises:
        ConfigError: too few paths, or `dead_links` cannot be written.
        RecordError: a file, a line or a picture that is missing or has another shape; lines count from 1.
    """
    file = find_file(root, annotations, _FILES[split], keyword="annotations")
    store = find_images(root, images, split, follow_symlinks=follow_symlinks)
    rows = _rows(file)
    if dead_links is not None:
        rows = _fetched(rows, store, dead_links)
    if not rows:
        raise RecordError(
            f"{file}: no caption with a picture in {store.place}; fetch the pictures, or download it again"
        )
    yield from group_questions((question for question, _ in rows), store, source="conceptual", split=split)


def _rows(file: str) -> list[Row]:
    lines = [line.removesuffix("\r").split("\t") for line in read_text(file).removesuffix("\n").split("\n")]
    first = 2 if lines[0] == _HEADER else 1
    rows = []
    for number, fields in enumerate(lines[first - 1 :]):
        where = f"{file}, line {first + number}"
        if len(fields) != 2 or not all(field.strip() for field in fields):
            raise RecordError(f"{where}: expected a caption, a tab and an address; download the file again")
        key = f"{number:09d}"
        name = f"{number // _FOLDER_SIZE:05d}/{key}.jpg"
        caption, url = fields
        rows.append((Question(where, f"{key}.jpg", name, caption_dialogue(key, [caption.strip()])), url))
    return rows


def _fetched(rows: Sequence[Row], store: ImageStore, dead_links: str | Path) -> list[Row]:
    """The rows whose picture is there; the others are named in `dead_links`."""
    fetched: list[Row] = []
    dead: list[str] = []
    for question, url in rows:
        if locate(question.image, question.where, store) is None:
            dead.append(json.dumps({"image": question.image, "url": url}) + "\n")
        else:
            fetched.append((question, url))
    try:
        Path(dead_links).write_text("".join(dead), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"dead_links: {dead_links} cannot be written: {error.strerror}") from error
    logger.warning(f"{len(dead):,} of {len(rows):,} pictures are not there; {dead_links} names them")
    return fetched


BENCHMARK = Benchmark(
    name="conceptual",
    homepage="https://ai.google.com/research/ConceptualCaptions/",
    splits=tuple(_FILES),
    read=read,
    instruction="",
    metric="captions",
    metric_variant="plain",
    score_answers=score_captions,
)
