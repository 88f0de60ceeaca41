"""Three questions about two pictures, and predictions for them."""

from typing import Any

from hf_llava_vqa.generation import questions
from hf_llava_vqa.records import make_dialogue, make_record


def record(name: str, *asked: tuple[str, list[str], str]) -> dict[str, Any]:
    dialogues = [
        make_dialogue(id=f"{name}#{k}", question=question, answers=answers, answer_type=answer_type)
        for k, (question, answers, answer_type) in enumerate(asked)
    ]
    return make_record(image_id=name, dialogues=dialogues, source="vizwiz", split="val")


RECORDS = [
    record("a", ("what?", ["cat"] * 10, "other"), ("is it?", ["yes"] * 7 + ["no"] * 3, "yes/no")),
    record("b", ("what?", ["dog"] * 2 + [f"thing {k}" for k in range(8)], "my own label")),
]
ASKED = list(questions(RECORDS))


def predictions(*answers: str) -> list[dict[str, Any]]:
    """Answers to the three, in order."""
    return [
        {
            "id": dialogue["id"],
            "image_id": row["image_id"],
            "question": dialogue["turns"][-1]["content"],
            "answer": answer,
            "confidence": 1.0,
        }
        for (row, dialogue), answer in zip(ASKED, answers, strict=True)
    ]
