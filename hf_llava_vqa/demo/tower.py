"""Stage one of the base: the vision tower learns what the pictures show, as CLIP does before LLaVA starts.

Every patch token of the layer that LLaVA reads, and the class token behind the last layer, must tell the kind of
shape, its colour and whether the picture is sharp; patch tokens also whether the shape lies on them. The heads that
answer are thrown away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from hf_llava_vqa.demo.optimise import Log, Schedule, minimise
from hf_llava_vqa.demo.pictures import COLORS, KINDS, Scene, blur, draw, vary

ANSWERS = {"kind": len(KINDS), "color": len(COLORS), "blurred": 2}
IGNORED = -100


@dataclass(frozen=True)
class TowerConfig:
    """Stage one: how many pictures."""

    schedule: Schedule = field(default_factory=lambda: Schedule(steps=3000))
    pictures: int = 32  # a step
    blurred: float = 0.2  # share of the pictures


class Heads(nn.Module):
    """Linear read-outs: the answers of `ANSWERS` from patch tokens and class token, coverage from patch tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.patches = nn.Linear(width, sum(ANSWERS.values()) + 2)
        self.picture = nn.Linear(width, sum(ANSWERS.values()))

    def loss(self, patches: Tensor, picture: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Sum of cross entropies; `patches` [B, P, D], `picture` [B, D], targets [B] and `covered` [B, P]."""
        *by_patch, covered = self.patches(self.norm(patches)).split([*ANSWERS.values(), 2], dim=-1)
        by_picture = self.picture(picture).split(list(ANSWERS.values()), dim=-1)
        total = _cross_entropy(covered, targets["covered"])
        for name, of_patch, of_picture in zip(ANSWERS, by_patch, by_picture, strict=True):
            everywhere = targets[name][:, None].expand(patches.shape[:2])
            total = total + _cross_entropy(of_patch, everywhere) + 0.3 * _cross_entropy(of_picture, targets[name])
        return total


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


def pixel_values(pictures: Sequence[np.ndarray]) -> Tensor:
    """Pictures [64, 64, 3] uint8 -> [B, 3, 64, 64], as the demo's processor makes them."""
    mean, std = (np.array(channels, np.float32) for channels in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    values = (np.stack(pictures).astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous()


def picture_batch(
    scenes: Sequence[Scene], size: int, blurred: float, rng: np.random.Generator
) -> tuple[list[Scene], np.ndarray, Tensor]:
    """`size` varied scenes, which of them are blurred [size] bool, and their pixel values with a little noise."""
    chosen = [vary(scenes[index], rng) for index in rng.integers(len(scenes), size=size)]
    is_blurred = rng.random(size) < blurred
    pictures = [blur(draw(scene), rng) if flag else draw(scene) for scene, flag in zip(chosen, is_blurred, strict=True)]
    values = pixel_values(pictures)
    noise = torch.from_numpy(rng.standard_normal(values.shape, np.float32))
    return chosen, is_blurred, values + 0.02 * noise


def train_tower(
    vision: CLIPVisionConfig, scenes: Sequence[Scene], config: TowerConfig, *, seed: int, log: Log
) -> CLIPVisionModel:
    """A tower trained from scratch on varied `scenes`; it depends on the arguments alone."""
    rng = np.random.default_rng([seed, 1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = CLIPVisionModel(vision).train()
        heads = Heads(vision.hidden_size)

    def loss() -> Tensor:
        chosen, is_blurred, values = picture_batch(scenes, config.pictures, config.blurred, rng)
        output = tower(values, output_hidden_states=True)
        targets = tower_targets(chosen, is_blurred, vision.patch_size)
        return heads.loss(output.hidden_states[-2][:, 1:], output.pooler_output, targets)

    minimise([*tower.parameters(), *heads.parameters()], loss, config.schedule, log)
    return tower.eval()


def tower_targets(scenes: Sequence[Scene], is_blurred: np.ndarray, patch: int) -> dict[str, Tensor]:
    """Class numbers [B] by answer name and `covered` [B, P]; what a blurred picture does not tell is ignored."""
    kinds = np.array([KINDS.index(scene.kind) for scene in scenes])
    colors = np.array([list(COLORS).index(scene.color) for scene in scenes])
    coverage = np.stack([scene.coverage for scene in scenes])
    count, side = len(scenes), coverage.shape[1] // patch
    covered = coverage.reshape(count, side, patch, side, patch).sum(axis=(2, 4)).reshape(count, -1) > 1
    targets = {
        "kind": np.where(is_blurred, IGNORED, kinds),
        "color": np.where(is_blurred, IGNORED, colors),
        "blurred": is_blurred.astype(np.int64),
        "covered": np.where(is_blurred[:, None], IGNORED, covered),
    }
    return {name: torch.from_numpy(value) for name, value in targets.items()}
