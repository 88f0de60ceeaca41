"""The base: a small one is rebuilt through the same code; the committed one is what its log says, and can read."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoProcessor, LlavaForConditionalGeneration

from hf_llava_vqa.demo.base import BaseConfig, DialogueConfig, make_base
from hf_llava_vqa.demo.optimise import Schedule
from hf_llava_vqa.demo.pictures import COLORS, KINDS
from hf_llava_vqa.demo.quality import base_quality
from hf_llava_vqa.demo.tower import TowerConfig
from hf_llava_vqa.models.tiny import TinyConfig

COMMITTED = Path(__file__).parents[2] / "recipes" / "demo" / "base"
SMALL = BaseConfig(
    sizes=TinyConfig(image_size=64, patch_size=16, hidden=48, intermediate=96, vocab_size=900),
    tower=TowerConfig(Schedule(steps=60, learning_rate=3e-3, warmup=10, log_every=10)),
    dialogues=DialogueConfig(Schedule(steps=30, learning_rate=5e-3, warmup=5, log_every=5), pictures=4, dialogues=4),
    held_out=8,
)


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_base(folder, SMALL, seed=0, echo=lambda line: None)
    return folder


def log_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", ["tower", "dialogues"])
def test_losses_of_a_small_base_fall(small_base: Path, stage: str):
    losses = [row["loss"] for row in log_rows(small_base) if row["stage"] == stage]
    assert losses[-1] < 0.9 * losses[0]


def test_a_small_base_is_a_complete_llava(small_base: Path):
    assert len(AutoProcessor.from_pretrained(small_base).tokenizer) == _embedding(small_base)
    *_, quality, written = log_rows(small_base)
    assert set(quality) == {"stage", "description", "blurred description", "color", "kind", "yes/no", "seconds"}
    assert written["sha256"] == _sha256(small_base)


def test_seed_decides_every_weight(small_base: Path, tmp_path: Path):
    make_base(tmp_path, SMALL, seed=0, echo=lambda line: None)
    assert _sha256(tmp_path) == _sha256(small_base)


def test_committed_base_is_small_float32_and_what_its_log_made():
    assert sum(path.stat().st_size for path in COMMITTED.iterdir()) <= 8_000_000
    assert {path.suffix for path in COMMITTED.iterdir()} <= {".safetensors", ".json", ".jsonl", ".jinja", ".md"}
    with safe_open(COMMITTED / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F32"}  # noqa: SIM118
    assert log_rows(COMMITTED)[-1]["sha256"] == _sha256(COMMITTED)


def test_committed_base_reads_pictures_it_never_saw(held_out_scenes):
    model = LlavaForConditionalGeneration.from_pretrained(COMMITTED)
    quality = base_quality(model, AutoProcessor.from_pretrained(COMMITTED), held_out_scenes[-60:])
    chance = 1 / len(KINDS) / len(COLORS)
    assert quality["description"] > 0.9 > 10 * chance
    assert quality["blurred description"] > 0.9
    assert min(quality["color"], quality["kind"], quality["yes/no"]) > 0.85


def _embedding(folder: Path) -> int:
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    assert model.dtype == torch.float32
    return model.get_input_embeddings().num_embeddings


def _sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
