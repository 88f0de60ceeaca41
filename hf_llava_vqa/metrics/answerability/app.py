"""The Space's page: the arguments of `compute` as JSON, and the scores."""

import json
from pathlib import Path
from typing import Any

import evaluate
import gradio

FOLDER = Path(__file__).parent
metric = evaluate.load(str(FOLDER / "answerability.py"))


def compute(predictions: str, references: str, options: str) -> dict[str, Any]:
    """Return the scores; what cannot be scored is shown as one line."""
    try:
        given = {"predictions": json.loads(predictions), "references": json.loads(references)}
        return metric.compute(**given, **json.loads(options))
    except (ValueError, TypeError) as error:
        raise gradio.Error(str(error), print_exception=False) from None


page = gradio.Interface(
    fn=compute,
    inputs=[
        gradio.Textbox(label="Predictions, a JSON list", lines=6),
        gradio.Textbox(label="References, a JSON list", lines=6),
        gradio.Textbox(label="Options, a JSON object", value="{}"),
    ],
    outputs=gradio.JSON(label="Scores"),
    title=metric.name,
    article=(FOLDER / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2],
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
