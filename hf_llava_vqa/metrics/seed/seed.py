"""The `evaluate` module of SEED-Bench; the rules themselves are plain functions in `seed_rules`.

`evaluate.load` copies this file and the siblings it names itself, found line by line: hence one import a line and no
comment behind it.
"""

import json
from typing import Any

import datasets
import evaluate

from .rows import pair
from .seed_rules import read_reference, score

__all__ = ["SEED", "score"]

_DESCRIPTION = "Accuracy on SEED-Bench's multiple-choice questions: the letter exactly, as LLaVA counts."
_CITATION = """\
@inproceedings{li2024seedbench,
  title={{SEED-Bench}: Benchmarking Multimodal Large Language Models},
  author={Li, Bohao and Ge, Yuying and Ge, Yixiao and Wang, Guangzhi and Wang, Rui and Zhang, Ruimao and Shan, Ying},
  booktitle={CVPR},
  year={2024}
}"""


class SEED(evaluate.Metric):
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
        texts, rows = pair(predictions, references, read_reference)
        super().add_batch(predictions=texts, references=[json.dumps(row) for row in rows], **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one prediction with its reference."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def _compute(self, predictions: list[str], references: list[str], **options: Any) -> dict[str, Any]:
        return score(predictions, [json.loads(row) for row in references], **options)
