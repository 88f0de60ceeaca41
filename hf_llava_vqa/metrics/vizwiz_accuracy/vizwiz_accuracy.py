"""The `evaluate` module of VizWiz accuracy; the rules themselves are plain functions in `answer_rules`.

`evaluate.load` copies this file and the siblings it names itself, found line by line: hence one import a line, no
comment behind it, and `contractions` among them, which `answer_rules` needs.
"""

from typing import Any

import datasets
import evaluate

from .answer_rules import VARIANTS, answer_accuracy, explain, normalize_answer, plain_inputs, score
from .contractions import VIZWIZ_CONTRACTIONS
from .inputs import as_list

__all__ = [
    "VARIANTS",
    "VIZWIZ_CONTRACTIONS",
    "VizWizAccuracy",
    "answer_accuracy",
    "as_list",
    "explain",
    "normalize_answer",
    "score",
]

_DESCRIPTION = "Agreement of predicted answers with those of several people, as VizWiz and VQA competitions count it."
_CITATION = """\
@inproceedings{gurari2018vizwiz,
  title={{VizWiz} Grand Challenge: Answering Visual Questions from Blind People},
  author={Gurari, Danna and Li, Qing and Stangl, Abigale J. and Guo, Anhong and Lin, Chi and
          Grauman, Kristen and Luo, Jiebo and Bigham, Jeffrey P.},
  booktitle={CVPR},
  year={2018}
}"""


class VizWizAccuracy(evaluate.Metric):
    """`compute(predictions=, references=, variant=, answer_types=, return_per_question=)`; see `score`."""

    variants = tuple(VARIANTS)
    explain = staticmethod(explain)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=score.__doc__,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.List(datasets.Value("string")),
                }
            ),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add predictions with their human answers, as `score` takes them.

        `evaluate` checks the first row only and turns whatever it meets later into strings, so every row is
        checked here, and answers given as dicts are stored as plain strings.
        """
        texts, answers = plain_inputs(predictions, references)
        super().add_batch(predictions=texts, references=answers, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one prediction with its human answers."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def _compute(self, predictions: list[str], references: list[list[str]], **options: Any) -> dict[str, Any]:
        return score(predictions, references, **options)
