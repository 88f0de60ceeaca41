"""NoCaps: ten captions each for photos of things that COCO's captions name, hardly name, or do not name.

Published at nocaps.org: `nocaps_val_4500_captions.json`, an object with `images` of `{"id", "file_name", "domain"}` and
`annotations` of `{"image_id", "caption"}`, and `nocaps_test_image_info.json` without annotations. Photos are
fetched from the addresses in these files.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hf_llava_vqa.data.benchmark import Benchmark, Prediction
from hf_llava_vqa.data.benchmarks.captions import caption_dialogue, score_captions
from hf_llava_vqa.data.reading.files import Place, find_file, find_images, read_json
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions
from hf_llava_vqa.data.submissions import answers_of_all, write_json
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.records import Record

SHAPE = '{"images": [{"id", "file_name", "domain"}], "annotations": [{"image_id", "caption"}]}'
_FILES = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}


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
        root: folder with the JSON file, and with `images/` or `val/` (`test/`), or such a zip or tar archive.
        annotations: the JSON file.
        images: the folder, zip or tar archive with the photos.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a photo, in the order of the file, with one request for a caption, called by the photo's id;
        `answer_type` is the domain.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a row or a photo that is missing or has another shape; rows count from 0.
    """
    file = find_file(root, annotations, _FILES[split], keyword="annotations")
    store = find_images(root, images, "images", split, follow_symlinks=follow_symlinks)
    yield from group_questions(_questions(file, captioned=split == "val"), store, source="nocaps", split=split)


def _questions(file: str, *, captioned: bool) -> Iterator[Question]:
    document = Fields.of(read_json(file), file, SHAPE)
    captions = _captions(document) if captioned else {}
    for row in document.rows("images", SHAPE):
        id, name = row.name("id"), row.text("file_name")
        if captioned and id not in captions:
            raise RecordError(f"{row.where}: image {id} has no captions; download the file again")
        dialogue = caption_dialogue(id, captions.get(id, ()), domain=row.optional_text("domain"))
        yield Question(row.where, id, name, dialogue)


def _captions(document: Fields) -> Mapping[str, list[str]]:
    captions: defaultdict[str, list[str]] = defaultdict(list)
    for row in document.rows("annotations", SHAPE):
        captions[row.name("image_id")].append(row.text("caption").strip())
    return captions


def find_template(root: Place, template: Place = None) -> str:
    """Find the photos of the test split: the file named as `template`, or in `root`. Raises as `find_file`."""
    return find_file(root, template, _FILES["test"], keyword="template")


def submit(predictions: Sequence[Prediction], path: Path, template: str) -> None:
    """Write the JSON list of `{"image_id", "caption"}` which the server takes, in the order of `template`.

    Raises:
        RecordError: the template is missing or of another shape, two predictions for one id, an id that only the
            predictions or only the template has.
    """
    ids = [str(row.integer("id")) for row in Fields.of(read_json(template), template, SHAPE).rows("images", SHAPE)]
    answers = answers_of_all(ids, predictions, template)
    write_json([{"image_id": int(id), "caption": answers[id]} for id in ids], path)


BENCHMARK = Benchmark(
    name="nocaps",
    homepage="https://nocaps.org",
    splits=tuple(_FILES),
    read=read,
    instruction="",
    metric="captions",
    metric_variant="plain",
    score_answers=score_captions,
    submission_file="submission.json",
    submit=submit,
    find_template=find_template,
)
