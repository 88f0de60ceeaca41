"""Concadia: pictures of Wikipedia, each with a description that can stand in for it, a caption, and its paragraph.

Published at github.com/elisakreiss/concadia: `wiki_split.json`, an object with a list under `images` of
`{"filename", "split", "description": {"raw"}, "caption": {"raw"}, "context": {"raw"}}`, and `resized.zip`. A model is
asked for the description, which is about what can be seen; the caption adds what cannot.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.benchmarks.captions import QUESTION, SPLITS, score_captions
from hf_llava_vqa.data.reading.files import Place, find_file, find_images, read_json
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.records import Record, make_dialogue

SHAPE = '{"images": [{"filename", "split", "description": {"raw"}, "caption": {"raw"}, "context": {"raw"}}]}'
_KNOWN_KEYS = ("filename", "split", "description", "caption", "context")


def read(
    split: str,
    *,
    root: Place = None,
    annotations: Place = None,
    images: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read a split, from `root` or from the files named by `annotations` and `images`.

    Args:
        root: folder with `wiki_split.json`, and with `resized/` or `resized.zip`.
        annotations: the JSON file.
        images: the folder, zip or tar archive with the pictures.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a picture, in the order of the file, with one request for a caption: the description is its answer,
        the paragraph its context; the caption and other keys are kept in its metadata.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a row or a picture that is missing or has another shape; rows count from 0.
    """
    file = find_file(root, annotations, "wiki_split.json", keyword="annotations")
    store = find_images(root, images, "resized", follow_symlinks=follow_symlinks)
    yield from group_questions(_questions(file, split), store, source="concadia", split=split)


def _questions(file: str, split: str) -> Iterator[Question]:
    rows = Fields.of(read_json(file), file, SHAPE).rows("images", SHAPE)
    chosen = [row for row in rows if row.text("split") == split]
    if not chosen:
        raise RecordError(f"{file}: no images of the split {split}; download it again")
    for row in chosen:
        name = row.text("filename")
        dialogue = make_dialogue(
            id=PurePosixPath(name).stem,
            question=QUESTION,
            answers=[_raw(row, "description")],
            context=_raw(row, "context"),
            metadata={"caption": _raw(row, "caption"), **row.rest(_KNOWN_KEYS)},
        )
        yield Question(row.where, name, name, dialogue)


def _raw(row: Fields, key: str) -> str:
    return Fields.of(row.row.get(key), f"{row.where}: {key}", '{"raw"}').text("raw").strip()


BENCHMARK = Benchmark(
    name="concadia",
    homepage="https://github.com/elisakreiss/concadia",
    splits=SPLITS,
    read=read,
    instruction="",
    metric="captions",
    metric_variant="plain",
    evaluation_split="test",
    score_answers=score_captions,
)
