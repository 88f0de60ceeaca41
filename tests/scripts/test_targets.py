"""The arithmetic of the comparison of answer targets, and one small training."""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from hf_llava_vqa.answers import ANSWER_TARGETS
from hf_llava_vqa.errors import ConfigError
from scripts.benchmarks.target_runs import CROWDS, Pictures, accuracy_after, seconds_a_step
from scripts.benchmarks.targets import COMPARISONS, HELD_OUT, STUDENT_T, Mean, Results, add_arguments, measure, steps_of

SETTINGS = ["--pictures", "16", "--held_out", "2", "--steps", "10", "--seeds", "2"]


def arguments(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(flags)


def test_the_interval_is_students() -> None:
    """The 95 % interval of a mean of five, from a table of t: 2.776 standard errors with four degrees of freedom."""
    values = [0.9, 0.92, 0.88, 0.94, 0.86]
    assert Mean.of(values).mean == pytest.approx(0.9)
    assert Mean.of(values).half_width == pytest.approx(2.776 * 0.0316228 / 5**0.5, rel=1e-5)
    assert Mean.of([0.1, 0.3]).half_width == pytest.approx(12.706 * 0.1)
    assert list(STUDENT_T) == sorted(STUDENT_T, reverse=True)


def test_differences_are_taken_seed_by_seed() -> None:
    """Seeds differ by far more than the two targets, which always differ by about 0.02."""
    first, second = [0.52, 0.71, 0.93], [0.50, 0.69, 0.90]
    difference = Mean.of_differences(first, second)
    assert difference.mean == pytest.approx(0.07 / 3)
    assert difference.excludes_0
    assert Mean.of(first).half_width > 10 * difference.half_width
    assert not Mean.of_differences([0.5, 0.7], [0.6, 0.5]).excludes_0


def test_dear_steps_are_fewer_in_equal_time() -> None:
    assert steps_of(1.0, 40) == {"equal steps": 40, "equal time": 40}
    assert steps_of(1.25, 40) == {"equal steps": 40, "equal time": 32}
    assert steps_of(0.8, 40)["equal time"] == 50
    assert steps_of(9.0, 2)["equal time"] == 1


def test_results_are_computed_once(tmp_path: Path) -> None:
    file, calls = tmp_path / "runs" / "results.jsonl", itertools.count(1)
    first = Results.of(file, {"steps": 1})
    assert first.once(("a", "0"), lambda: {"value": next(calls)}) == {"value": 1}
    again = Results.of(file, {"steps": 1})
    assert again.once(("a", "0"), lambda: {"value": next(calls)}) == {"value": 1}
    assert again.once(("a", "1"), lambda: {"value": next(calls)}) == {"value": 2}
    with pytest.raises(ConfigError, match=r'results.jsonl holds results of other settings: {"steps": 1}; name another'):
        Results.of(file, {"steps": 2})


def finished(file: Path, accuracy: dict[str, float]) -> None:
    """Write the results of two seeds, as a run that has come to its end leaves them; the second is 0.1 better."""
    settings = vars(arguments(*SETTINGS))
    names = ("pictures", "held_out", "steps", "timed_steps", "rounds")
    lines: list[dict[str, Any]] = [{name: settings[name] for name in names}]
    for crowd in CROWDS:
        seconds = {"majority": 2.0, "votes": 2.5, "credit": 2.5, "sample": 2.0}
        lines.append({"key": ["seconds a step", crowd], "result": seconds})
        for target, seed in itertools.product(ANSWER_TARGETS, (0, 1)):
            for steps in set(steps_of(seconds[target] / 2, 10).values()):
                result = dict.fromkeys(HELD_OUT[crowd], accuracy[target] + 0.1 * seed + 0.01 * (10 - steps))
                lines.append({"key": ["accuracy", crowd, target, str(seed), f"{steps} steps"], "result": result})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_table_of_a_finished_run(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    finished(file, {"majority": 0.5, "votes": 0.6, "credit": 0.5, "sample": 0.4})
    before = file.read_text()
    table, ratios, figures = measure(arguments(*SETTINGS, "--out", str(file)))
    assert file.read_text() == before
    costs = {"majority": 1.0, "votes": 1.25, "credit": 1.25, "sample": 1.0}
    assert ratios == {"processor_time_of_a_step_vs_majority": {"demo": costs, "divided": costs}}
    header, *rows = table
    assert header[:5] == ["annotators", "held-out answers of", "comparison", "target", "steps"]
    blocks = [("demo", "demo"), ("divided", "divided"), ("divided", "demo")]
    expected = [(*block, c, t) for block in blocks for c in COMPARISONS for t in ANSWER_TARGETS]
    assert [tuple(row[:4]) for row in rows] == expected
    assert rows[5][3:] == ["votes", "8", "67.0 ± 63.5", "+12.0 ± 0.0 *", ""]
    assert rows[0][5:] == ["55.0 ± 63.5", "", "-10.0 ± 0.0 *"]
    assert figures["divided_demo_equal_time_sample_minus_votes"] == pytest.approx(-0.22)
    assert figures["demo_demo_equal_steps_credit_accuracy"] == pytest.approx(0.55)
    assert figures["demo_ceiling"] == 1


def test_a_training_and_its_pace(tmp_path: Path) -> None:
    pictures = Pictures.of(tmp_path, CROWDS["divided"], arguments(*SETTINGS))
    assert len(pictures.of_seed(1)) == 16
    assert not set(pictures.of_seed(0)["image_id"]) & set(pictures.of_seed(1)["image_id"])
    accuracy = accuracy_after(1, pictures, "votes", 1, {"own": pictures.held_out})
    assert 0 <= accuracy["own"] <= 1
    assert seconds_a_step(pictures, ["sample"], rounds=1, steps=1)["sample"] > 0
