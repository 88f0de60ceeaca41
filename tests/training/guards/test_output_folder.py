"""The output folder: found unusable before training, and errors of a full disk known as such."""

import errno
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.training.guards import output_folder
from hf_llava_vqa.training.guards.output_folder import (
    OTHER_FILES,
    check_output_folder,
    checkpoint_bytes,
    full_disk,
)


def test_a_usable_folder_is_made_and_left_empty(tmp_path) -> None:
    check_output_folder(tmp_path / "runs" / "first", 1000)
    assert list((tmp_path / "runs" / "first").iterdir()) == []


def test_files_in_the_way(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file; name a folder"):
        check_output_folder(tmp_path / "file", 0)
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        check_output_folder(tmp_path / "file" / "below", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("folder", ["/proc/run", "/proc"])
def test_a_folder_that_cannot_be_written(folder) -> None:
    with pytest.raises(ConfigError, match=f"--output_dir {folder} cannot be written: ") as refused:
        check_output_folder(folder, 0)
    assert "\n" not in str(refused.value)


def test_too_little_space_is_told_in_gigabytes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_500_000_000))
    check_output_folder(tmp_path, 1_500_000_000)
    with pytest.raises(ConfigError, match=r"1\.5 GB are free, but two checkpoints need 1\.6 GB"):
        check_output_folder(tmp_path, 1_600_000_000)


class Linear(torch.nn.Module):
    """100 weights, 10 biases."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(10, 10)


def test_a_full_model_is_saved_whole_and_trained_parameters_have_optimizer_state() -> None:
    model = Linear()
    assert checkpoint_bytes(model) == OTHER_FILES + 110 * 4 + 110 * 8
    model.layer.weight.requires_grad_(False)
    assert checkpoint_bytes(model.to(torch.bfloat16)) == OTHER_FILES + 110 * 2 + 10 * 8


def test_an_adapter_is_saved_alone() -> None:
    model = get_peft_model(Linear(), LoraConfig(r=2, target_modules=["layer"]))
    assert checkpoint_bytes(model) == OTHER_FILES + 2 * (10 + 10) * (4 + 8)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("CUDA error 28"), False),
        (RuntimeError("I/O error: Is a directory (os error 281)"), False),
    ],
)
def test_errors_of_a_full_disk(error, full) -> None:
    assert full_disk(error) == full


WRITERS = {
    "torch": "torch.save(big, path)",
    "safetensors": "save_file(big, path)",
    "plain": "open(path, 'wb').write(bytes(400_000))",
}


@pytest.mark.e2e
@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_of_a_checkpoint_is_understood(tmp_path, writer) -> None:
    """A limit on the size of files stands for a full disk."""
    program = f"""
import resource, sys, torch
from safetensors.torch import save_file
from hf_llava_vqa.training.guards.output_folder import full_disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
big, path = {{"weight": torch.zeros(100_000)}}, sys.argv[1]
try:
    {WRITERS[writer]}
except Exception as error:
    sys.exit(0 if full_disk(error) else f"not understood: {{error!r}}")
sys.exit("nothing was raised")
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
