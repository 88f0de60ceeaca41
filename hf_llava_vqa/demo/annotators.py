"""Ten simulated people who answer a question about a picture, and now and then disagree.

They stand in for VizWiz's crowd workers; no person answered anything here.
"""

from dataclasses import dataclass

import numpy as np

from hf_llava_vqa.demo.pictures import COLORS, KINDS

ANNOTATORS = 10
UNANSWERABLE = "unanswerable"
PLAUSIBLE = {"color": tuple(COLORS), "kind": KINDS, "yes/no": ("yes", "no")}  # answers by topic


@dataclass(frozen=True)
class Crowd:
    """How the annotators behave; shares are in 0..1."""

    disagreement: float = 0.15  # on a sharp picture: another plausible answer of the same kind instead of the truth
    guessing: float = 0.25  # on a blurred picture: a plausible answer instead of "unanswerable"
    agreeing: int = 6  # of ten, at least so many say what is right; with 0 the largest group may be wrong


def answer(topic: str, truth: str, blurred: bool, crowd: Crowd, rng: np.random.Generator) -> list[dict[str, str]]:
    """Ten answers as VizWiz stores them, `{"answer", "answer_confidence"}`.

    Args:
        topic: a key of `PLAUSIBLE`.
        truth: what a sharp picture would show.
        blurred: nobody can tell; what is right is then `unanswerable`.
    """
    right = UNANSWERABLE if blurred else truth
    others = [other for other in PLAUSIBLE[topic] if blurred or other != truth]
    while True:
        strays = rng.random(ANNOTATORS) < (crowd.guessing if blurred else crowd.disagreement)
        if ANNOTATORS - strays.sum() >= crowd.agreeing:
            break
    return [
        {"answer": str(rng.choice(others)) if stray else right, "answer_confidence": _confidence(stray, rng)}
        for stray in strays
    ]


def _confidence(stray: bool, rng: np.random.Generator) -> str:
    """Who is wrong is less sure."""
    return str(rng.choice(("yes", "maybe", "no"), p=(0.3, 0.5, 0.2) if stray else (0.85, 0.13, 0.02)))
