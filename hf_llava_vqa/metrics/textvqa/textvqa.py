"""The `evaluate` module of TextVQA; the rules themselves are plain functions in `textvqa_rules` and `answer_rules`.

`evaluate.load` copies this file and the siblings it names itself, found line by line: hence one import a line, no
comment behind it, and `contractions` and `inputs` among them, which `answer_rules` needs.
"""

import json
from typing import Any

import datasets
import evaluate

from .answer_rules import normalize_m4c
from .contractions import OFFICIAL_CONTRACTIONS
from .inputs import as_strings
from .rows import pair
from .textvqa_rules import pair_llava, read_reference, recover_question, score

__all__ = [
    "OFFICIAL_CONTRACTIONS",
    "TextVQA",
    "as_strings",
    "normalize_m4c",
    "pair_llava",
    "recover_question",
    "score",
]

_DESCRIPTION = "Accuracy on questions about text in pictures: agreement with ten people, as TextVQA and LLaVA count it."
_CITATION = """\
@inproceedings{singh2019towards,
  title={Towards {VQA} Models That Can Read},
  author={Singh, Amanpreet and Natarajan, Vivek and Shah, Meet and Jiang, Yu and Chen, Xinlei and Batra, Dhruv and
          Parikh, Devi and Rohrbach, Marcus},
  booktitle={CVPR},
  year={2019}
}"""


class TextVQA(evaluate.Metric):
    """`compute(predictions=, references=, return_per_question=)`; see `score`."""

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
