"""How well a base reads pictures it was never trained on, in its own style of full sentences."""

import io
import re
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa.demo.dialogues import QUESTIONS, ask
from hf_llava_vqa.demo.pictures import COLORS, KINDS, Scene, blur, draw
from hf_llava_vqa.generation import answer_questions
from hf_llava_vqa.records import make_dialogue, make_record

DESCRIBE = "Describe the picture."
IN_A_SENTENCE = "Answer with a full sentence."


def base_quality(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, scenes: Sequence[Scene], *, seed: int = 0
) -> dict[str, float]:
    """Shares of right sentences, 0..1: descriptions, answers by topic, and descriptions of blurred pictures.

    A description is right if it names the kind and the colour shown and no other, that of a blurred picture if it
    names none.
    """
    rng = np.random.default_rng(seed)
    sharp = [draw(scene) for scene in scenes]
    blurred = [blur(pixels, rng) for pixels in sharp]
    described = _answers(model, processor, sharp, [DESCRIBE] * len(scenes))
    unread = _answers(model, processor, blurred, [DESCRIBE] * len(scenes))
    quality = {
        "description": _mean(_names(text) == {s.kind, s.color} for text, s in zip(described, scenes, strict=True)),
        "blurred description": _mean(not _names(text) for text in unread),
    }
    for topic, wordings in QUESTIONS.items():
        asked = [ask(scene, topic, wordings, rng) for scene in scenes]
        said = _answers(model, processor, sharp, [f"{question}\n{IN_A_SENTENCE}" for question, _, _ in asked])
        quality[topic] = _mean(_says(text, truth) for text, (_, truth, _) in zip(said, asked, strict=True))
    return quality


def _answers(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, pictures: Sequence[np.ndarray], asked: list[str]
) -> list[str]:
    records = [
        make_record(image_id=str(number), images=[_png(pixels)], dialogues=[make_dialogue(id="0", question=question)])
        for number, (pixels, question) in enumerate(zip(pictures, asked, strict=True))
    ]
    predictions = answer_questions(model, processor, records, batch_size=64, max_new_tokens=24)
    return [prediction["answer"] for prediction in predictions]


def _says(sentence: str, truth: str) -> bool:
    """Whether a sentence gives the short answer `truth`; a refusal starts with or contains the word no."""
    words = set(re.findall(r"\w+", sentence.lower()))
    if truth in ("yes", "no"):
        return truth in words and not ("yes" in words and "no" in words)
    rivals = KINDS if truth in KINDS else tuple(COLORS)
    return words.intersection(rivals) == {truth}


def _names(sentence: str) -> set[str]:
    return set(re.findall(r"\w+", sentence.lower())).intersection([*KINDS, *COLORS])


def _mean(flags: Iterable[bool]) -> float:
    return float(np.mean(list(flags)))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
