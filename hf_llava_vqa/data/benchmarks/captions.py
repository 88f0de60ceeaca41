"""What the caption benchmarks share: how a caption is asked for, how captions are scored, and Karpathy's files.

Andrej Karpathy's splits of COCO and Flickr30k, `dataset_coco.json` and `dataset_flickr30k.json` in
`caption_datasets.zip`, are objects with a list under `images` of `{"filename", "split", "sentences": [{"raw"}]}`.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from hf_llava_vqa.data.reading.files import ImageStore, read_json
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions
from hf_llava_vqa.data.scoring import Asked, Scores, human_answers, mean_by_type
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.metrics.captions.scoring import score
from hf_llava_vqa.records import Record, make_dialogue

QUESTION = "Provide a one-sentence caption for the provided image."
"""How LLaVA-1.5 learned to be asked for a caption."""

ARCHIVE = "caption_datasets.zip"
SHAPE = '{"images": [{"filename", "split", "sentences": [{"raw"}]}]}'
_SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
SPLITS = tuple(_SPLITS)
_HIGHEST_CIDER = 10


def caption_dialogue(id: str, captions: Sequence[str], *, domain: str = "") -> dict[str, Any]:
    """A request for a caption, with those that people wrote as its answers."""
    return make_dialogue(id=id, question=QUESTION, answers=captions, answer_type=domain)


def score_captions(answers: Sequence[str], asked: Sequence[Asked], variant: str) -> Scores:
    """CIDEr as a share of its highest value, 10; BLEU and ROUGE-L stand in the details. `variant` is the tokeniser."""
    references = [human_answers(dialogue) for _, dialogue in asked]
    result = score(answers, references, tokenizer=variant, return_per_image=True)
    credits = [cider / _HIGHEST_CIDER for cider in result.pop("per_image")["cider"]]
    return Scores.mean_of(credits, by=mean_by_type(credits, asked), details=result)


def read_karpathy(file: str, store: ImageStore, *, source: str, split: str) -> Iterator[Record]:
    """Read one of Karpathy's files. A row with a `filepath` names the folder of its picture, as COCO's do.

    Yields:
        One record a picture, in the order of the file, with one request for a caption; `train` has the rows marked
        `restval` too, as usual.

    Raises:
        RecordError: a file, a row or a picture that is missing or has another shape; rows count from 0.
    """
    yield from group_questions(_questions(file, split), store, source=source, split=split)


def _questions(file: str, split: str) -> Iterator[Question]:
    rows = Fields.of(read_json(file), file, SHAPE).rows("images", SHAPE)
    chosen = [row for row in rows if row.text("split") in _SPLITS[split]]
    if not chosen:
        raise RecordError(f"{file}: no images of the split {split}; download it again")
    for row in chosen:
        captions = [sentence.text("raw").strip() for sentence in row.rows("sentences", '{"raw"}')]
        name, folder = row.text("filename"), row.optional_text("filepath")
        dialogue = caption_dialogue(PurePosixPath(name).stem, captions)
        yield Question(row.where, name, f"{folder}/{name}" if folder else name, dialogue)
