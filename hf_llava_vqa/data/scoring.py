"""What a metric says of a model's answers, in the one form in which the rest of the package reads it.

Metrics take different references and return different figures; each benchmark's file translates. Here is the form, and
the translation for benchmarks that score agreement with people.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import answer_accuracy, score

Asked = tuple[Mapping[str, Any], Mapping[str, Any]]
"""A record and the one of its dialogues that is asked."""


def share(sums: Sequence[float]) -> float:
    """The first sum over the second: the mean, where they are values and their number."""
    return sums[0] / sums[1]


@dataclass(frozen=True)
class Scores:
    """Scores of the answers to some questions, in the order asked; all from 0 to 1 but for `details`.

    The score is a function of sums over the questions, so that it can be recomputed for any sample of them.
    """

    per_question: Sequence[float]  # the credit of each answer
    by: Mapping[str, float]  # scores of parts
    details: Mapping[str, Any]  # what the metric itself returns
    counts: Sequence[Sequence[float]]  # for each question what is summed
    combine: Callable[[Sequence[float]], float] = share  # the sums -> the score
    ceiling: float = 1.0  # the best score that can be reached

    @classmethod
    def mean_of(
        cls,
        per_question: Sequence[float],
        *,
        by: Mapping[str, float],
        details: Mapping[str, Any],
        ceiling: float = 1.0,
    ) -> "Scores":
        """Scores of which the whole is the mean of the questions."""
        counts = [(credit, 1.0) for credit in per_question]
        return cls(per_question, by, details, counts, ceiling=ceiling)

    @property
    def score(self) -> float:
        """The score of all questions."""
        return self.combine([fsum(column) for column in zip(*self.counts, strict=True)])


Scorer = Callable[[Sequence[str], Sequence[Asked], str], Scores]
"""scorer(answers, asked, variant): the metric's `ValueError` says what it does not take."""


def human_answers(dialogue: Mapping[str, Any]) -> list[str]:
    """The raw answers people gave to a question."""
    return [answer["answer"] for answer in dialogue["answers"]]


def only_answer(dialogue: Mapping[str, Any]) -> str:
    """The one right answer of a question that has one."""
    return str(dialogue["answers"][0]["answer"])


def score_agreement(answers: Sequence[str], asked: Sequence[Asked], variant: str) -> Scores:
    """Score agreement with people as `vizwiz_accuracy` does, by the source's own answer types."""
    references = [human_answers(dialogue) for _, dialogue in asked]
    result = score(answers, references, variant=variant, return_per_question=True)
    per_question = result.pop("per_question")
    del result["standard_error"]  # takes questions as independent, which those about one image are not
    best = [ceiling(reference, variant) for reference in references]
    return Scores.mean_of(
        per_question,
        by=mean_by_type(per_question, asked),
        details=result,
        ceiling=fsum(best) / len(best),
    )


def ceiling(answers: Sequence[str], variant: str) -> float:
    """The accuracy of the best single answer to one question: what its people's disagreement leaves to win."""
    return max(answer_accuracy(answer, answers, variant) for answer in dict.fromkeys(answers))


def mean_by_type(per_question: Sequence[float], asked: Sequence[Asked]) -> dict[str, float]:
    """The mean for each `answer_type`, "unknown" where there is none."""
    by_type: defaultdict[str, list[float]] = defaultdict(list)
    for credit, (_, dialogue) in zip(per_question, asked, strict=True):
        by_type[dialogue["answer_type"] or "unknown"].append(credit)
    return {name: fsum(credits) / len(credits) for name, credits in sorted(by_type.items())}
