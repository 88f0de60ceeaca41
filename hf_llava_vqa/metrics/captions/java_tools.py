"""What needs Java: the Penn Treebank tokeniser, METEOR and SPICE, run through the package pycocoevalcap."""

import shutil
from collections.abc import Sequence
from importlib.util import find_spec


def check_tools(purpose: str) -> None:
    """Raise `RuntimeError`, which says what to install, unless Java and pycocoevalcap are there."""
    missing = [
        *([] if find_spec("pycocoevalcap") else ["the package pycocoevalcap (pip install pycocoevalcap)"]),
        *([] if shutil.which("java") else ["Java (a `java` program on the PATH)"]),
    ]
    if missing:
        raise RuntimeError(f"{purpose} needs {' and '.join(missing)}; bleu, rouge_l and cider on plain words do not")


def tokenize_ptb(captions: Sequence[str]) -> list[str]:
    """Return the captions in lower case, in Penn Treebank tokens, without punctuation."""
    check_tools("tokenizer='ptb'")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokens = PTBTokenizer().tokenize({index: [{"caption": caption}] for index, caption in enumerate(captions)})
    return [tokens[index][0] for index in range(len(captions))]


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """Return METEOR 1.5 of the corpus and of every image."""
    check_tools("meteor")
    from pycocoevalcap.meteor.meteor import Meteor

    corpus, per_image = Meteor().compute_score(*_by_image(predictions, references))
    return corpus, list(per_image)


def spice(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """Return SPICE of the corpus and of every image. Its first use downloads Stanford's models."""
    check_tools("spice")
    from pycocoevalcap.spice.spice import Spice

    corpus, per_image = Spice().compute_score(*_by_image(predictions, references))
    return float(corpus), [image["All"]["f"] for image in per_image]


def _by_image(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    return dict(enumerate(map(list, references))), {index: [caption] for index, caption in enumerate(predictions)}
