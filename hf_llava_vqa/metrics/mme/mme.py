"""The `evaluate` module of MME; the rules themselves are plain functions in `mme_rules`.

`evaluate.load` copies this file and the siblings it names itself, found line by line: hence one import a line and no
comment behind it.
"""

import json
from typing import Any

import datasets
import evaluate

from .mme_rules import COGNITION, PERCEPTION, parse_answer, read_reference, score
from .rows import pair

__all__ = ["COGNITION", "MME", "PERCEPTION", "parse_answer", "score"]

_DESCRIPTION = "MME's perception and cognition scores: accuracy and accuracy+ of two yes-or-no questions a picture."
_CITATION = """\
@article{fu2023mme,
  title={{MME}: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models},
  author={Fu, Chaoyou and Chen, Peixian and Shen, Yunhang and Qin, Yulei and Zhang, Mengdan and Lin, Xu and
          Yang, Jinrui and Zheng, Xiawu and Li, Ke and Sun, Xing and Wu, Yunsheng and Ji, Rongrong},
  journal={arXiv:2306.13394},
  year={2023}
}"""


class MME(evaluate.Metric):
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
