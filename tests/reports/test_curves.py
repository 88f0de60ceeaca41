"""Curves read from a Trainer's log history."""

import re
from xml.etree import ElementTree

import pytest

from hf_llava_vqa.reports.curves import accuracy_curve, loss_curve

HISTORY = [
    {"loss": 2.0, "learning_rate": 1e-4, "epoch": 0.5, "step": 10},
    {"eval_loss": 1.5, "eval_vizwiz_accuracy": 0.4, "epoch": 0.5, "step": 10},
    {"loss": 1.0, "learning_rate": 5e-5, "epoch": 1.0, "step": 20},
    {"eval_loss": 1.0, "eval_vizwiz_accuracy": 0.7, "epoch": 1.0, "step": 20},
    {"train_runtime": 3.0, "train_loss": 1.5, "epoch": 1.0, "step": 20},
]


def texts(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_loss_shows_training_and_held_out():
    svg = loss_curve(HISTORY)
    assert {"training", "held-out", "optimizer step"} <= set(texts(svg))
    assert "var(--series-1)" in svg
    assert "var(--series-2)" in svg


def test_scores_of_any_metric_are_drawn():
    history = [{"eval_gqa": 0.4, "eval_loss": 1.0, "step": 1}, {"eval_gqa": 0.5, "eval_loss": 0.9, "step": 2}]
    assert accuracy_curve(history, None) is not None
    assert accuracy_curve([{"eval_runtime": 0.4, "step": 1}, {"eval_runtime": 0.5, "step": 2}], None) is None


def test_accuracy_shows_percent_and_the_ceiling():
    assert {"100 %", "ceiling 91.5 %"} <= set(texts(accuracy_curve(HISTORY, 0.915)))
    assert not any("ceiling" in text for text in texts(accuracy_curve(HISTORY, None)))


def test_every_accuracy_is_drawn_and_named():
    history = [{"step": 1, **{f"eval_{name}_vizwiz_accuracy": 0.5 for name in "abcdef"}}]
    assert {f"{name} vizwiz accuracy" for name in "abcdef"} <= set(texts(accuracy_curve(history, None)))


@pytest.mark.parametrize("history", [[], [{"step": 1, "train_runtime": 2.0}]])
def test_without_values_there_is_no_curve(history):
    assert loss_curve(history) is None
    assert accuracy_curve(history, 0.9) is None


def test_accuracy_of_tokens_is_not_accuracy_of_answers():
    assert accuracy_curve([{"step": 1, "eval_mean_token_accuracy": 0.9}], None) is None


def test_colors_follow_the_page_and_the_text_is_reproducible():
    svg = loss_curve(HISTORY)
    assert svg == loss_curve(HISTORY)
    assert not re.search(r"(fill|stroke): #", svg)


def test_two_curves_share_no_ids():
    ids = [set(re.findall(r' id="(\w+)"', svg)) for svg in (loss_curve(HISTORY), accuracy_curve(HISTORY, 0.9))]
    assert ids[0]
    assert not ids[0] & ids[1]
