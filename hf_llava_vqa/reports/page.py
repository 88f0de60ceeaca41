"""One self-contained HTML page for a run: scores, curves, and examples to look at.

The page loads nothing: pictures and curves are inside it, there is no script, and it forbids the browser to
fetch anything. The layout is `page.html.jinja`; every text that comes from data is escaped there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from markupsafe import Markup

from hf_llava_vqa.images import open_image
from hf_llava_vqa.reports.curves import History, accuracy_curve, loss_curve
from hf_llava_vqa.reports.html import inline_picture, load_template, write_html
from hf_llava_vqa.reports.stats import Interval

ROLE_NAMES = {
    "question_only": "Question only",
    "base": "Base model",
    "adapter": "Adapter",
    "merged": "Merged model",
}
BASELINES = ("question_only", "base")


class Score(TypedDict):
    """One line of the score table; fractions from 0 to 1."""

    role: str
    score: float
    interval: Interval
    n: int


class GradedAnswer(TypedDict):
    """What one model answered, and its VQA accuracy from 0 to 1."""

    answer: str
    score: float


class Example(TypedDict):
    """One question to look at. `image` is anything `images.open_image` takes."""

    image: Any
    question: str
    answers: list[str]
    predictions: Mapping[str, GradedAnswer]


def write_page(
    path: str | Path,
    *,
    title: str,
    subtitle: str,
    metric: str,
    scores: Sequence[Score],
    ceiling: float | None,
    history: History,
    examples: Sequence[Example],
) -> None:
    """Write the page, with its folder if need be.

    Args:
        path: the HTML file.
        title, subtitle: plain text.
        metric: what the scores are called.
        scores: one entry a model; its `role` is a key of `ROLE_NAMES` or any other name.
        ceiling: the best score any fixed answer per question can get, from 0 to 1; None if it is not known.
        history: `log_history` of a `trainer_state.json`; empty without training.
        examples: shown in this order.

    Raises:
        ImageError: an example's image cannot be opened.
    """
    template = load_template(
        "page.html.jinja",
        percent=lambda fraction: f"{100 * fraction:.1f}",
        role_name=lambda role: ROLE_NAMES.get(role, role),
        verdict=_verdict,
    )
    write_html(
        path,
        template,
        title=title,
        subtitle=subtitle,
        metric=metric,
        scores=scores,
        ceiling=ceiling,
        curves=_curves(history, metric, ceiling),
        examples=[_card(example) for example in examples],
        baselines=BASELINES,
    )


def _curves(history: History, metric: str, ceiling: float | None) -> dict[str, Markup]:
    """Return the curves that the history allows, by caption. matplotlib has escaped the text in them."""
    drawn = {"Loss": loss_curve(history), metric: accuracy_curve(history, ceiling)}
    return {caption: Markup(svg) for caption, svg in drawn.items() if svg is not None}


def _card(example: Example) -> dict[str, Any]:
    return {
        "image": inline_picture(open_image(example["image"])),
        "question": example["question"],
        "answers": Counter(example["answers"]).most_common(),
        "predictions": example["predictions"],
    }


def _verdict(score: float) -> str:
    if score == 0:
        return "wrong"
    return "right" if score >= 1 else "partly"
