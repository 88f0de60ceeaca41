"""Which model a path stands for: the same after a move, another after any change that counts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_llava_vqa.errors import ModelError
from hf_llava_vqa.models import identity
from hf_llava_vqa.models.identity import model_identity


@pytest.fixture
def base(tiny_llava: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_llava, tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """As much of an adapter as is looked at."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def flip_last_byte(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_model_that_moved_is_the_same(base: Path, tmp_path: Path) -> None:
    before = model_identity(str(base))
    (base / "README.md").write_text("what it is")
    (base / "scores.json").write_text("{}")
    assert model_identity(str(shutil.move(base, tmp_path / "moved"))) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "processor_config.json"])
def test_a_changed_file_makes_another_model(base: Path, name: str) -> None:
    before = model_identity(str(base))
    with (base / name).open("ab") as file:
        file.write(b" ")
    assert model_identity(str(base)) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda base, adapter: flip_last_byte(adapter / "adapter_model.safetensors"),
        lambda base, adapter: flip_last_byte(base / "model.safetensors"),
    ],
    ids=["its own weights", "those of its base"],
)
def test_an_adapter_is_itself_and_its_base(base: Path, adapter: Path, change: Callable[[Path, Path], None]) -> None:
    before = model_identity(str(adapter))
    assert before != model_identity(str(base))
    change(base, adapter)
    assert model_identity(str(adapter)) != before


def test_a_repository_is_known_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def known_as(commit: str) -> str:
        file = f"/cache/models--user--model/snapshots/{commit}/tokenizer_config.json"
        monkeypatch.setattr(identity, "adapter_base", lambda path: None)
        monkeypatch.setattr(identity, "cached_file", lambda path, name, **_options: file)
        return model_identity("user/model")

    assert known_as("a" * 40) == known_as("a" * 40) != known_as("b" * 40)


def test_a_path_that_does_not_exist() -> None:
    with pytest.raises(ModelError, match="cannot load a model from 'no/where/at/all'"):
        model_identity("no/where/at/all")
