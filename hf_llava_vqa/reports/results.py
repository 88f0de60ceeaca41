"""Evaluations on several benchmarks as one table: a row a model, a column a benchmark, in per cent.

The first seven columns and their average are those in which DoRA and LLaVA-1.5 were compared, in that order and under
those names (NVlabs/DoRA, visual_instruction_tuning); other benchmarks follow.
"""

from collections.abc import Callable, Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any

from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.reports.scores import read_scores

COLUMNS = {
    "vqav2": "VQAv2",
    "gqa": "GQA",
    "vizwiz": "VisWiz",
    "scienceqa": "SQA",
    "textvqa": "VQAT",
    "pope": "POPE",
    "mmbench": "MMBench",
}
"""The seven benchmarks of the published table, and what it calls them."""

AVERAGE = "Avg"
NOT_MEASURED = "-"

_FIGURES: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "scienceqa": lambda scores: scores["metric"]["image_accuracy"],  # "SQA" there is of questions with a picture
}

Content = Mapping[str, Any]


def read_results(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The `scores.json` of each folder.

    Raises:
        RecordError: a folder without scores, or benchmarks that were answered on different splits or questions.
    """
    contents = [read_scores(folder) for folder in folders]
    first: dict[str, tuple[Path, str]] = {}
    for folder, content in zip(folders, contents, strict=True):
        for name in content["benchmarks"]:
            found = _questions(content, name)
            earlier, expected = first.setdefault(name, (folder, found))
            if found != expected:
                raise RecordError(f"{name} is of {found} in {folder}, of {expected} in {earlier}; evaluate both alike")
    return contents


def results_table(contents: Sequence[Content]) -> str:
    """Results as a Markdown table, and below it which questions they are of.

    A benchmark that was not measured shows as `-`, and so does the average of a row without all seven.
    """
    measured = dict.fromkeys(name for content in contents for name in content["benchmarks"])
    others = [name for name in measured if name not in COLUMNS]
    header = ["Method", *COLUMNS.values(), AVERAGE, *others]
    rows = [[content["model"], *map(_percent, _row(content["benchmarks"], others))] for content in contents]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in _aligned(lines))
    ordered = [name for name in (*COLUMNS, *others) if name in measured]
    holders = [next(content for content in contents if name in content["benchmarks"]) for name in ordered]
    notes = [f"{name}: {_questions(content, name)}" for name, content in zip(ordered, holders, strict=True)]
    return f"{table}\n\nPer cent. {'; '.join(notes)}.\n"


def _row(scores: Mapping[str, Mapping[str, Any]], others: Sequence[str]) -> list[float | None]:
    seven = [_figure(scores, name) for name in COLUMNS]
    complete = [figure for figure in seven if figure is not None]
    average = fsum(complete) / len(complete) if len(complete) == len(COLUMNS) else None
    return [*seven, average, *(_figure(scores, name) for name in others)]


def _figure(scores: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    """What the column of a benchmark shows, from 0 to 1; None if it was not measured."""
    if name not in scores:
        return None
    return _FIGURES[name](scores[name]) if name in _FIGURES else scores[name]["score"]


def _percent(figure: float | None) -> str:
    return NOT_MEASURED if figure is None else f"{100 * figure:.1f}"


def _questions(content: Content, name: str) -> str:
    split, count = content["settings"]["benchmarks"][name]["split"], content["benchmarks"][name]["n"]
    return f"{count:,} questions of {split}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cells padded to the widths of their columns, figures to the right: a table also where Markdown is not drawn."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
