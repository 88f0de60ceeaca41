"""LLaVA-Bench (in the wild): what to ask the judge, and the official aggregation of what it says. Pure functions that
call nobody."""

from collections.abc import Mapping, Sequence
from typing import Any

from .rows import Row, identifier, list_of, mean, pair, row_of, text

JUDGE = {"model": "gpt-4-0314", "temperature": 0.2, "max_tokens": 1024}
_SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
_HIGHEST = 10.0
_CATEGORY_PREFIX = "llava_bench_"

read_reference = row_of({"category": text}, {})


def _read_caption(value: Any, place: str) -> str:
    """Read the description of a picture: a string, or a list of them, one a line."""
    return text(value, place) if isinstance(value, str) else "\n".join(list_of(text)(value, place))


_read_questions = list_of(row_of({"question_id": identifier, "image": text, "text": text, "category": text}, {}))
_read_contexts = list_of(row_of({"image": text, "caption": _read_caption}, {}))
_read_answers = list_of(row_of({"question_id": identifier, "text": text}, {}))
_read_rule = row_of({"role": text, "prompt": text}, {})
_read_reviews = list_of(row_of({"question_id": identifier, "category": text, "content": text}, {}))


def judge_requests(
    questions: Sequence[Mapping[str, Any]],
    contexts: Sequence[Mapping[str, Any]],
    reference_answers: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    rules: Mapping[str, Mapping[str, str]],
) -> list[Row]:
    """Return what to send to the judge, one request a question, in the questions' order.

    Args:
        questions: `{"question_id", "image", "text", "category"}`, the lines of questions.jsonl.
        contexts: `{"image", "caption"}`, the lines of context.jsonl.
        reference_answers: `{"question_id", "text"}`, GPT-4's answers, which the judge sees first.
        answers: `{"question_id", "text"}`, the model's.
        rules: role and prompt by category, LLaVA's rule.json.

    Returns:
        `question_id`, `category`, and the body of a chat request: `model`, `temperature`, `max_tokens`, `messages`.

    Raises:
        ValueError: a question has no context, rule or answer, or an entry has another form.
    """
    caption_of = {context["image"]: context["caption"] for context in _read_contexts(contexts, "contexts")}
    first = _text_by_id(reference_answers, "reference_answers")
    second = _text_by_id(answers, "answers")
    requests = []
    for row, question in enumerate(_read_questions(questions, "questions")):
        place = f"questions[{row}]"
        category = _CATEGORY_PREFIX + question["category"]
        content = _content(
            _look_up(caption_of, question["image"], "context of the image", place),
            question["text"],
            _look_up(first, question["question_id"], "reference answer to", place),
            _look_up(second, question["question_id"], "answer to", place),
            _read_rule(_look_up(rules, category, "rule for", place), f"rules.{category}"),
        )
        messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": content}]
        requests.append({"question_id": question["question_id"], "category": category, **JUDGE, "messages": messages})
    return requests


def _text_by_id(answers: Sequence[Mapping[str, Any]], name: str) -> dict[str, str]:
    return {answer["question_id"]: answer["text"] for answer in _read_answers(answers, name)}


def _look_up(table: Mapping[Any, Any], key: Any, what: str, place: str) -> Any:
    if key not in table:
        raise ValueError(f"{place}: there is no {what} {key!r}")
    return table[key]


def _content(caption: str, question: str, first: str, second: str, rule: Mapping[str, str]) -> str:
    """Lay out one question with both answers as LLaVA's script does."""
    role = rule["role"]
    sections = {
        "Context": caption,
        "Question": question,
        f"{role} 1": f"{first}\n\n[End of {role} 1]",
        f"{role} 2": f"{second}\n\n[End of {role} 2]",
        "System": rule["prompt"],
    }
    return "".join(f"[{title}]\n{body}\n\n" for title, body in sections.items())


def read_reviews(lines: Sequence[Mapping[str, Any]]) -> tuple[list[Row], list[Row]]:
    """Return predictions and references, for `score`, of a review file as LLaVA's script writes it.

    Args:
        lines: `{"question_id", "category", "content"}`, the judge's reply being the content.

    Raises:
        ValueError: a line has another form.
    """
    reviews = _read_reviews(lines, "lines")
    predictions = [{"id": review["question_id"], "prediction": review["content"]} for review in reviews]
    references = [
        {"id": review["question_id"], "category": review["category"].removeprefix(_CATEGORY_PREFIX)}
        for review in reviews
    ]
    return predictions, references


def read_prediction(value: Any, place: str) -> str:
    """Read a reply of the judge, which must hold two scores."""
    try:
        parse_reply(text(value, place))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return value


def parse_reply(reply: str) -> tuple[float, float]:
    """Return the scores of the reference and of the model, the two numbers on the reply's first line.

    Raises:
        ValueError: the first line is not two numbers from 0 to 10. The official script counts such a reply as -1 for
            both; the judge should be asked again.
    """
    first_line = reply.split("\n")[0]
    try:
        reference, model = map(float, first_line.replace(",", " ").split())
    except ValueError:
        reference, model = -1.0, -1.0
    if not (0 <= reference <= _HIGHEST and 0 <= model <= _HIGHEST):
        raise ValueError(f"expected two scores from 0 to 10 on the reply's first line, got {first_line!r:.60}")
    return reference, model


def score(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """Aggregate the judge's replies.

    Args:
        predictions: the replies in the references' order, or `{"id", "prediction"}` in any order; the first line of
            each is the score of the reference answer and that of the model's.
        references: the category of each question, or `{"category", "id"}`.

    Returns:
        `relative_score`, the model's mean score over the reference's (None if that is 0), `relative_percent`, the
        same as officially rounded, `reference_mean` and `model_mean` (0 to 10), `n`; `by_category`, the same again.

    Raises:
        ValueError: an argument has another form; the message names the place.
    """
    replies, rows = pair(predictions, references, read_reference, read_prediction)
    scores = [parse_reply(reply) for reply in replies]
    categories = [row["category"] for row in rows]
    by_category = {
        name: _aggregate([both for both, category in zip(scores, categories, strict=True) if category == name])
        for name in sorted(set(categories))
    }
    return {**_aggregate(scores), "by_category": by_category}


def _aggregate(scores: Sequence[tuple[float, float]]) -> dict[str, Any]:
    reference, model = (mean(column) for column in zip(*scores, strict=True))
    return {
        "relative_score": model / reference if reference else None,
        # Officially the means are rounded before they are divided.
        "relative_percent": round(round(model, 3) / round(reference, 3) * 100, 1) if reference else None,
        "reference_mean": reference,
        "model_mean": model,
        "n": len(scores),
    }
