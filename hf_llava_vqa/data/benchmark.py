"""What a benchmark is to the rest of the package: a reader, an instruction, a metric and a submission format."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_llava_vqa.data.scoring import Asked, Scorer, Scores
from hf_llava_vqa.errors import ConfigError, RecordError

Prediction = dict[str, Any]
"""What a model answered: `{"id", "image_id", "question", "answer", "confidence"}`."""

SHORT_ANSWER = "Answer the question using a single word or phrase."
"""What LLaVA-1.5 appends to questions with short answers, in training and evaluation."""

LETTER_ANSWER = "Answer with the option's letter from the given choices directly."
"""What LLaVA-1.5 appends to multiple-choice questions."""


@dataclass(frozen=True)
class Benchmark:
    """A data set with a way to ask and to score. Each benchmark is one file of this folder."""

    name: str  # stands in every record's `source`
    splits: tuple[str, ...]
    read: Callable[..., Iterator[dict[str, Any]]]  # read(split, **paths) -> records, in the order of the source
    instruction: str  # follows each question on a line of its own; "" for none
    metric: str  # name for `metric_path`, "" if there is none
    metric_variant: str  # "" if the metric has no variants
    evaluation_split: str = "val"  # answered unless the user names another
    score_answers: Scorer | None = None  # None if its dialogues carry no answers to score against
    submission_file: str = ""  # what the server's file is called, "" if there is no server
    submit: Callable[..., None] | None = None  # submit(predictions, path[, template]) writes the server's file
    find_template: Callable[..., str] | None = None  # find_template(root, template) -> the file the submission fills in
    homepage: str = ""
    licence: str = ""  # of annotations and images, by the Hub's name for it; "" where the owner's terms have to be read

    def score(self, answers: Mapping[str, str], asked: Sequence[Asked]) -> Scores:
        """Score answers, by dialogue id, with the benchmark's own metric.

        Raises:
            ConfigError: a benchmark whose answers are not scored here.
            RecordError: a question without answer, or questions that the metric does not take.
        """
        if self.score_answers is None:
            raise ConfigError(f"{self.name}: answers cannot be scored without a judge or without human answers")
        missing = [dialogue["id"] for _, dialogue in asked if dialogue["id"] not in answers]
        if missing:
            raise RecordError(
                f"{self.name}: no prediction for question {missing[0]} ({len(missing)} of {len(asked)} are missing); "
                "answer the whole split"
            )
        try:
            return self.score_answers([answers[dialogue["id"]] for _, dialogue in asked], asked, self.metric_variant)
        except ValueError as error:
            raise RecordError(f"{self.name}: its metric does not take these questions: {error}") from error
