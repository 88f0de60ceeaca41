"""The questions and answers of a set: how many, which, and what scorers make of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import VARIANTS, Variant, normalize_answer
from hf_llava_vqa.records import Record

TOP_ANSWERS = 30
EXAMPLES = 10


class AnswerTally:
    """Counts a split's questions and answers, record by record."""

    def __init__(self) -> None:
        self.questions_per_image: Counter[int] = Counter()
        self.answers_per_question: Counter[int] = Counter()
        self.answers: Counter[str] = Counter()  # as VizWiz reads a prediction
        self.without_answers: list[str] = []
        self.unanswerable = 0  # by most of their answers
        self.labelled_unanswerable = 0
        self.losses = {name: _Losses(rules.memoized()) for name, rules in VARIANTS.items()}
        self.lost_everywhere: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Count one record."""
        self.questions_per_image[len(record["dialogues"])] += 1
        for dialogue in record["dialogues"]:
            given = [answer["answer"] for answer in dialogue["answers"]]
            if dialogue["turns"][-1]["role"] == "user" and not any(map(str.strip, given)):
                self.without_answers.append(dialogue["id"])
            if given:
                self._add_answers(given)
            self.labelled_unanswerable += dialogue.get("answerable") == 0

    def _add_answers(self, given: Sequence[str]) -> None:
        self.answers_per_question[len(given)] += 1
        read = [normalize_answer(answer) for answer in given]
        self.answers.update(read)
        self.unanswerable += Counter(read).most_common(1)[0][0] == "unanswerable"
        lost = [losses.add(given) for losses in self.losses.values()]
        self.lost_everywhere.update(set.intersection(*(texts for texts in lost if texts is not None)))

    def findings(self, variant: str) -> dict[str, Any]:
        """What a split's answers are like, as `answers` of the report; `variant` is the benchmark's own scorer."""
        asked = self.answers_per_question.total()
        return {
            "questions": sum(number * count for number, count in self.questions_per_image.items()),
            "questions_per_image": _sorted(self.questions_per_image),
            "answers": self.answers.total(),
            "answers_per_question": _sorted(self.answers_per_question),
            "distinct": len(self.answers),
            "top": self.answers.most_common(TOP_ANSWERS),
            "without_answers": self.without_answers,
            "unanswerable": {
                "questions": self.unanswerable,
                "rate": self.unanswerable / asked if asked else None,
                "labelled": self.labelled_unanswerable,
            },
            "variant": variant,
            "unreachable": {name: losses.findings() for name, losses in self.losses.items()},
            "unreachable_everywhere": self.lost_everywhere.most_common(),
        }


class _Losses:
    """Answers that get less from one scorer than from a fair one, which reads answers as it reads predictions."""

    def __init__(self, rules: Variant) -> None:
        self.rules = rules
        self.fair = Variant(rules.read_prediction, rules.read_prediction, divisor=rules.divisor)
        self.questions = 0
        self.questions_lost = 0
        self.texts: Counter[str] = Counter()

    def add(self, given: Sequence[str]) -> set[str] | None:
        """Count one question. Returns its answers that lose, or None if the scorer takes other numbers of answers."""
        if self.rules.answers_needed not in (None, len(given)):
            return None
        self.questions += 1
        counts = Counter(answer for answer in given if answer.strip())
        lost = {text for text in counts if self._loses(text, given)}
        self.texts.update({text: counts[text] for text in lost})
        self.questions_lost += bool(lost) and counts.most_common(1)[0][0] in lost
        return lost

    def _loses(self, text: str, given: Sequence[str]) -> bool:
        """Whether the text as a prediction is read as nothing, or scores less than with the fair scorer."""
        read, _ = self.rules.read(text, given)
        return not read or self.rules.accuracy(text, given) < self.fair.accuracy(text, given)

    def findings(self) -> dict[str, Any]:
        shown = sorted(self.texts.items(), key=lambda item: (-item[1], item[0]))[:EXAMPLES]
        return {
            "questions": self.questions,
            "questions_lost": self.questions_lost,
            "answers_lost": self.texts.total(),
            "examples": [[text, self.rules.read_prediction(text), count] for text, count in shown],
        }


def _sorted(counts: Counter[int]) -> dict[str, int]:
    return {str(number): counts[number] for number in sorted(counts)}
