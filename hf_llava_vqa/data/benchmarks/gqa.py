"""GQA: questions made from scene graphs of photos, one answer each, about thirteen to a photo.

Published at cs.stanford.edu/people/dorarad/gqa: `train_balanced_questions.json` and so on, objects of question id →
`{"question", "imageId", "answer", "fullAnswer", "types", "groups", "isBalanced", …}`, and `images/<imageId>.jpg`. The
balanced files are read; the unbalanced ones (14 million training questions in ten files) are not.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_llava_vqa.data.benchmark import SHORT_ANSWER, Benchmark, Prediction
from hf_llava_vqa.data.reading.files import Place, find_file, find_images, kind_of, read_json
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions
from hf_llava_vqa.data.scoring import Asked, Scores, only_answer
from hf_llava_vqa.data.submissions import answers_of_all, write_json
from hf_llava_vqa.errors import RecordError, in_line
from hf_llava_vqa.metrics.gqa.gqa_rules import VARIANTS, convert_llava, score
from hf_llava_vqa.records import Record, make_dialogue

SHAPE = '{ID: {"question", "imageId", "answer"}}'
# Fields of the record, and two that only point into scene graphs or repeat "semantic".
_NOT_METADATA = ("question", "imageId", "answer", "annotations", "semanticStr")


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
        root: folder with the questions or `questions1.2.zip`, and with `images/` or `images.zip`.
        annotations: the file of questions.
        images: the folder, zip or tar archive with the photos.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a photo, with all its questions, in the order of the file. What the file says about a question
        is kept in `metadata`, but for its links into the scene graph.

    Raises:
        ConfigError: too few paths.
        RecordError: a file, a question or a photo that is missing or has another shape.
    """
    file = _find_questions(root, annotations, split, keyword="annotations")
    store = find_images(root, images, "images", follow_symlinks=follow_symlinks)
    yield from group_questions(_questions(file, answered=split != "test"), store, source="gqa", split=split)


def _find_questions(root: Place, given: Place, split: str, *, keyword: str) -> str:
    name = f"{split}_balanced_questions.json"
    places = (name, f"questions1.2/{name}", f"questions/{name}", f"data/{name}")
    return find_file(root, given, *places, archive="questions1.2.zip", keyword=keyword)


def _read(file: str) -> dict[str, Any]:
    questions = read_json(file)
    if not isinstance(questions, dict) or not questions:
        found = "an empty object" if questions == {} else kind_of(questions)
        raise RecordError(f"{file}: expected {SHAPE}, found {found}")
    return questions


def _questions(file: str, answered: bool) -> Iterator[Question]:
    for id, question in _read(file).items():
        row = Fields.of(question, f"{file}, question {in_line(id)}", SHAPE)
        image_id = row.name("imageId")
        dialogue = make_dialogue(
            id=id,
            question=row.text("question"),
            answers=[row.text("answer")] if answered else [],
            answer_type=_structural_type(row),
            metadata=row.rest(_NOT_METADATA),
        )
        yield Question(row.where, image_id, f"{image_id}.jpg", dialogue)


def _structural_type(row: Fields) -> str:
    """`query`, `verify`, `choose`, `logical` or `compare`."""
    if row.row.get("types") is None:
        return ""
    return Fields.of(row.row["types"], f"{row.where}, types", '{"structural"}').optional_text("structural")


def score_answers(answers: Sequence[str], asked: Sequence[Asked], variant: str) -> Scores:
    """Exact match after LLaVA's conversion; parts by structural type.

    Consistency needs the unbalanced questions too, validity and plausibility the file of choices: they stay open.
    """
    rules = VARIANTS[variant]
    result = score(answers, [_reference(dialogue) for _, dialogue in asked], variant)
    correct = [
        float(rules.read_prediction(answer) == rules.read_reference(only_answer(dialogue)))
        for answer, (_, dialogue) in zip(answers, asked, strict=True)
    ]
    return Scores.mean_of(correct, by=result["by_structural"], details=result)


def _reference(dialogue: Mapping[str, Any]) -> dict[str, Any]:
    said = json.loads(dialogue["metadata"])
    types, groups = _object(said.get("types")), _object(said.get("groups"))
    return {
        "answer": only_answer(dialogue),
        "structural": dialogue["answer_type"] or None,
        "semantic": types.get("semantic"),
        "words": len(dialogue["turns"][-1]["content"].split()),
        "global_group": groups.get("global"),
    }


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def find_template(root: Place, template: Place = None) -> str:
    """Find the questions of the test split: the file named as `template`, or in `root`. Raises as `find_file`."""
    return _find_questions(root, template, "test", keyword="template")


def submit(predictions: Sequence[Prediction], path: Path, template: str) -> None:
    """Write the JSON list of `{"questionId", "prediction"}` which the server takes, in the order of `template`.

    Answers are converted as by LLaVA: without final periods, in lower case.

    Raises:
        RecordError: the template is missing or of another shape, two predictions for one id, an id that only the
            predictions or only the template has.
    """
    ids = list(_read(template))
    answers = answers_of_all(ids, predictions, template)
    write_json([{"questionId": id, "prediction": convert_llava(answers[id])} for id in ids], path)


BENCHMARK = Benchmark(
    name="gqa",
    homepage="https://cs.stanford.edu/people/dorarad/gqa/",
    splits=("train", "val", "testdev", "test"),
    read=read,
    instruction=SHORT_ANSWER,
    metric="gqa",
    metric_variant="llava",
    evaluation_split="testdev",
    score_answers=score_answers,
    submission_file="submission.json",
    submit=submit,
    find_template=find_template,
)
