"""The `evaluate` module of MMBench; the rules themselves are plain functions in `mmbench_rules` and
`option_parsing`.

`evaluate.load` copies this file and the siblings it names itself, found line by line: hence one import a line and no
comment behind it.
"""

import json
from typing import Any

import datasets
import evaluate

from .mmbench_rules import read_reference, score
from .option_parsing import PARSERS
from .rows import pair

__all__ = ["PARSERS", "MMBench", "score"]

_DESCRIPTION = "Accuracy on MMBench's multiple-choice questions under circular evaluation."
_CITATION = """\
@inproceedings{liu2024mmbench,
  title={{MMBench}: Is Your Multi-modal Model an All-around Player?},
  author={Liu, Yuan and Duan, Haodong and Zhang, Yuanhan and Li, Bo and Zhang, Songyang and Zhao, Wangbo and
          Yuan, Yike and Wang, Jiaqi and He, Conghui and Liu, Ziwei and Chen, Kai and Lin, Dahua},
  booktitle={ECCV},
  year={2024}
}"""


class MMBench(evaluate.Metric):
    """`compute(predictions=, references=, variant=)`; see `score`."""

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
