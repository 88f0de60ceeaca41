"""The `evaluate` module of captions; `captions_rules`, `java_tools` and `scoring` hold the plain functions.

`evaluate.load` copies this file and the siblings it names itself, found line by line: hence one import a line and no
comment behind it.
"""

import json
from typing import Any

import datasets
import evaluate

from .captions_rules import read_reference, tokenize_plain
from .java_tools import check_tools
from .rows import pair
from .scoring import MEASURES, TOKENIZERS, score

__all__ = ["MEASURES", "TOKENIZERS", "Captions", "check_tools", "score", "tokenize_plain"]

_DESCRIPTION = "BLEU, ROUGE-L and CIDEr of captions as the COCO evaluation has them; METEOR and SPICE where Java is."
_CITATION = """\
@article{chen2015microsoft,
  title={Microsoft {COCO} Captions: Data Collection and Evaluation Server},
  author={Chen, Xinlei and Fang, Hao and Lin, Tsung-Yi and Vedantam, Ramakrishna and Gupta, Saurabh and
          Doll{\'a}r, Piotr and Zitnick, C. Lawrence},
  journal={arXiv:1504.00325},
  year={2015}
}"""


class Captions(evaluate.Metric):
    """`compute(predictions=, references=, measures=, tokenizer=, return_per_image=)`; see `score`."""

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
