"""Documents labelled with UBIAI: QUESTION and ANSWER entities on page images, each question linked to its answers.

UBIAI exports one JSON list, `ocr.json`, beside the page images (in their place: `train.json`, `val.json`, …). A minimal
document, of which other keys are ignored:

    {
      "documentName": "form.png",
      "annotation": [
        {"label": "QUESTION", "text": "What is due?", "start": 0, "end": 12, "boundingBoxes": [{"page": 1}]},
        {"label": "ANSWER", "text": "12 EUR", "start": 13, "end": 19, "boundingBoxes": [{"page": 1}]}
      ],
      "tokens": [{"id": 0, "start": 0, "end": 3}, {"id": 3, "start": 13, "end": 14}],
      "relations": [{"head": 0, "child": 3, "relationLabel": "ANSWERED_BY"}],
      "images": [{"name": "form.png_image_0.jpg"}]
    }

`tokens` are the document's words: `start` and `end` are their first and last characters, where an entity's `end` is one
past its last. A relation joins the entities that its two words belong to. The export of projects on plain text has the
entities themselves in `tokens`, with `token_start`, `token_end` and `entityLabel`; there a document is named by its
image.
"""

import logging
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hf_llava_vqa.data.benchmark import Benchmark
from hf_llava_vqa.data.reading.files import ImageStore, find_file, find_images, kind_of, read_json
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions, locate
from hf_llava_vqa.data.scoring import score_agreement
from hf_llava_vqa.errors import ConfigError, RecordError, in_line
from hf_llava_vqa.records import make_dialogue

logger = logging.getLogger(__name__)

_SHAPE = '{"documentName", "annotation": [{"label", "text", "start", "end"}], "tokens", "relations", "images"}'
_SHOWN = 3  # unlinked entities that an error names
_SHOWN_CHARACTERS = 40


class Entity(NamedTuple):
    """A labelled stretch of a document's text."""

    label: str
    text: str
    tokens: Container[int]
    pages: Sequence[int]  # counted from 1, in the order of its words

    def __str__(self) -> str:
        return f"{self.label} {self.text[:_SHOWN_CHARACTERS]!r}"


@dataclass(frozen=True)
class Document:
    """A checked document with its links."""

    name: str
    where: str  # file and number, for messages
    images: Sequence[str]
    entities: Sequence[Entity]
    links: Sequence[tuple[int, int]]  # places of a question and its answer among the entities

    def questions(self) -> Iterator[tuple[Entity, list[Entity]]]:
        """Every question with its answers, in the order of the document."""
        for place, entity in enumerate(self.entities):
            if entity.label == "QUESTION":
                yield entity, [self.entities[answer] for question, answer in self.links if question == place]

    def gaps(self) -> list[str]:
        """Name the questions without an answer and the answers without a question; or say that nothing is asked."""
        linked = {place for link in self.links for place in link}
        unlinked = [
            str(entity)
            for place, entity in enumerate(self.entities)
            if entity.label in ("QUESTION", "ANSWER") and place not in linked
        ]
        if not (self.links or unlinked):
            unlinked = ["no QUESTION"]
        return [f"{in_line(self.name)}: {entity}" for entity in unlinked]


def read(
    split: str,
    *,
    root: str | Path | None = None,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    unlinked: str = "error",
    follow_symlinks: bool = False,
) -> Iterator[dict[str, Any]]:
    """Read a split, from `root` or from the files named by `annotations` and `images`.

    Args:
        root: folder with, for the split train, the exported `train.zip`; or it unpacked as `train/`; or `train.json`
            beside `train/`.
        annotations: the exported JSON file.
        images: the folder, zip or tar archive with the page images.
        unlinked: what to do about questions without an answer, answers without a question and documents without
            questions: "error", or "skip" them with a warning that names each.
        follow_symlinks: allow links in the folder of images that lead out of it.

    Yields:
        One record a page image, in the order in which images first appear. A question stands with the page of its
        first answer; all answers linked to it are its human answers. Text is kept as labelled.

    Raises:
        ConfigError: too few paths, or another value of `unlinked`.
        RecordError: a file, a document or an image that is missing or has another shape; documents count from 0.
    """
    if unlinked not in ("error", "skip"):
        raise ConfigError(f"ubiai: unlinked must be error or skip, not {unlinked!r}")
    names = (f"{split}.json", f"{split}/ocr.json")
    file = find_file(root, annotations, *names, archive=f"{split}.zip", keyword="annotations")
    store = find_images(root, images, split, follow_symlinks=follow_symlinks)
    documents = [_document(row, f"{file}, document {number}") for number, row in enumerate(_rows(file))]
    _check_images(documents)
    _report([gap for document in documents for gap in document.gaps()], file, unlinked)
    if not any(document.links for document in documents):
        raise RecordError(f"{file}: no QUESTION is linked to an ANSWER; link them and export again")
    questions = (question for document in documents for question in _questions(document, store))
    yield from group_questions(questions, store, source="ubiai", split=split)


def _rows(file: str) -> list[Any]:
    rows = read_json(file)
    if not isinstance(rows, list) or not rows:
        found = "an empty list" if rows == [] else kind_of(rows)
        raise RecordError(f"{file}: expected a JSON list of {_SHAPE}, found {found}")
    return rows


def _document(row: Any, where: str) -> Document:
    fields = Fields.of(row, where, _SHAPE)
    entities = _entities(fields)
    name = fields.text("documentName")
    images = [image.text("name") for image in _rows_of(fields, "images", '{"name"}')]
    links = [
        link for relation in _rows_of(fields, "relations", '{"head", "child"}') for link in _links(relation, entities)
    ]
    return Document(name, where, images or [name], entities, list(dict.fromkeys(links)))


def _rows_of(fields: Fields, key: str, shape: str) -> Iterable[Fields]:
    """A list of objects; none where it is missing or empty."""
    return fields.rows(key, shape) if fields.row.get(key, []) != [] else ()


def _entities(document: Fields) -> list[Entity]:
    if "annotation" not in document.row:
        rows = _rows_of(document, "tokens", '{"entityLabel", "text", "token_start", "token_end"}')
        return [
            _entity(row, "entityLabel", range(row.integer("token_start"), row.integer("token_end") + 1)) for row in rows
        ]
    words = [
        (word.integer("id"), word.integer("start"), word.integer("end"))
        for word in _rows_of(document, "tokens", '{"id", "start", "end"}')
    ]
    entities = []
    for row in _rows_of(document, "annotation", '{"label", "text", "start", "end"}'):
        start, end = row.integer("start"), row.integer("end")
        entities.append(_entity(row, "label", {id for id, first, last in words if first < end and last >= start}))
    return entities


def _entity(row: Fields, label: str, tokens: Container[int]) -> Entity:
    pages = [box.integer("page") for box in _rows_of(row, "boundingBoxes", '{"page"}')]
    return Entity(row.text(label).strip().upper(), row.text("text"), tokens, pages)


def _links(relation: Fields, entities: Sequence[Entity]) -> set[tuple[int, int]]:
    """The places of the question and the answer that a relation joins, whichever is its head; none for others."""
    ends = [_at(relation.integer(key), relation, entities) for key in ("head", "child")]
    links = {
        (question, answer)
        for one, other in (ends, ends[::-1])
        for question in one
        for answer in other
        if entities[question].label == "QUESTION" and entities[answer].label == "ANSWER"
    }
    if len(links) > 1:
        raise RecordError(f"{relation.where}: joins several questions and answers at once; remove overlapping labels")
    return links


def _at(token: int, relation: Fields, entities: Sequence[Entity]) -> list[int]:
    places = [place for place, entity in enumerate(entities) if token in entity.tokens]
    if not places:
        raise RecordError(f"{relation.where}: token {token} belongs to no entity; label it or remove the relation")
    return places


def _check_images(documents: Sequence[Document]) -> None:
    owners: dict[str, Document] = {}
    for document in documents:
        for image in document.images:
            other = owners.setdefault(image, document)
            if other is not document:
                raise RecordError(
                    f"{document.where}: image {in_line(image)} belongs to {in_line(other.name)} too; "
                    "export every document once"
                )


def _report(gaps: Sequence[str], file: str, choice: str) -> None:
    if gaps and choice == "skip":
        logger.warning(f"{file}: {len(gaps)} gaps in the labels are skipped: {'; '.join(gaps)}")
    elif gaps:
        shown = "; ".join(gaps[:_SHOWN]) + ("; …" if len(gaps) > _SHOWN else "")
        raise RecordError(
            f"{file}: {len(gaps)} gaps in the labels ({shown}); link them and export again, or set unlinked to skip"
        )


def _questions(document: Document, store: ImageStore) -> Iterator[Question]:
    for number, (question, answers) in enumerate(document.questions()):
        if answers:
            page = _page(document, answers)
            image = document.images[page - 1]
            dialogue = make_dialogue(
                id=f"{document.name}#{number}",
                question=question.text,
                answers=[answer.text for answer in answers],
                metadata={"document": document.name, "page": page},
            )
            yield Question(document.where, image, _file_name(image, document.where, store), dialogue)


def _page(document: Document, answers: Sequence[Entity]) -> int:
    pages = [page for answer in answers for page in answer.pages]
    if not pages and len(document.images) > 1:
        raise RecordError(f"{document.where}: {answers[0]} has no boundingBoxes, which tell the page it stands on")
    page = pages[0] if pages else 1
    if not 1 <= page <= len(document.images):
        raise RecordError(f"{document.where}: {answers[0]} stands on page {page} of {len(document.images)} images")
    return page


def _file_name(image: str, where: str, store: ImageStore) -> str:
    """The image's name as it is stored: some programs drop or replace the colons of time stamps as they unpack."""
    names = (image, image.replace(":", ""), image.replace(":", "_"))
    return next((name for name in names if locate(name, where, store) is not None), image)


BENCHMARK = Benchmark(
    name="ubiai",
    splits=("train", "val", "test"),
    read=read,
    instruction="",
    metric="vizwiz_accuracy",
    metric_variant="competition_fixed",
    score_answers=score_agreement,
    submission_file="",
    submit=None,
)
