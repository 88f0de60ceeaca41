"""Which checkpoint a run goes on from, and whether it is the same run."""

from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.training.checkpoints import checkpoints, defect, newest_whole, step_of
from hf_llava_vqa.training.training_recipe import differences, read_training_recipe

AUTO = "auto"


def choose_checkpoint(wish: str | bool | None, output_dir: str | Path) -> Path | None:
    """Find the checkpoint that `resume_from_checkpoint` asks for; None to begin at the first step.

    Args:
        wish: a folder; "auto" (or True) for the newest whole checkpoint of `output_dir`; None or False to begin anew.
        output_dir: of the run.

    Raises:
        ConfigError: a folder that is no whole checkpoint, a new run where an earlier one's checkpoints stand, or an
            earlier checkpoint of this run than the last.
    """
    if not wish:
        _refuse_to_mix(output_dir)
        return None
    if isinstance(wish, str) and wish != AUTO:
        reason = defect(Path(wish)) if Path(wish).is_dir() else "no such folder"
        if reason is not None:
            raise ConfigError(f"--resume_from_checkpoint {wish}: {reason}; name a whole checkpoint, or use auto")
        _refuse_to_branch(Path(wish), output_dir)
        return Path(wish)
    chosen, skipped = newest_whole(output_dir)
    for checkpoint, reason in skipped.items():
        tqdm.write(f"passed over {checkpoint}: {reason}")
    tqdm.write(f"resuming from {chosen}" if chosen else f"no whole checkpoint in {output_dir}: beginning at step 0")
    return chosen


def check_same_run(checkpoint: Path, identity: dict[str, Any], *, force: bool) -> None:
    """Raise `ConfigError` with what differs between the run that wrote `checkpoint` and this one, unless forced."""
    differing = "; ".join(differences(read_training_recipe(checkpoint)["identity"], identity))
    if differing and not force:
        raise ConfigError(f"{checkpoint} is of another run: {differing}; use the same, or add --force_resume True")
    if differing:
        tqdm.write(f"resuming from {checkpoint} all the same: {differing}")


def check_complete(checkpoint: Path, *, force: bool) -> None:
    """Raise `ConfigError` for a checkpoint without optimizer state: the Trainer would start a new one silently."""
    if read_training_recipe(checkpoint)["settings"]["save_only_model"] and not force:
        raise ConfigError(
            f"{checkpoint} holds no optimizer state, as it was saved with --save_only_model; to go on with a new "
            "optimizer add --force_resume True"
        )


def _refuse_to_mix(output_dir: str | Path) -> None:
    present = sorted(checkpoints(output_dir), key=step_of)
    if present:
        raise ConfigError(
            f"{present[-1]} is there already; go on with --resume_from_checkpoint auto, or choose another --output_dir"
        )


def _refuse_to_branch(checkpoint: Path, output_dir: str | Path) -> None:
    """A later checkpoint left standing would be what "auto" takes after the next interruption."""
    later = [other for other in checkpoints(output_dir) if step_of(other) > step_of(checkpoint)]
    if later and checkpoint.resolve().parent == Path(output_dir).resolve():
        raise ConfigError(
            f"{max(later, key=step_of)} is later than --resume_from_checkpoint {checkpoint}: move or delete what is "
            "later, or choose another --output_dir"
        )
