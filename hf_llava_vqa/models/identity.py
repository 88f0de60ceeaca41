"""Which model a path stands for, so that a run that is taken up again can tell whether it still is the same one."""

import hashlib
from pathlib import Path

from transformers.utils.hub import cached_file, extract_commit_hash

from hf_llava_vqa.models.assembling import Assembly
from hf_llava_vqa.models.loading import adapter_base

_DECISIVE = ("*.safetensors", "*.bin", "*config.json", "tokenizer*")


def model_identity(path: str) -> str:
    """SHA-256 of the files that decide what a model answers, and for an adapter of those it builds upon.

    A folder's weights are read in full: loading them reads the same bytes, which are at hand then. A repository of the
    Hub is known by its commit.

    Raises:
        ModelError: a path that does not exist.
    """
    base = adapter_base(path)
    parts = [_folder_digest(Path(path)) if Path(path).is_dir() else _commit(path)]
    below = [base.language_model, base.vision_tower] if isinstance(base, Assembly) else [base]
    parts += [model_identity(model) for model in below if model is not None]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _folder_digest(folder: Path) -> str:
    files = sorted({file for pattern in _DECISIVE for file in folder.glob(pattern)})
    return " ".join(f"{file.name} {_digest(file)}" for file in files)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _commit(repository: str) -> str:
    """The commit that is loaded; "" where the repository has no tokenizer, as loading will say."""
    file = cached_file(repository, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False)
    return extract_commit_hash(file, None) or ""
