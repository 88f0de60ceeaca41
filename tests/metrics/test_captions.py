"""Captions: against pycocoevalcap's outputs, properties, what needs Java, and the `evaluate` module."""

import shutil
import sys
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.metrics.captions.captions_rules import tokenize_plain
from hf_llava_vqa.metrics.captions.scoring import MEASURES, score

KEYS = {**{f"Bleu_{order}": f"bleu_{order}" for order in (1, 2, 3, 4)}, "ROUGE_L": "rouge_l", "CIDEr": "cider"}
with_java = pytest.mark.skipif(
    not (shutil.which("java") and find_spec("pycocoevalcap")), reason="needs Java and pycocoevalcap"
)


@pytest.fixture(scope="module")
def rows(golden):
    return golden("captions.jsonl")


def inputs(rows, tokens=None):
    entries = rows if tokens is None else [row["tokens"][tokens] for row in rows]
    return [entry["prediction"] for entry in entries], [entry["references"] for entry in entries]


def test_plain_words_are_those_of_the_reference(rows):
    predictions, references = inputs(rows, "plain")
    assert [tokenize_plain(row["prediction"]) for row in rows] == predictions
    assert [[tokenize_plain(caption) for caption in row["references"]] for row in rows] == references


@pytest.mark.parametrize("tokens", ["plain", "ptb"])
def test_scores_equal_the_reference(rows, golden, tokens):
    result = score(*inputs(rows, tokens), return_per_image=True)
    for name, ours in KEYS.items():
        assert result[ours] == pytest.approx(golden("captions_aggregate.json")[tokens][name], abs=1e-9)
        per_image = [row["score"][tokens][name] for row in rows]
        assert result["per_image"][ours] == pytest.approx(per_image, abs=1e-9)
    assert result["n"] == len(rows)


@with_java
@pytest.mark.parametrize("tokenizer", ["plain", "ptb"])
def test_java_measures_equal_the_reference(rows, golden, tokenizer):
    result = score(*inputs(rows), ("meteor", "cider"), tokenizer, return_per_image=True)
    expected = golden("captions_aggregate.json")[tokenizer]
    assert result["meteor"] == pytest.approx(expected["METEOR"], abs=1e-9)
    assert result["cider"] == pytest.approx(expected["CIDEr"], abs=1e-9)
    per_image = [row["score"][tokenizer]["METEOR"] for row in rows]
    assert result["per_image"]["meteor"] == pytest.approx(per_image, abs=1e-9)


captions = st.lists(st.sampled_from(["a", "dog", "Cat", "on", "mat."]), max_size=7).map(" ".join)
images = st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=4)), min_size=1, max_size=5)


@given(images, st.randoms())
def test_scores_have_bounds_and_ignore_the_order_of_references(pairs, random):
    predictions, references = zip(*pairs, strict=True)
    result = score(predictions, references)
    assert all(0 <= result[key] <= 1 + 1e-9 for key in KEYS.values() if key != "cider")
    assert 0 <= result["cider"] <= 10 + 1e-9
    shuffled = [random.sample(of_image, len(of_image)) for of_image in references]
    assert score(predictions, shuffled) == pytest.approx(result, abs=1e-12)


def test_a_caption_equal_to_its_only_reference_is_perfect():
    predictions = ["a dog on the mat", "two cats in a box"]
    result = score(predictions, [[caption.upper()] for caption in predictions])
    assert [result[key] for key in KEYS.values()] == pytest.approx([1, 1, 1, 1, 1, 10])


def test_one_image_alone_has_no_rare_words():
    assert score(["a dog"], [["a dog"]], ["cider"]) == {"cider": 0, "n": 1}


def test_measures_are_those_asked_for():
    assert set(score(["a dog"], [["a cat"]], ["rouge_l", "bleu"])) == {"rouge_l", "n", *list(KEYS.values())[:4]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], [[]]), r"references\[0\].captions: expected 1 or more entries, got 0"),
        ((["a"], ["a"]), r"references\[0\].captions: expected a list, got 'a'"),
        ((["a"], [["a", None]]), r"references\[0\].captions\[1\]: expected a string, got None"),
        ((["a"], [["a"]], ["rouge"]), r"measures: expected a list of bleu, .* got \['rouge'\]"),
        ((["a"], [["a"]], "bleu"), "measures: expected a list of bleu, .* got 'bleu'"),
        ((["a"], [["a"]], []), r"measures: expected a list of bleu, .* got \[\]"),
        ((["a"], [["a"]], ["bleu"], "moses"), "no tokenizer named 'moses'; there is: plain, ptb"),
    ],
)
def test_bad_input_names_the_place(arguments, message):
    with pytest.raises(ValueError, match=message):
        score(*arguments)


@pytest.mark.parametrize("options", [{"measures": ["meteor"]}, {"measures": ["spice"]}, {"tokenizer": "ptb"}])
def test_without_java_the_message_says_what_to_install(monkeypatch, options):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=r"needs .*Java \(a `java` program on the PATH\); bleu") as caught:
        score(["a"], [["a"]], **options)
    assert "\n" not in str(caught.value)


STAND_IN = {
    "tokenizer/ptbtokenizer.py": """
        class PTBTokenizer:
            def tokenize(self, captions):
                return {key: [entry["caption"].upper() for entry in entries] for key, entries in captions.items()}
    """,
    "meteor/meteor.py": """
        class Meteor:
            def compute_score(self, references, predictions):
                return 0.5, [float(predictions[key][0] in references[key]) for key in references]
    """,
    "spice/spice.py": """
        class Spice:
            def compute_score(self, references, predictions):
                return 0.25, [{"All": {"f": float(len(references[key]))}} for key in references]
    """,
}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A package pycocoevalcap with the real one's functions but short answers, and a `java`."""
    for name, source in STAND_IN.items():
        path = tmp_path / "pycocoevalcap" / name
        path.parent.mkdir(parents=True)
        for package in (path.parent.parent, path.parent):
            (package / "__init__.py").touch()
        path.write_text("\n".join(line[8:] for line in source.splitlines()))
    java = tmp_path / "java"
    java.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    real = {name: module for name, module in sys.modules.items() if name.startswith("pycocoevalcap")}
    for name in real:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.startswith("pycocoevalcap")]:
        del sys.modules[name]


@pytest.mark.usefixtures("stand_in")
def test_java_tools_get_captions_by_image():
    result = score(["a dog", "b"], [["a dog", "c"], ["d"]], list(MEASURES), "ptb", return_per_image=True)
    assert (result["meteor"], result["per_image"]["meteor"]) == (0.5, [1, 0])
    assert (result["spice"], result["per_image"]["spice"]) == (0.25, [2, 1])
    assert result["per_image"]["rouge_l"] == [1, 0]


def test_module_computes_what_score_does(rows, load_metric):
    predictions, references = inputs(rows)
    by_id = [{"id": row["id"], "prediction": row["prediction"]} for row in reversed(rows)]
    with_ids = [{"id": row["id"], "captions": row["references"]} for row in rows]
    options = {"measures": ["bleu", "cider"], "return_per_image": True}
    expected = score(predictions, references, **options)
    assert load_metric("captions").compute(predictions=by_id, references=with_ids, **options) == expected
