"""The `evaluate` module of answerability; the rules themselves are plain functions in `answerability_rules`.

`evaluate.load` copies this file and the siblings it names itself, found line by line: hence one import a line and no
comment behind it.
"""

import json
from typing import Any

import datasets
import evaluate

from .answerability_rules import read_confidence, read_reference, score
from .rows import pair

__all__ = ["Answerability", "score"]

_DESCRIPTION = "Whether a model knows which questions its picture cannot answer, as VizWiz's second task scores it."
_CITATION = """\
@inproceedings{gurari2018vizwiz,
  title={{VizWiz} Grand Challenge: Answering Visual Questions from Blind People},
  author={Gurari, Danna and Li, Qing and Stangl, Abigale J. and Guo, Anhong and Lin, Chi and
          Grauman, Kristen and Luo, Jiebo and Bigham, Jeffrey P.},
  booktitle={CVPR},
  year={2018}
}"""


class Answerability(evaluate.Metric):
    """`compute(predictions=, references=)`; see `score`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=score.__doc__,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("string")}
            ),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add predictions with their references, as `score` takes them.

        `evaluate` checks the first row only, and there refuses a field without a value: so every row is checked
        here, and references are stored as JSON.
        """
        confidences, rows = pair(predictions, references, read_reference, read_confidence)
        super().add_batch(predictions=confidences, references=[json.dumps(row) for row in rows], **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one prediction with its reference."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def _compute(self, predictions: list[float], references: list[str]) -> dict[str, Any]:
        return score(predictions, [json.loads(row) for row in references])
