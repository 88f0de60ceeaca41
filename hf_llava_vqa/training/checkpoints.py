"""Whole checkpoints: written aside, sealed by a manifest, renamed into place, and checked before they are used again.

    OUTPUT_DIR/.incomplete/checkpoint-40/     while it is written; whatever is found here later is a leftover
    OUTPUT_DIR/checkpoint-40/MANIFEST.json    sizes and SHA-256 of its files; written last, so what has it is whole

Every file and folder is synced to disk before the rename, and the rename before anything older is deleted: at no
moment does a crash leave fewer whole checkpoints than there were.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_llava_vqa.errors import TrainingError
from hf_llava_vqa.training.guards import full_disk

STAGING = ".incomplete"
MANIFEST_FILE = "MANIFEST.json"

_NAME = rf"{PREFIX_CHECKPOINT_DIR}-\d+"
_REPLACED = ".replaced"


def checkpoint_folder(output_dir: str | Path, step: int) -> Path:
    """Where the checkpoint of an optimizer step stands: the Trainer's own name for it."""
    return Path(output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def staging_folder(checkpoint: Path) -> Path:
    """The folder in which `checkpoint` is written before it is whole."""
    return checkpoint.parent / STAGING / checkpoint.name


def clear_staging(output_dir: str | Path) -> None:
    """Remove what an interrupted save left; a checkpoint that it had moved out of the way goes back to its place."""
    staging = Path(output_dir) / STAGING
    for replaced in staging.glob(f"*{_REPLACED}"):
        checkpoint = Path(output_dir) / replaced.name.removesuffix(_REPLACED)
        if not checkpoint.exists():
            os.rename(replaced, checkpoint)
    shutil.rmtree(staging, ignore_errors=True)


def seal(staged: Path) -> None:
    """Write the manifest of what `staged` holds, and have the disk hold all of it."""
    files = {str(file.relative_to(staged)): _describe(file) for file in _files(staged)}
    (staged / MANIFEST_FILE).write_text(json.dumps({"files": files}, indent=2, sort_keys=True) + "\n")
    sync(staged)


def sync(folder: Path) -> None:
    """Flush every file and folder below `folder`, itself included, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        _sync_one(path)


def publish(staged: Path, checkpoint: Path) -> None:
    """Put a sealed folder in its place. One that stands there already, of an earlier try, is moved out of the way."""
    if checkpoint.exists():
        os.rename(checkpoint, staged.with_name(staged.name + _REPLACED))
    os.rename(staged, checkpoint)
    _sync_one(checkpoint.parent)
    shutil.rmtree(staged.parent)


def newest_whole(output_dir: str | Path) -> tuple[Path | None, dict[Path, str]]:
    """Find the checkpoint to resume from.

    Returns:
        The whole checkpoint of the highest step, None without one, and why each newer folder was passed over.
    """
    skipped: dict[Path, str] = {}
    for checkpoint in sorted(checkpoints(output_dir), key=step_of, reverse=True):
        reason = defect(checkpoint)
        if reason is None:
            return checkpoint, skipped
        skipped[checkpoint] = reason
    return None, skipped


def checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoint folders of a run, whole or not."""
    if not Path(output_dir).is_dir():
        return []
    return [path for path in Path(output_dir).iterdir() if path.is_dir() and re.fullmatch(_NAME, path.name)]


def step_of(checkpoint: Path) -> int:
    """The optimizer step a checkpoint folder is named after."""
    return int(checkpoint.name.rpartition("-")[2])


def defect(checkpoint: Path) -> str | None:
    """Say what is wrong with a checkpoint: a file that is missing, has another size or other bytes; None if whole."""
    try:
        files = json.loads((checkpoint / MANIFEST_FILE).read_text())["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except FileNotFoundError:
        return f"no {MANIFEST_FILE}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{MANIFEST_FILE} cannot be read"
    for name, (size, digest) in expected.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes, not {size:,}"
        if _describe(file)["sha256"] != digest:
            return f"{name} has changed"
    return None


def write_failure(error: Exception, checkpoint: Path) -> TrainingError | None:
    """The error to raise if `error` says that `checkpoint` could not be written; None if it says something else."""
    if not isinstance(error, OSError) and not full_disk(error):
        return None
    whole, _ = newest_whole(checkpoint.parent)
    reason = error.strerror if isinstance(error, OSError) else "the disk is full"
    return TrainingError(
        f"{checkpoint} could not be written: {reason}; {whole.name if whole else 'no checkpoint'} is whole: free space "
        "or choose another --output_dir, then go on with --resume_from_checkpoint"
    )


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _describe(file: Path) -> dict[str, int | str]:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
