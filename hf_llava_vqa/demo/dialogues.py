"""What the base is told about a picture: descriptions and full-sentence answers, never a short answer.

easy-VQA's own question wordings are here too, for the demo data asks in them.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from hf_llava_vqa import prompts
from hf_llava_vqa.data.benchmarks.vizwiz import INSTRUCTION as VIZWIZ_INSTRUCTION
from hf_llava_vqa.demo.pictures import COLORS, KINDS, SIDE, Scene

Dialogue = tuple[str, str]  # question, answer

# easy-VQA's wordings (its negated ones are left out); {kind} and {color} are the shape's, {thing} may not be there.
QUESTIONS = {
    "color": (
        "what color is the shape?",
        "what is the color of the shape?",
        "what color is the {kind}?",
        "what is the color of the {kind}?",
    ),
    "kind": (
        "what shape is in the image?",
        "what shape does the image contain?",
        "what shape is present?",
        "what is the {color} shape?",
    ),
    "yes/no": (
        "is there a {thing}?",
        "is there a {thing} in the image?",
        "is a {thing} present?",
        "does the image contain a {thing}?",
    ),
}
_MORE_QUESTIONS = {
    "color": ("Which color does the {kind} have?", "Tell me the color of the shape."),
    "kind": ("What kind of shape do you see?", "Which shape does the picture show?"),
    "yes/no": ("Can you see a {thing}?", "Does the picture show a {thing}?"),
}
_INSTRUCTIONS = (
    "Answer with a full sentence.",
    "Answer the question using a complete sentence.",
    "Please respond with one full sentence.",
    "When the picture is too blurry, say so.\nAnswer the question using a sentence.",
    "When the information in the picture is insufficient, say that.\nUse a full sentence, more than a single word.",
    "When the provided picture is blurry, respond with a sentence about that.\nAnswer the question with a phrase "
    "that is a full sentence.",
)
_REQUESTS = (
    "Describe the picture.",
    "What do you see in the image?",
    "Give a short description of the picture.",
    "Tell me about this image.\nAnswer with a full sentence.",
    "Describe the image using a single sentence.",
)
_DESCRIPTIONS = (
    "A {size} {color} {kind} on a light background.",
    "The picture shows a {color} {kind} at the {place}.",
    "There is a {size} {kind} in the picture, and it is {color}.",
    "{Color} is the color of the {kind} in the picture.",
    "A {kind} of {color} color lies at the {place}.",
    "This is a drawing of a {color} {kind}.",
    "It is a {kind}, {size} and {color}.",
)
_ANSWERS = {
    "color": (
        "The {kind} is {color}.",
        "It is {color}.",
        "The color of the shape is {color}.",
        "{Color} is the color of the {kind}.",
        "{Color} is what I see.",
    ),
    "kind": (
        "The shape is a {kind}.",
        "It is a {kind}.",
        "The picture contains a {color} {kind}.",
        "{Kind} is the name of the shape.",
        "A {kind} is in the picture.",
    ),
    "yes": (
        "Yes, there is a {thing} in the picture.",
        "Yes, I see a {thing}.",
        "Yes, the picture shows a {color} {kind}.",
    ),
    "no": (
        "No, there is no {thing} in the picture.",
        "No, I see no {thing}.",
        "No, the picture shows a {color} {kind}.",
    ),
}
_BLURRED = (
    "The picture is too blurry to make out what it shows.",
    "It is too blurry to tell.",
    "I cannot tell, because the picture is blurred.",
    "The image is not sharp enough to see that.",
    "Nothing can be made out, the picture is too blurry.",
)


def place(scene: Scene) -> str:
    """Where the middle of the shape lies, such as `top left` or `center`."""
    rows, columns = ((part.start + part.stop) / 2 / SIDE for part in scene.box)
    vertical = "top" if rows < 0.38 else "bottom" if rows > 0.62 else ""
    horizontal = "left" if columns < 0.38 else "right" if columns > 0.62 else ""
    return " ".join(filter(None, (vertical, horizontal))) or "center"


def ask(scene: Scene, topic: str, wordings: tuple[str, ...], rng: np.random.Generator) -> tuple[str, str, str]:
    """A question on `topic` (a key of `QUESTIONS`) in one of `wordings`: (question, short answer, thing asked for).

    Yes/no questions are answered yes as often as no, whatever their wording.
    """
    wording = str(rng.choice(wordings))
    if topic != "yes/no":
        return _fill(wording, scene), getattr(scene, topic), ""
    about, names = (("color", COLORS), ("kind", KINDS))[rng.integers(2)]
    truth = getattr(scene, about)
    named = truth if rng.random() < 0.5 else str(rng.choice([name for name in names if name != truth]))
    thing = f"{named} shape" if about == "color" else named
    return _fill(wording, scene, thing), "yes" if named == truth else "no", thing


def base_dialogues(scene: Scene, blurred: bool, count: int, rng: np.random.Generator) -> list[Dialogue]:
    """`count` (4 or more) dialogues on one picture: a description, its color, its kind, and yes/no questions.

    Yes/no questions are most, because comparing what is asked for with what is seen is the hardest to learn.
    """
    description = _fill(str(rng.choice(_BLURRED if blurred else _DESCRIPTIONS)), scene)
    dialogues = [(str(rng.choice(_REQUESTS)), description)]
    for topic in ("color", "kind", *["yes/no"] * (count - 3)):
        question, short, thing = ask(scene, topic, QUESTIONS[topic] + _MORE_QUESTIONS[topic], rng)
        if rng.random() < 0.5:
            question += "\n" + str(rng.choice(_INSTRUCTIONS))
        answers = _BLURRED if blurred else _ANSWERS[short if topic == "yes/no" else topic]
        dialogues.append((question, _fill(str(rng.choice(answers)), scene, thing)))
    return dialogues


def turns(dialogue: Dialogue) -> list[prompts.Turn]:
    """A dialogue on one picture as the encoder wants it."""
    question, answer = dialogue
    return [
        {"role": "user", "content": f"{prompts.IMAGE_TOKEN}\n{question}"},
        {"role": "assistant", "content": answer},
    ]


def tokenizer_corpus() -> Iterator[str]:
    """Every text of the demo: what the base learns, and the VizWiz prompt and answers that come later."""
    tables = (QUESTIONS, _MORE_QUESTIONS, _ANSWERS)
    wordings = [text for table in tables for texts in table.values() for text in texts]
    wordings += [*_REQUESTS, *_INSTRUCTIONS, *_DESCRIPTIONS, *_BLURRED]
    for kind, color in itertools.product(KINDS, COLORS):
        names = {"kind": kind, "Kind": kind.capitalize(), "color": color, "Color": color.capitalize()}
        for wording in wordings:
            yield wording.format(**names, thing=kind, size="small", place="center")
    other_words = "unanswerable yes no medium large top bottom left right ASSISTANT"
    yield from 50 * (prompts.V1.system, VIZWIZ_INSTRUCTION, other_words)


def _fill(wording: str, scene: Scene, thing: str = "") -> str:
    return wording.format(
        kind=scene.kind,
        Kind=scene.kind.capitalize(),
        color=scene.color,
        Color=scene.color.capitalize(),
        thing=thing,
        size=scene.size,
        place=place(scene),
    )
