"""Tensors in files that anybody may have made: their names, shapes and values, read without running anything."""

import json
import pickle
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from hf_llava_vqa.errors import ModelError


def tensor_shapes(file: Path) -> dict[str, torch.Size]:
    """The shape of every tensor in a file, by name.

    Raises:
        ModelError: neither safetensors nor a pickle of tensors by name.
    """
    with _as_tensors(file):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as content:
                return {name: torch.Size(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
        return {name: value.shape for name, value in _unpickled(file).items()}


def read_tensors(file: Path, names: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """The named tensors of a file, one at a time, in the order of the file; raises as `tensor_shapes`."""
    with _as_tensors(file):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as content:
                yield from ((name, content.get_tensor(name)) for name in content.keys() if name in names)  # noqa: SIM118
        else:
            yield from ((name, value) for name, value in _unpickled(file).items() if name in names)


class TensorFiles:
    """The tensors of several files as those of one, under new names.

    Attributes:
        shapes: of all tensors, by new name.
    """

    def __init__(self, files: Sequence[Path], rename: Callable[[str], str | None]) -> None:
        """Read the names; those that `rename` gives no new one are left out.

        Raises:
            ModelError: as `tensor_shapes`, or two tensors of one name.
        """
        self._names: dict[Path, dict[str, str]] = {}
        self.shapes: dict[str, torch.Size] = {}
        for file in files:
            found = tensor_shapes(file)
            self._names[file] = {name: new for name in found if (new := rename(name)) is not None}
            for name, new in self._names[file].items():
                if new in self.shapes:
                    raise ModelError(f"{file}: {name} is there twice; keep one file of each part of the model")
                self.shapes[new] = found[name]

    def read(self, prefix: str = "", *, but: str | None = None) -> Iterator[tuple[str, Tensor]]:
        """The tensors whose new names begin with `prefix` and not with `but`, one at a time."""
        for file, names in self._names.items():
            wanted = {
                name: new
                for name, new in names.items()
                if new.startswith(prefix) and (but is None or not new.startswith(but))
            }
            yield from ((wanted[name], value) for name, value in read_tensors(file, wanted))


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights of a whole model in `folder`, in order; none if there is no model.

    Raises:
        ModelError: a file that the index names is not there.
    """
    for whole, index in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        if (folder / index).is_file():
            files = [folder / Path(name).name for name in sorted(set(_index(folder / index).values()))]
            if missing := [file for file in files if not file.is_file()]:
                raise ModelError(f"no {missing[0]}, which {index} names; copy the model again, with all its files")
            return files
        if (folder / whole).is_file():
            return [folder / whole]
    return []


def _index(file: Path) -> dict[str, str]:
    try:
        return dict(json.loads(file.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} does not say where weights are; copy the model again, with all its files") from error


def _unpickled(file: Path) -> dict[str, Tensor]:
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{file} cannot be read as tensors: it holds something else")
    return content


@contextmanager
def _as_tensors(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, SafetensorError, RuntimeError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{file} cannot be read as tensors: {reason}") from error
