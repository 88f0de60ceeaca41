"""What the page draws of a split: its distributions as bars."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hf_llava_vqa.reports.inspection.numbers import Distribution


class Bar(NamedTuple):
    """One bar of a figure."""

    label: str
    number: int
    share: float  # of the longest bar, 0 to 1


class Figure(NamedTuple):
    """A distribution: `columns` stand side by side from `low` to `high`, `lines` lie below each other with labels."""

    title: str
    note: str
    kind: str
    bars: list[Bar]
    low: str = ""
    high: str = ""


def figures_of(split: Mapping[str, Any]) -> Iterator[Figure]:
    """The figures of one split, in the order in which they are shown."""
    answers, pictures, tokens = split["answers"], split["pictures"], split["tokens"]
    if answers["top"]:
        note = f"{answers['distinct']:,} different ones among {answers['answers']:,}; as VizWiz reads them"
        yield Figure("Most frequent answers", note, "lines", _bars(answers["top"]))
    for name, title in (
        ("questions_per_image", "Questions per record"),
        ("answers_per_question", "Answers per question"),
    ):
        if answers[name]:
            yield Figure(title, "", "lines", _bars(answers[name].items()))
    for numbers, title, unit in (
        (pictures["width"], "Width", "px"),
        (pictures["height"], "Height", "px"),
        (pictures["aspect"], "Width / height", ""),
        (tokens and tokens["paths"], "Tokens of a path", "tokens"),
        (tokens and tokens["rows"], "Tokens of a row", "tokens"),
    ):
        if numbers is not None:
            yield _columns(title, numbers, unit)


def _bars(counts: Iterable[tuple[str, int]]) -> list[Bar]:
    counts = list(counts)
    longest = max(count for _, count in counts)
    return [Bar(label, count, count / longest) for label, count in counts]


def _columns(title: str, numbers: Distribution, unit: str) -> Figure:
    bars = _bars((f"{_short(low)} to {_short(high)}", count) for low, high, count in numbers["bars"])
    note = f"median {_short(numbers['median'])}, 95 % up to {_short(numbers['p95'])} {unit}"
    return Figure(title, note.strip(), "columns", bars, _short(numbers["min"]), _short(numbers["max"]))


def _short(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:,.2f}"
