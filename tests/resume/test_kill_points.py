"""Killed at every point of a save and at fixed points of a step, a run goes on from a whole checkpoint, bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from oracle import assert_same_run, checkpoint_hashes, journal
from runs import Zygote, attempts
from training_run import SAVE, Kill, Run

STEP = 12  # in the second pass, and a checkpoint
TRAINER = "hf_llava_vqa.training.resumable:ResumableTrainer"
CHECKPOINTS = "hf_llava_vqa.training.checkpoints"
RESUMABLE = "hf_llava_vqa.training.resumable"

# In the order of a save: what is done when the process dies, where that is, and which checkpoint is whole then.
SAVE_POINTS = {
    "nothing": (Kill(STEP, SAVE), 9),
    "folder made": (Kill(STEP, f"{TRAINER}._write_checkpoint"), 9),
    "model written": (Kill(STEP, f"{TRAINER}.save_model", "after"), 9),
    "optimizer written": (Kill(STEP, f"{TRAINER}._save_optimizer_and_scheduler", "after"), 9),
    "random state written": (Kill(STEP, f"{TRAINER}._save_rng_state", "after"), 9),
    "trainer state written": (Kill(STEP, f"{TRAINER}._save_trainer_state", "after"), 9),
    "recipe written": (Kill(STEP, f"{RESUMABLE}:save_training_recipe", "after"), 9),
    "manifest written": (Kill(STEP, f"{CHECKPOINTS}:sync"), 9),
    "half synced": (Kill(STEP, "os:fsync", "after", call=3, within=f"{CHECKPOINTS}:sync"), 9),
    "synced": (Kill(STEP, "os:rename", within=f"{RESUMABLE}:publish"), 9),
    "renamed": (Kill(STEP, "os:rename", "after", within=f"{RESUMABLE}:publish"), 12),
    "published": (Kill(STEP, f"{RESUMABLE}:publish", "after"), 12),
    "older one half deleted": (Kill(STEP, "os:unlink", "after", call=2, within=f"{TRAINER}._rotate_checkpoints"), 12),
    "older one deleted": (Kill(STEP, f"{TRAINER}._rotate_checkpoints", "after"), 12),
    "everything": (Kill(STEP, SAVE, "after"), 12),
}
STEP_POINTS = {
    "first step": (Kill(0), 0),
    "before any checkpoint": (Kill(2), 0),
    "first forward after a checkpoint": (Kill(STEP), 12),
    "second micro-batch": (Kill(STEP + 1, call=2), 12),
    "after backward": (Kill(STEP + 1, "accelerate:Accelerator.backward", "after"), 12),
    "after the optimizer": (Kill(STEP + 2, "transformers.trainer_callback:CallbackHandler.on_optimizer_step"), 12),
}
ONE_RANK_POINTS = {
    "rank 0 in a step": (Kill(STEP + 1, rank=0), 12),
    "rank 1 in a step": (Kill(STEP + 1, rank=1), 12),
    "rank 1 before its random state": (Kill(STEP, f"{TRAINER}._save_rng_state", rank=1), 9),
    "rank 0 before the manifest": (Kill(STEP, f"{RESUMABLE}:seal", rank=0), 9),
    "rank 0 before the rename": (Kill(STEP, "os:rename", within=f"{RESUMABLE}:publish", rank=0), 9),
    "rank 0 after the rename": (Kill(STEP, "os:rename", "after", within=f"{RESUMABLE}:publish", rank=0), 12),
}

MakeRun = Callable[..., Run]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory, tiny_llava: Path, data: Path) -> MakeRun:
    def make(name: str, **changes: object) -> Run:
        folder = str(tmp_path_factory.mktemp("runs") / name)
        run = Run(folder=folder, model=str(tiny_llava), data=str(data), source="stream", accumulation=2, rows=1)
        return replace(run, max_steps=16, **changes)

    return make


@pytest.fixture(scope="module")
def straight(zygote: Zygote, make_run: MakeRun) -> Run:
    """The run that is left alone, with all its checkpoints."""
    run = make_run("straight")
    attempts(zygote, run, 1, ())
    return run


@pytest.fixture(scope="module")
def straight_ddp(zygote: Zygote, make_run: MakeRun) -> Run:
    run = make_run("straight", source="map-style")
    attempts(zygote, run, 2, ())
    return run


def assert_resumed_from(run: Run, step: int) -> None:
    """The last attempt went on from the newest whole checkpoint, and what stands in the output folder is whole."""
    assert journal(run, "started", 0)[-1]["step"] == step
    assert not Path(run.folder, "output", ".incomplete").exists()


@pytest.mark.parametrize(
    ("kill", "whole"), [*SAVE_POINTS.values(), *STEP_POINTS.values()], ids=[*SAVE_POINTS, *STEP_POINTS]
)
def test_killed_at_a_point(zygote: Zygote, straight: Run, make_run: MakeRun, kill: Kill, whole: int) -> None:
    killed = make_run("killed", save_total_limit=1)
    attempts(zygote, killed, 1, (kill,))
    assert_resumed_from(killed, whole)
    assert_same_run(killed, straight, 1)


@pytest.mark.parametrize(("kill", "whole"), ONE_RANK_POINTS.values(), ids=list(ONE_RANK_POINTS))
def test_one_rank_killed(zygote: Zygote, straight_ddp: Run, make_run: MakeRun, kill: Kill, whole: int) -> None:
    killed = make_run("killed", source="map-style", save_total_limit=2)
    attempts(zygote, killed, 2, (kill,))
    assert_resumed_from(killed, whole)
    assert_same_run(killed, straight_ddp, 2)


@pytest.mark.parametrize("damage", ["truncated", "a byte changed", "a file missing", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over(zygote: Zygote, straight: Run, make_run: MakeRun, damage: str) -> None:
    killed = make_run("killed", save_total_limit=2)
    attempts(zygote, killed, 1, (Kill(STEP),), to_the_end=False)
    newest = Path(killed.folder, "output", f"checkpoint-{STEP}")
    spoil(newest, damage)
    # It dies again at the moment when the damaged one has been moved aside and the new one is not yet in its place.
    again = Kill(STEP, "os:rename", "after", within=f"{RESUMABLE}:publish")
    attempts(zygote, killed, 1, (again,), first=1)
    assert [line["step"] for line in journal(killed, "started", 0)] == [0, 9, 9]
    assert f"passed over output/{newest.name}: " in killed.log(0).read_text()
    assert_same_run(killed, straight, 1)


def spoil(checkpoint: Path, damage: str) -> None:
    model = checkpoint / "adapter_model.safetensors"
    content = model.read_bytes()
    match damage:
        case "truncated":
            model.write_bytes(content[: len(content) // 2])
        case "a byte changed":
            model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "a file missing":
            (checkpoint / "optimizer.pt").unlink()
        case "no manifest":
            (checkpoint / "MANIFEST.json").unlink()


@pytest.mark.parametrize("source", ["map-style", "stream"])
def test_a_finished_run_is_not_trained_further(zygote: Zygote, make_run: MakeRun, source: str) -> None:
    run = make_run("finished", source=source)
    attempts(zygote, run, 1, ())
    before = checkpoint_hashes(run), journal(run, "consumed", 0)
    attempts(zygote, run, 1, (), first=1)
    assert journal(run, "started", 0)[-1]["step"] == run.max_steps
    assert (checkpoint_hashes(run), journal(run, "consumed", 0)) == before
