"""MMBench: multiple-choice questions about what a model perceives and concludes, each asked in every rotation.

Published by OpenCompass as one TSV file a split, with the columns `index, question, hint, A, B, C, D, answer, category,
image, …`, the picture in base64. A question with N options stands there N times, with its options rotated by one each
time; pass k has the index of the first plus k million. The test split has no answers; the server takes an Excel file.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hf_llava_vqa.data.benchmark import LETTER_ANSWER, Benchmark, Prediction
from hf_llava_vqa.data.reading.files import EmbeddedImages, Place, find_file
from hf_llava_vqa.data.reading.questions import Fields, Question, group_questions, with_options
from hf_llava_vqa.data.reading.tables import find_columns, read_rows, read_table
from hf_llava_vqa.data.scoring import Asked, Scores, only_answer
from hf_llava_vqa.data.submissions import answers_of_all, load_excel_writer, write_excel
from hf_llava_vqa.errors import RecordError, in_line
from hf_llava_vqa.images import LONGEST_BASE64
from hf_llava_vqa.metrics.mmbench.mmbench_rules import PASS_OFFSET, score
from hf_llava_vqa.metrics.mmbench.option_parsing import LETTERS, PARSERS
from hf_llava_vqa.records import Record, make_dialogue

FILES = {
    "dev": ("mmbench_dev_20230712.tsv", "mmbench_dev_en_20231003.tsv", "MMBench_DEV_EN.tsv"),
    "test": ("mmbench_test_20230712.tsv", "mmbench_test_en_20231003.tsv", "MMBench_TEST_EN.tsv"),
}
COLUMNS = ("index", "question", "A", "B", "C", "D", "image")
_NOT_METADATA = (*COLUMNS, "hint", "answer", "category")
_NO_TEXT = ("", "nan", "none")  # how the files leave a hint or an option out
_LONGEST_REFERENCE = 64  # characters: what is shorter is the index of the row that holds the picture

# The columns that LLaVA's submission leaves out, and where it puts the predictions.
_NOT_SUBMITTED = ("hint", "category", "source", "image", "comment", "l2-category")
_PREDICTION_PLACE = 6


def reader(source: str, files: Mapping[str, Sequence[str]]) -> Callable[..., Iterator[Record]]:
    """Return the reader of an edition of MMBench: the name of its records and those of its files, by split."""

    def read(split: str, *, root: Place = None, annotations: Place = None) -> Iterator[Record]:
        """Read a split, from `root` or from the file named by `annotations`.

        Args:
            root: folder with the TSV file.
            annotations: the TSV file.

        Yields:
            One record a picture, called by the index of the first row that shows it, with all questions and passes.
            A pass is asked as by LLaVA-1.5: the hint, the question, a line for each lettered option. Options end at
            the first that is empty.

        Raises:
            ConfigError: there is neither `root` nor `annotations`.
            RecordError: the file or a row is missing or has another shape; lines count from 1.
        """
        file = find_file(root, annotations, *files[split], keyword="annotations")
        store = EmbeddedImages(file)
        yield from group_questions(_questions(file, store, answered=split != "test"), store, source=source, split=split)

    return read


def _questions(file: str, store: EmbeddedImages, *, answered: bool) -> Iterator[Question]:
    table = read_table(file, COLUMNS, delimiter="\t", longest_field=LONGEST_BASE64)
    rows = [Fields(row, f"{file}, line {line}", ", ".join(COLUMNS)) for line, row in table]
    pictures = {row.row["index"]: row for row in rows}
    shown_first: dict[str, str] = {}  # name of a picture -> index of the first row that shows it
    for row in rows:
        holder = _holder(row, pictures)
        picture = store.add(holder.text("image"), holder.where)
        image_id = shown_first.setdefault(picture, row.text("index"))
        yield Question(row.where, image_id, picture, _dialogue(row, answered=answered))


def _holder(row: Fields, pictures: Mapping[str, Fields]) -> Fields:
    """The row with the picture: this one, or the one whose index stands in its place."""
    image = row.text("image")
    if len(image) > _LONGEST_REFERENCE or image not in pictures:
        return row
    return pictures[image]


def _dialogue(row: Fields, *, answered: bool) -> dict[str, Any]:
    index, hint, options = row.text("index"), row.row.get("hint", ""), _options(row)
    if not (index.isascii() and index.isdigit()):
        raise RecordError(f"{row.where}: index is {in_line(index)}; it must be a whole number")
    answer = row.text("answer") if answered else ""
    if answered and answer not in LETTERS[: len(options)]:
        raise RecordError(f"{row.where}: answer {in_line(answer)} is not the letter of one of {len(options)} options")
    hint = "" if hint.lower() in _NO_TEXT else hint
    asked = with_options(row.text("question"), options)
    return make_dialogue(
        id=index,
        question=f"{hint}\n{asked}" if hint else asked,
        answers=[answer] if answered else [],
        answer_type=row.row.get("category", ""),
        choices=options,
        context=hint,
        metadata=row.rest(_NOT_METADATA),
    )


def _options(row: Fields) -> list[str]:
    options = []
    for letter in LETTERS:
        if row.row[letter].lower() in _NO_TEXT:
            break
        options.append(row.row[letter])
    if not options:
        raise RecordError(f"{row.where}: no options; download the file again")
    return options


def score_answers(answers: Sequence[str], asked: Sequence[Asked], variant: str) -> Scores:
    """Circular accuracy: a question counts if all its passes are right. Answers are read without asking a judge."""
    references = [_reference(dialogue) for _, dialogue in asked]
    result = score(answers, references, variant)
    parse = PARSERS[variant]
    right = [
        parse(answer, reference["choices"]) == reference["answer"]
        for answer, reference in zip(answers, references, strict=True)
    ]
    passes: defaultdict[int, list[bool]] = defaultdict(list)
    for reference, is_right in zip(references, right, strict=True):
        passes[reference["index"] % PASS_OFFSET].append(is_right)
    first = [reference["index"] == reference["index"] % PASS_OFFSET for reference in references]
    hits = [all(passes[reference["index"] % PASS_OFFSET]) for reference in references]
    return Scores(
        per_question=[float(is_right) for is_right in right],
        by=result["by_category"],
        details=result,
        counts=[(float(is_first and hit), float(is_first)) for is_first, hit in zip(first, hits, strict=True)],
    )


def _reference(dialogue: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": int(dialogue["id"]),
        "answer": only_answer(dialogue),
        "choices": dialogue["choices"],
        "category": dialogue["answer_type"] or None,
    }


def find_template(files: Sequence[str], root: str | Path | None, template: str | Path | None = None) -> str:
    """Find the TSV file whose questions the server's file repeats: `template`, or that of the test split in `root`.

    Raises:
        ConfigError: there is neither `template` nor `root`, or the package openpyxl is not installed.
        RecordError: there is no such file.
    """
    load_excel_writer()  # its lack should be known before the questions are answered
    return find_file(root, template, *files, keyword="template")


def submit(predictions: Sequence[Prediction], path: Path, template: str) -> None:
    """Write the Excel file that the server takes: the questions of `template`, with the raw answers as `prediction`.

    Raises:
        ConfigError: the package openpyxl is not installed.
        RecordError: the template is missing or of another shape, two predictions for one index, an index that only
            the predictions or only the template has, a text that Excel cannot hold.
    """
    (_, header), *rows = read_rows(template, delimiter="\t", longest_field=LONGEST_BASE64)
    [index] = find_columns(header, ("index",), template)
    answers = answers_of_all([row[index] for _, row in rows], predictions, template)
    kept = [place for place, name in enumerate(header) if name.strip().lower() not in _NOT_SUBMITTED]
    before, after = kept[:_PREDICTION_PLACE], kept[_PREDICTION_PLACE:]
    lines: list[list[str | int]] = [[*(header[place] for place in before), "prediction", *(header[p] for p in after)]]
    for _, row in rows:
        cells = [int(row[place]) if place == index and row[place].isdecimal() else row[place] for place in before]
        lines.append([*cells, answers[row[index]], *(row[place] for place in after)])
    write_excel(lines, Path(path))


BENCHMARK = Benchmark(
    name="mmbench",
    homepage="https://github.com/open-compass/MMBench",
    splits=tuple(FILES),
    read=reader("mmbench", FILES),
    instruction=LETTER_ANSWER,
    metric="mmbench",
    metric_variant="vlmevalkit",
    evaluation_split="dev",
    score_answers=score_answers,
    submission_file="submission.xlsx",
    submit=submit,
    find_template=partial(find_template, FILES["test"]),
)
