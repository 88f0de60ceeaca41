"""The `evaluate` module of MM-Vet; the rules themselves are plain functions in `mm_vet_rules`.

`evaluate.load` copies this file and the siblings it names itself, found line by line: hence one import a line and no
comment behind it.
"""

import json
from typing import Any

import datasets
import evaluate

from .mm_vet_rules import answers_for_grader, read_grades, read_prediction, read_reference, score
from .rows import pair

__all__ = ["MMVet", "answers_for_grader", "read_grades", "score"]

_DESCRIPTION = "MM-Vet: a grader's marks for open answers, by the capabilities that each question needs."
_CITATION = """\
@inproceedings{yu2024mmvet,
  title={{MM-Vet}: Evaluating Large Multimodal Models for Integrated Capabilities},
  author={Yu, Weihao and Yang, Zhengyuan and Li, Linjie and Wang, Jianfeng and Lin, Kevin and Liu, Zicheng and
          Wang, Xinchao and Wang, Lijuan},
  booktitle={ICML},
  year={2024}
}"""


class MMVet(evaluate.Metric):
    """`compute(predictions=, references=)`; see `score`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=score.__doc__,
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("string")}
            ),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add predictions with their references, as `score` takes them.

        `evaluate` checks the first row only, and there refuses a field without a value: so every row is checked
        here, and references are stored as JSON.
        """
        grades, rows = pair(predictions, references, read_reference, read_prediction)
        super().add_batch(predictions=grades, references=[json.dumps(row) for row in rows], **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one prediction with its reference."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def _compute(self, predictions: list[list[float]], references: list[str]) -> dict[str, Any]:
        return score(predictions, [json.loads(row) for row in references])
