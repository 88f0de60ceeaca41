"""What a benchmark is to the rest of the package: a reader, an instruction, a metric and a submission format."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Prediction = dict[str, Any]
"""What a model answered: `{"id", "image_id", "question", "answer", "confidence"}`."""

SHORT_ANSWER = "Answer the question using a single word or phrase."
"""What LLaVA-1.5 appends to questions with short answers, in training and evaluation."""


@dataclass(frozen=True)
class Benchmark:
    """A data set with a way to ask and to score. Each benchmark is one file of this folder."""

    name: str  # stands in every record's `source`
    splits: tuple[str, ...]
    read: Callable[..., Iterator[dict[str, Any]]]  # read(split, **paths) -> records, in the order of the source
    instruction: str  # follows each question on a line of its own; "" for none
    metric: str  # name for `metric_path`, "" if its dialogues carry no answers to score against
    metric_variant: str
    submission_file: str = ""  # what the server's file is called, "" if there is no server
    submit: Callable[..., None] | None = None  # submit(predictions, path[, template]) writes the server's file
    find_template: Callable[..., str] | None = None  # find_template(root, template) -> the file the submission fills in
    homepage: str = ""
    licence: str = ""  # of annotations and images, by the Hub's name for it; "" where the owner's terms have to be read
