"""What files for servers share: predictions checked against the questions they answer, and the kinds of file."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hf_llava_vqa.data.benchmark import Prediction
from hf_llava_vqa.errors import ConfigError, RecordError, in_line


def answers_by_id(predictions: Sequence[Prediction]) -> dict[str, str]:
    """The answers by the ids of their questions; raises `RecordError` for an id that was predicted twice."""
    answers: dict[str, str] = {}
    for prediction in predictions:
        if prediction["id"] in answers:
            raise RecordError(f"two predictions for {in_line(prediction['id'])}: a question is answered once")
        answers[prediction["id"]] = prediction["answer"]
    return answers


def known_answers(ids: Sequence[str], predictions: Sequence[Prediction], file: str) -> dict[str, str]:
    """The answers by id, each to a question of `file`, of which some may be without.

    Args:
        ids: of all questions in `file`.
        file: what the server's questions were read from, for messages.

    Raises:
        RecordError: `file` has an id twice, two predictions for one id, a prediction for an id that `file` lacks.
    """
    answers = answers_by_id(predictions)
    wanted = Counter(ids)
    [(id, times)] = wanted.most_common(1) or [("", 0)]
    if times > 1:
        raise RecordError(f"{file}: ID {in_line(id)} stands there {times} times; download the file again")
    unknown = [id for id in answers if id not in wanted]
    if unknown:
        raise RecordError(f"{file}: no ID {in_line(unknown[0])}, which was predicted; answer the split of this file")
    return answers


def answers_of_all(ids: Sequence[str], predictions: Sequence[Prediction], file: str) -> dict[str, str]:
    """The answers by id, one to each question of `file`. Arguments and errors as `known_answers`, and

    Raises:
        RecordError: a question is without prediction.
    """
    answers = known_answers(ids, predictions, file)
    missing = [id for id in ids if id not in answers]
    if missing:
        raise RecordError(
            f"{file}: no prediction for ID {in_line(missing[0])} ({len(missing)} of {len(ids)} are missing); "
            "answer all of its split"
        )
    return answers


def write_json(content: Any, path: str | Path) -> None:
    """Write a JSON file of ASCII, with its folder if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=0) + "\n", encoding="ascii")


def load_excel_writer() -> ModuleType:
    """Import openpyxl; raises `ConfigError` where it is not installed."""
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise ConfigError('an Excel file needs the package openpyxl: pip install "hf-llava-vqa[mmbench]"') from None
    return openpyxl


def write_excel(rows: Sequence[Sequence[str | int]], path: str | Path) -> None:
    """Write one sheet of an Excel file, with its folder if need be. Texts stay texts, "" is an empty cell.

    Raises:
        ConfigError: the package openpyxl is not installed.
        RecordError: a text that Excel cannot hold.
    """
    excel = load_excel_writer()
    book = excel.Workbook()
    for line, row in enumerate(rows, start=1):
        for column, value in enumerate(row, start=1):
            cell = book.active.cell(line, column)
            try:
                cell.value = value if value != "" else None
            except excel.utils.exceptions.IllegalCharacterError:
                raise RecordError(f"{path}, row {line}: {value!r} holds characters that Excel cannot store") from None
            if isinstance(value, str) and value:
                cell.data_type = "s"  # no formula, whatever it begins with
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
