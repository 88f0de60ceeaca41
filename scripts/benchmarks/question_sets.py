"""The data that training is measured on: pictures with finished dialogues, in four shapes.

An answer is a dialogue of its own that ends with the assistant's turn, so every answer has the weight 1 and the loss
of all answers in one tree, in rows of their own, and in stock TRL is the same number. Answers of one question share
its tokens in a tree just as weighted human answers do.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hf_llava_vqa.data import load_records
from hf_llava_vqa.prompts import Turn
from hf_llava_vqa.records import Record, make_dialogue, make_record
from scripts.benchmarks.photos import jpeg

WIDTH = 480  # pixels of an invented photo
INSTRUCTION = "Answer the question using a single word or phrase."

EASY_VQA_IMAGES, EASY_VQA_QUESTIONS = 5, 48  # 9.6 questions an image, as in the whole set
DACON_QUESTIONS = (3, 4, 3, 4, 3)  # of five images: 3.4 an image

# Share of questions with so many distinct answers among ten people. Invented, of the shape that photos of blind people
# give: agreement now and then, mostly a handful of wordings, all ten different at times.
DISTINCT_ANSWERS = {1: 0.10, 2: 0.14, 3: 0.15, 4: 0.14, 5: 0.12, 6: 0.11, 7: 0.09, 8: 0.07, 9: 0.05, 10: 0.03}
VIZWIZ_QUESTIONS = 6

MIXED_RECORDS = 12
MIXED_TEXT_ONLY = 4  # every so many records one has no picture

WORDS = ["red", "blue", "green", "old", "new", "round", "metal", "paper", "coffee", "tea", "soup", "corn", "bread"]
WORDS += ["milk", "can", "box", "bottle", "label", "table", "phone", "screen", "key", "cup", "dog", "cat", "two"]


@dataclass(frozen=True)
class QuestionSet:
    """Records of finished dialogues: a training set in which every answer has its own dialogue."""

    records: list[Record]
    questions: int

    @property
    def dialogues(self) -> list[tuple[Record, list[Turn]]]:
        """Every dialogue with its record: the rows of a trainer that reads the picture once for each."""
        return [(record, dialogue["turns"]) for record in self.records for dialogue in record["dialogues"]]

    @property
    def answers(self) -> int:
        """Assistant turns, all of which are trained on."""
        return sum(turn["role"] == "assistant" for _, turns in self.dialogues for turn in turns)

    @property
    def one_answer_a_row(self) -> list[Record]:
        """The records of a trainer that reads the picture once for each dialogue."""
        return [
            {**record, "dialogues": [dialogue], "image_id": f"{record['image_id']}/{number}"}
            for record in self.records
            for number, dialogue in enumerate(record["dialogues"])
        ]

    def majority(self) -> "QuestionSet":
        """Only the first answer of each question."""
        records = []
        for record in self.records:
            first = {dialogue["turns"][0]["content"]: dialogue for dialogue in reversed(record["dialogues"])}
            records.append({**record, "dialogues": list(first.values())})
        return QuestionSet(records, self.questions)


def question_sets(scale: int) -> dict[str, Callable[[], QuestionSet]]:
    """What makes each set; `scale` times as many pictures as the smallest that has the right questions an image."""
    return {
        "easy_vqa": lambda: easy_vqa(scale),
        "vizwiz": lambda: vizwiz(scale),
        "dacon": lambda: dacon(scale),
        "mixed": lambda: mixed(scale),
    }


def easy_vqa(scale: int) -> QuestionSet:
    """Pictures of easy-VQA that follow each other, 9.6 questions an image, asked as they are."""
    images, questions = scale * EASY_VQA_IMAGES, scale * EASY_VQA_QUESTIONS
    records = list(load_records("easy_vqa", split="train").select(range(images + 1000)))
    counts = [len(record["dialogues"]) for record in records]
    start = next(start for start in range(1001) if sum(counts[start : start + images]) == questions)
    chosen = []
    for record in records[start : start + images]:
        asked = [(d["turns"][0]["content"], d["answers"][0]["answer"]) for d in record["dialogues"]]
        dialogues = [_finished(question, answer, instruction="") for question, answer in asked]
        chosen.append(_record(record["image_id"], record["images"], dialogues))
    return QuestionSet(chosen, questions)


def vizwiz(scale: int) -> QuestionSet:
    """One question an image, with as many distinct answers as `DISTINCT_ANSWERS` says."""
    rng = random.Random(0)
    counts = rng.choices(list(DISTINCT_ANSWERS), list(DISTINCT_ANSWERS.values()), k=scale * VIZWIZ_QUESTIONS)
    records = []
    for number, count in enumerate(counts):
        question = _phrase(rng, 6) + "?"
        answers: set[str] = set()
        while len(answers) < count:
            answers.add(_phrase(rng, rng.randint(1, 3)))
        records.append(_invented(number, [_finished(question, answer) for answer in sorted(answers)]))
    return QuestionSet(records, len(records))


def dacon(scale: int) -> QuestionSet:
    """3.4 questions an image, one answer each."""
    rng = random.Random(1)
    counts = scale * DACON_QUESTIONS
    records = [
        _invented(number, [_finished(_phrase(rng, 7) + "?", _phrase(rng, 1)) for _ in range(count)])
        for number, count in enumerate(counts)
    ]
    return QuestionSet(records, sum(counts))


def mixed(scale: int) -> QuestionSet:
    """One dialogue of one to four questions a record, some without a picture, as in LLaVA's instruction mix."""
    rng = random.Random(2)
    records = []
    for number in range(scale * MIXED_RECORDS):
        turns: list[Turn] = []
        for _ in range(rng.randint(1, 4)):
            turns += _finished(_phrase(rng, rng.randint(5, 12)) + "?", _phrase(rng, rng.randint(1, 40)))
        invented = _invented(number, [turns])
        records.append(invented | {"images": []} if number % MIXED_TEXT_ONLY == MIXED_TEXT_ONLY - 1 else invented)
    return QuestionSet(records, sum(len(record["dialogues"][0]["turns"]) // 2 for record in records))


def texts(sets: Sequence[QuestionSet]) -> Iterator[str]:
    """All that is said in the sets, to train a tokenizer on."""
    return (turn["content"] for questions in sets for _, turns in questions.dialogues for turn in turns)


def _finished(question: str, answer: str, instruction: str = "\n" + INSTRUCTION) -> list[Turn]:
    return [{"role": "user", "content": question + instruction}, {"role": "assistant", "content": answer}]


def _phrase(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def _invented(number: int, dialogues: Sequence[list[Turn]]) -> Record:
    return _record(f"{number}.jpg", [{"bytes": jpeg(number, WIDTH), "path": None}], dialogues)


def _record(name: str, images: Sequence[object], dialogues: Sequence[list[Turn]]) -> Record:
    made = [make_dialogue(id=f"{name}#{number}", turns=turns) for number, turns in enumerate(dialogues)]
    return make_record(image_id=name, images=images, dialogues=made)
