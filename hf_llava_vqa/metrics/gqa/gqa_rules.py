"""GQA: exact match, and the official measures of how an answer fits its question, the world and other answers. Pure
functions."""

import string
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .rows import Row, flag, integer, list_of, mean, mean_by, named, pair, row_of, text

_texts = list_of(text)

read_reference = row_of(
    {"answer": text},
    {
        "is_balanced": flag,
        "structural": text,
        "semantic": text,
        "detailed": text,
        "words": integer,
        "steps": integer,
        "global_group": text,
        "entailed": _texts,
        "valid": _texts,
        "plausible": _texts,
    },
)

# The last operations of a program that do not count as a step of reasoning.
_FINAL_OPERATIONS = ("exist", "query: name", "choose name")
# What is asked for by questions whose detailed type holds "Common", in place of their own valid answers.
_COMMON_ANSWERS = ("color", "material", "shape")


def convert_llava(answer: str) -> str:
    """Return the answer as LLaVA submits it: without final periods, in lower case, spaces untouched."""
    return answer.rstrip(".").lower()


def normalize_lmms(answer: str) -> str:
    """Return the text as lmms-eval compares it: in lower case, without ASCII punctuation."""
    return answer.lower().translate(str.maketrans("", "", string.punctuation))


@dataclass(frozen=True)
class Variant:
    """How one scorer reads answers before it compares them."""

    read_prediction: Callable[[str], str]
    read_reference: Callable[[str], str]


VARIANTS = {
    "llava": Variant(convert_llava, str),
    "official": Variant(str, str),
    "lmms": Variant(normalize_lmms, normalize_lmms),
}


def read_question(question_id: str, question: Mapping[str, Any], choices: Mapping[str, Any] | None = None) -> Row:
    """Return a question of GQA's own files as `score` takes it.

    Args:
        question_id: its key in the questions file.
        question: its value there.
        choices: its value in the choices file, `{"valid", "plausible"}`.
    """
    operations = [f"{step['operation']}: {step['argument']}" for step in question["semantic"]]
    steps = [name for name in operations if not any(final in name for final in _FINAL_OPERATIONS)]
    return {
        "id": question_id,
        "answer": question["answer"],
        "is_balanced": question["isBalanced"],
        "structural": question["types"]["structural"],
        "semantic": question["types"]["semantic"],
        "detailed": question["types"]["detailed"],
        "words": len(question["question"].split()),
        "steps": len(steps),
        "global_group": question["groups"]["global"],
        "entailed": list(question["entailed"]),
        "valid": None if choices is None else list(choices["valid"]),
        "plausible": None if choices is None else list(choices["plausible"]),
    }


def score(predictions: Sequence[Any], references: Sequence[Any], variant: str = "llava") -> dict[str, Any]:
    """Score GQA.

    Args:
        predictions: raw texts in the references' order, or `{"id", "prediction"}` in any order.
        references: for each question its answer, or a dict with `answer` and any of `id`, `is_balanced` (others
            are only used for consistency), `structural`, `semantic`, `detailed`, `words`, `steps`, `global_group`,
            `entailed` (ids), `valid`, `plausible` (answers), as `read_question` returns.
        variant: how to read answers, a key of `VARIANTS`.

    Returns:
        `accuracy`, 0 to 1, over the balanced questions, and `n`, their number; `by_structural`, `by_semantic`,
        `by_words`, `by_steps`; and, None where what they need is not given: `open` and `binary` accuracy,
        `validity`, `plausibility`, `consistency` (0 to 1) and `distribution` (chi-square, lower is better).

    Raises:
        ValueError: an argument has another form, or a field is given for some balanced questions only; the message
            names the place.
    """
    rules: Variant = named(VARIANTS, variant, "variant")
    texts, rows = pair(predictions, references, read_reference)
    answers = [rules.read_prediction(answer) for answer in texts]
    golds = [rules.read_reference(row["answer"]) for row in rows]
    correct = [float(answer == gold) for answer, gold in zip(answers, golds, strict=True)]
    balanced = [index for index, row in enumerate(rows) if row["is_balanced"] is not False]
    if not balanced:
        raise ValueError("references: expected at least one balanced question, got none")

    def column(name: str) -> list[Any]:
        return [rows[index][name] for index in balanced]

    def by(labels: Sequence[Any]) -> dict[Any, float]:
        return mean_by([correct[index] for index in balanced], labels)

    forms = by([None if kind is None else "open" if kind == "query" else "binary" for kind in column("structural")])
    return {
        "accuracy": mean([correct[index] for index in balanced]),
        "open": forms.get("open"),
        "binary": forms.get("binary"),
        "validity": _share_inside("valid", answers, rows, balanced, rules.read_reference),
        "plausibility": _share_inside("plausible", answers, rows, balanced, rules.read_reference),
        "consistency": _consistency(correct, rows, balanced),
        "distribution": _distribution(answers, golds, rows, balanced),
        "by_structural": by(column("structural")),
        "by_semantic": by(column("semantic")),
        "by_words": by(column("words")),
        "by_steps": by(column("steps")),
        "n": len(balanced),
    }


def _share_inside(
    field: str, answers: Sequence[str], rows: Sequence[Row], balanced: Sequence[int], read: Callable[[str], str]
) -> float | None:
    """Return how often an answer is one of those listed for its question."""
    if not _given_for_all(field, rows, balanced):
        return None
    inside = []
    for index in balanced:
        row = rows[index]
        listed = _COMMON_ANSWERS if "Common" in (row["detailed"] or "") else map(read, row[field])
        inside.append(float(answers[index] in listed))
    return mean(inside)


def _consistency(correct: Sequence[float], rows: Sequence[Row], balanced: Sequence[int]) -> float | None:
    """Return the average, over correctly answered questions, of the accuracy on the questions they entail."""
    if not _given_for_all("entailed", rows, balanced):
        return None
    index_of = {row["id"]: index for index, row in enumerate(rows)}
    scores = []
    for index in balanced:
        entailed = [name for name in rows[index]["entailed"] if name != rows[index]["id"]]
        unknown = [name for name in entailed if name not in index_of]
        if unknown:
            raise ValueError(f"references[{index}].entailed: no reference has the id {unknown[0]!r}")
        if correct[index] and entailed:
            scores.append(mean([correct[index_of[name]] for name in entailed]))
    return mean(scores) if scores else None


def _distribution(
    answers: Sequence[str], golds: Sequence[str], rows: Sequence[Row], balanced: Sequence[int]
) -> float | None:
    """Return the chi-square of predicted against true answers within each global group, averaged over questions."""
    given: defaultdict[str, Counter[str]] = defaultdict(Counter)
    wanted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for index in balanced:
        group = rows[index]["global_group"]
        if group is not None:
            given[group][answers[index]] += 1
            wanted[group][golds[index]] += 1
    if not wanted:
        return None
    total = sum(counts.total() for counts in wanted.values())
    weighted = [
        counts.total() * sum((given[group][gold] - count) ** 2 / count for gold, count in counts.items())
        for group, counts in wanted.items()
    ]
    return sum(weighted) / total / 100


def _given_for_all(field: str, rows: Sequence[Row], balanced: Sequence[int]) -> bool:
    """Whether all balanced questions have the field; some questions only is an error."""
    missing = [index for index in balanced if rows[index][field] is None]
    if missing and len(missing) < len(balanced):
        raise ValueError(f"references[{missing[0]}]: expected {field!r}, which other questions have, got none")
    return not missing
