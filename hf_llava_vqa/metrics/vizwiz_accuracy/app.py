"""The Space's page: type a prediction and what people answered, see the score and what the scorer compares."""

from pathlib import Path
from typing import Any

import evaluate
import gradio

FOLDER = Path(__file__).parent
metric = evaluate.load(str(FOLDER / "vizwiz_accuracy.py"))


def explain(prediction: str, answers: str, variant: str) -> tuple[float, str, list[list[str]]]:
    """Return the accuracy, the prediction as compared, and a row for each answer: given, as compared, same or not."""
    given = [line for line in answers.splitlines() if line.strip()]
    try:
        why: dict[str, Any] = metric.explain(prediction, given, variant)
    except ValueError as error:
        raise gradio.Error(str(error), print_exception=False) from None
    same = ["yes" if reading == why["prediction"] else "no" for reading in why["answers"]]
    return why["accuracy"], why["prediction"], [list(row) for row in zip(given, why["answers"], same, strict=True)]


page = gradio.Interface(
    fn=explain,
    inputs=[
        gradio.Textbox(label="Prediction", value="Coke can."),
        gradio.Textbox(label="Answers of people, one a line", lines=10, value="coke can\n" * 2 + "soda\n" * 8),
        gradio.Dropdown(label="Variant", choices=list(metric.variants), value=metric.variants[0]),
    ],
    outputs=[
        gradio.Number(label="Accuracy", precision=4),
        gradio.Textbox(label="Prediction as compared"),
        gradio.Dataframe(label="Answers", headers=["given", "as compared", "same"]),
    ],
    title="VizWiz accuracy",
    article=(FOLDER / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2],
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
