"""MM-Vet: open questions that need several capabilities at once; a language model grades the answers.

Published as `mm-vet.zip` in the releases of yuweihao/MM-Vet: `mm-vet/mm-vet.json`, an object of question id →
`{"imagename", "question", "answer", "capability", …}`, and `mm-vet/images/`. The grader takes a JSON object of answers
by question id.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_llava_vqa.data.benchmark import Benchmark, Prediction
from hf_llava_vqa.data.reading.files import ImageStore, Place, find_file, find_images, kind_of, open_images, read_json
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions
from hf_llava_vqa.data.submissions import answers_of_all, write_json
from hf_llava_vqa.errors import RecordError, in_line
from hf_llava_vqa.records import Record, make_dialogue

SHAPE = '{ID: {"imagename", "question", "answer", "capability"}}'
_FILES = ("mm-vet.json", "mm-vet/mm-vet.json")
_ARCHIVE = "mm-vet.zip"
_NOT_METADATA = ("question", "imagename")


def read(
    split: str,
    *,
    root: Place = None,
    annotations: Place = None,
    images: Place = None,
    follow_symlinks: bool = False,
) -> Iterator[Record]:
    """Read all questions, from `root` or from the files named by `annotations` and `images`.

    Args:
        root: folder with `mm-vet.zip`, or with `mm-vet.json` and `images/`, in itself or in `mm-vet/`.
        annotations: the file of questions.
        images: the folder, zip or tar archive with the pictures.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a picture, with all its questions, in the order of the file. The grader's answer and the
        capabilities are kept in `metadata`: nothing is scored without the grader.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a question or a picture that is missing or has another shape.
    """
    file = find_file(root, annotations, *_FILES, archive=_ARCHIVE, keyword="annotations")
    store = _find_images(root, images, follow_symlinks=follow_symlinks)
    yield from group_questions(_questions(file), store, source="mmvet", split=split)


def _find_images(root: Place, given: Place, *, follow_symlinks: bool) -> ImageStore:
    if given is None and root is not None and (Path(root) / _ARCHIVE).is_file():
        return open_images(Path(root) / _ARCHIVE)
    return find_images(root, given, "images", "mm-vet/images", follow_symlinks=follow_symlinks)


def _questions(file: str) -> Iterator[Question]:
    for id, row in _rows(file).items():
        picture = row.text("imagename")
        row.texts("capability")
        dialogue = make_dialogue(id=id, question=row.text("question"), metadata=row.rest(_NOT_METADATA))
        yield Question(row.where, picture, picture, dialogue)


def _rows(file: str) -> dict[str, Fields]:
    questions = read_json(file)
    if not isinstance(questions, dict) or not questions:
        found = "an empty object" if questions == {} else kind_of(questions)
        raise RecordError(f"{file}: expected {SHAPE}, found {found}")
    return {id: Fields.of(row, f"{file}, question {in_line(id)}", SHAPE) for id, row in questions.items()}


def find_template(root: str | Path | None, template: str | Path | None = None) -> str:
    """Find the file of questions: the one named as `template`, or that in `root`. Raises as `find_file`."""
    return find_file(root, template, *_FILES, archive=_ARCHIVE, keyword="template")


def submit(predictions: Sequence[Prediction], path: Path, template: str) -> None:
    """Write what the grader takes, a JSON object of the answers as they are by question id, in the order of `template`.

    Raises:
        RecordError: the template is missing or of another shape, two predictions for one id, an id that only the
            predictions or only the template has.
    """
    ids = list(_rows(template))
    answers = answers_of_all(ids, predictions, template)
    write_json({id: answers[id] for id in ids}, path)


BENCHMARK = Benchmark(
    name="mmvet",
    homepage="https://github.com/yuweihao/MM-Vet",
    splits=("test",),
    read=read,
    instruction="",
    metric="mm_vet",
    metric_variant="",
    evaluation_split="test",
    submission_file="mm-vet.json",
    submit=submit,
    find_template=find_template,
)
