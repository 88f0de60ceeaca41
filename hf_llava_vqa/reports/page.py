"""One self-contained HTML page for a run: scores, curves, and examples to look at.

The page loads nothing: pictures and curves are inside it, there is no script, and it forbids the browser to
fetch anything. The layout is `page.html.jinja`; every text that comes from data is escaped there.
"""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from hf_llava_vqa.images import open_image
from hf_llava_vqa.reports.curves import History, accuracy_curve, loss_curve
from hf_llava_vqa.reports.stats import Interval

THUMBNAIL = 480  # longest side in pixels: twice the width a card shows, for dense screens
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
    scores: Sequence[Score],
    ceiling: float | None,
    history: History,
    examples: Sequence[Example],
) -> None:
    """Write the page, with its folder if need be.

    Args:
        path: the HTML file.
        title, subtitle: plain text.
        scores: one entry a model; its `role` is a key of `ROLE_NAMES` or any other name.
        ceiling: the best score any fixed answer per question can get, from 0 to 1; None if it is not known.
        history: `log_history` of a `trainer_state.json`; empty without training.
        examples: shown in this order.

    Raises:
        ImageError: an example's image cannot be opened.
    """
    page = _template().render(
        title=title,
        subtitle=subtitle,
        scores=scores,
        ceiling=ceiling,
        curves=_curves(history, ceiling),
        examples=[_card(example) for example in examples],
        baselines=BASELINES,
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(page, encoding="utf-8")


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda fraction: f"{100 * fraction:.1f}"
    environment.filters["role_name"] = lambda role: ROLE_NAMES.get(role, role)
    environment.filters["verdict"] = _verdict
    return environment.get_template("page.html.jinja")


def _curves(history: History, ceiling: float | None) -> dict[str, Markup]:
    """Return the curves that the history allows, by caption. matplotlib has escaped the text in them."""
    drawn = {"Loss": loss_curve(history), "VizWiz accuracy": accuracy_curve(history, ceiling)}
    return {caption: Markup(svg) for caption, svg in drawn.items() if svg is not None}


def _card(example: Example) -> dict[str, Any]:
    return {
        "image": _inline(example["image"]),
        "question": example["question"],
        "answers": Counter(example["answers"]).most_common(),
        "predictions": example["predictions"],
    }


def _inline(source: Any) -> str:
    """Return a picture as a `data:` address, no larger than a thumbnail."""
    image = open_image(source)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=90)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _verdict(score: float) -> str:
    if score == 0:
        return "wrong"
    return "right" if score >= 1 else "partly"
