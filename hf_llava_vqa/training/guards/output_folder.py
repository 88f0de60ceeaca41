"""The output folder: whether checkpoints can be written there, asked before hours of training."""

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

from peft import PeftModel
from torch import nn

from hf_llava_vqa.errors import ConfigError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
ADAM_BYTES = 8
"""Two float32 moments for each trained parameter."""

OTHER_FILES = 20_000_000
"""Bytes of tokenizer, processor, random states and logs in a checkpoint, generously."""

# safetensors and torch.save do not raise OSError: one puts the number into its message, the other a failed position.
_FULL_MESSAGE = re.compile(rf"os error (?:{'|'.join(map(str, FULL))})\b|inline_container\.cc.*unexpected pos")


def check_output_folder(folder: str | Path, needed_bytes: int) -> None:
    """Create the folder, write to it and look at the free space.

    Raises:
        ConfigError: it is a file, cannot be created or written, or has less than `needed_bytes` free.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
            probe.write(b"probe")
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(folder).free
    except FileExistsError:
        raise ConfigError(f"--output_dir {folder} is a file; name a folder") from None
    except OSError as error:
        raise ConfigError(f"--output_dir {folder} cannot be written: {error.strerror}; name another folder") from error
    if free < needed_bytes:
        raise ConfigError(
            f"--output_dir {folder}: {free / 1e9:.1f} GB are free, but two checkpoints need "
            f"{needed_bytes / 1e9:.1f} GB (the last whole one, and the next while it is written); free some space"
        )


def checkpoint_bytes(model: nn.Module) -> int:
    """Estimated bytes of one checkpoint: the weights that are saved, AdamW's state, and the small files.

    PEFT saves the trained weights, any other model all. Sharded parameters count in full.
    """
    size = OTHER_FILES
    for parameter in model.parameters():
        count = getattr(parameter, "ds_numel", parameter.numel())  # DeepSpeed ZeRO-3 leaves an empty local tensor
        if parameter.requires_grad or not isinstance(model, PeftModel):
            size += count * parameter.element_size()
        if parameter.requires_grad:
            size += count * ADAM_BYTES
    return size


def full_disk(error: BaseException) -> bool:
    """Whether writing failed because the disk, a quota or a file is full, or the file system turned read-only."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return bool(_FULL_MESSAGE.search(str(error)))
