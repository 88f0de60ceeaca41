"""The `evaluate` module of LLaVA-Bench; the rules themselves are plain functions in `llava_bench_rules`.

`evaluate.load` copies this file and the siblings it names itself, found line by line: hence one import a line and no
comment behind it.
"""

import json
from typing import Any

import datasets
import evaluate

from .llava_bench_rules import judge_requests, parse_reply, read_prediction, read_reference, read_reviews, score
from .rows import pair

__all__ = ["LlavaBench", "judge_requests", "parse_reply", "read_reviews", "score"]

_DESCRIPTION = "LLaVA-Bench (in the wild): a judge's scores of answers, relative to reference answers."
_CITATION = """\
@inproceedings{liu2023visual,
  title={Visual Instruction Tuning},
  author={Liu, Haotian and Li, Chunyuan and Wu, Qingyang and Lee, Yong Jae},
  booktitle={NeurIPS},
  year={2023}
}"""


class LlavaBench(evaluate.Metric):
    """`compute(predictions=, references=)`; see `score`."""

    def _info(self) -> evaluate.MetricInfo:
        string = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=score.__doc__,
            features=datasets.Features({"predictions": string, "references": string}),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add predictions with their references, as `score` takes them.

        `evaluate` checks the first row only, and there refuses a field without a value: so every row is checked
        here, and references are stored as JSON.
        """
        replies, rows = pair(predictions, references, read_reference, read_prediction)
        super().add_batch(predictions=replies, references=[json.dumps(row) for row in rows], **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one prediction with its reference."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return score(predictions, [json.loads(row) for row in references])
