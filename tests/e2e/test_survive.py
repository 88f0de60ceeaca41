"""Runs that are ended from outside, in real processes: told to stop, interrupted, out of disk; and how they go on."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from recipe_runs import RECIPE, REPOSITORY, flags

from hf_llava_vqa.training.checkpoints import newest_whole, step_of

LONG = {"num_train_epochs": 1000, "save_strategy": "steps", "save_steps": 3, "save_total_limit": 2}
LONG |= {"eval_strategy": "no", "eval_split": None, "load_best_model_at_end": False, "metric_for_best_model": None}
LAUNCHED = [Path(sys.executable).with_name("accelerate"), "launch", "--config_file", "accelerate_configs/cpu.yaml"]


def start(command: list[object], **options: object) -> subprocess.Popen[str]:
    """Start the recipe in a process group of its own, as a shell and a scheduler do."""
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_for(condition: Callable[[], object], run: subprocess.Popen[str]) -> None:
    while not condition():
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.05)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("launcher", "number", "code"),
    [(LAUNCHED, signal.SIGTERM, -signal.SIGTERM), ([sys.executable], signal.SIGINT, 130)],
    ids=["scheduler", "ctrl-c"],
)
def test_a_signal_to_the_group_ends_in_a_checkpoint_that_the_next_run_goes_on_from(
    tiny_llava: Path, vizwiz_folder: Path, tmp_path: Path, launcher: list[object], number: int, code: int
) -> None:
    arguments = flags(tiny_llava, vizwiz_folder, tmp_path / "out", **LONG)
    run = start([*launcher, RECIPE, *arguments])
    wait_for(lambda: newest_whole(tmp_path / "out")[0], run)
    os.killpg(run.pid, number)
    output = run.communicate(timeout=120)[0]
    assert run.returncode == code  # accelerate's launcher, which has no handler, reports the signal itself
    assert "Traceback" not in output
    chosen, skipped = newest_whole(tmp_path / "out")
    assert not skipped
    assert f"stopped: {signal.Signals(number).name} after step {step_of(chosen)} of 6000; go on with" in output

    steps = step_of(chosen) + 1
    resumed = start([sys.executable, RECIPE, *arguments, "--resume_from_checkpoint", "auto", "--max_steps", str(steps)])
    output = resumed.communicate(timeout=120)[0]
    assert resumed.returncode == 0, output
    assert f"resuming from {chosen}" in output
    assert step_of(newest_whole(tmp_path / "out")[0]) <= steps
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


@pytest.mark.e2e
def test_a_disk_that_fills_up_is_one_line_and_leaves_what_was_whole(
    tiny_llava: Path, vizwiz_folder: Path, tmp_path: Path
) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # an error as from a full disk

    arguments = flags(tiny_llava, vizwiz_folder, tmp_path / "out", **LONG)
    run = start([sys.executable, RECIPE, *arguments], preexec_fn=small_files_only)
    output = run.communicate(timeout=120)[0]
    assert run.returncode == 2, output
    assert "Traceback" not in output
    assert "checkpoint-3 could not be written" in output
    assert newest_whole(tmp_path / "out") == (None, {})
