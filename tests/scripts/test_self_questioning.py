"""The comparison of trainings with and without self-questioning: its summary, and one small training."""

import argparse
import json
from pathlib import Path

import pytest

from scripts.benchmarks.self_questioning import LIGHT, WITH, WITHOUT, accuracy_and_tokens, add_arguments, measure
from scripts.benchmarks.target_runs import CROWDS, Pictures

SETTINGS = ["--pictures", "16", "--held_out", "2", "--steps", "1", "--seeds", "2"]


def arguments(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(flags)


def test_finished_trainings_are_summed_up(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    args = arguments(*SETTINGS, "--out", str(file))
    lines: list[object] = [{"ratio": 0.5, "weight": 0.2, "pictures": 16, "held_out": 2, "steps": 1}]
    ways = ((WITHOUT, (0.5, 0.75), 1000), (WITH, (0.625, 0.75), 1100), (LIGHT, (0.5, 0.75), 1100))
    for way, scores, tokens in ways:
        for seed, score in enumerate(scores):
            lines.append({"key": [way, str(seed)], "result": {"accuracy": score, "tokens": tokens}})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table, ratios, figures = measure(args)
    assert ratios == {"tokens_vs_answers_only": 1.1}
    assert figures["self_questioning_minus_answers_only"] == 0.0625
    assert figures["self_questioning_minus_answers_only_half_width"] == pytest.approx(12.706 * 0.0625, abs=1e-4)
    assert (figures["answers_only_accuracy"], figures["self_questioning_accuracy"]) == (0.625, 0.6875)
    assert 0 < figures["ceiling"] <= 1
    assert [row[0] for row in table[1:]] == [WITHOUT, WITH, LIGHT]
    assert [row[-1] for row in table[1:]] == ["", "+6.2 ± 79.4", "+0.0 ± 0.0"]


def test_questions_are_read_beside_the_answers(tmp_path: Path) -> None:
    args = arguments(*SETTINGS)
    pictures = Pictures.of(tmp_path, CROWDS["demo"], args)
    without, with_ = (accuracy_and_tokens(pictures, ratio, 1.0, 0, 1) for ratio in (0.0, 1.0))
    assert with_["tokens"] > without["tokens"]
    assert 0 <= without["accuracy"] <= 1
