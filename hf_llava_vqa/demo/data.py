"""The demo's data: easy-VQA pictures, some of them blurred, asked about and annotated in VizWiz's format.

Training pictures come from easy-VQA's train pictures that the base has not seen, held-out ones from its test pictures.
"""

import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from hf_llava_vqa.demo.annotators import UNANSWERABLE, Crowd, answer
from hf_llava_vqa.demo.dialogues import QUESTIONS, ask
from hf_llava_vqa.demo.pictures import BASE_IMAGES, Scene, blur, draw, read_scenes
from hf_llava_vqa.errors import ConfigError, RecordError

TOPICS = ("yes/no", "color", "kind")


@dataclass(frozen=True)
class DemoData:
    """How much of what."""

    train_images: int = 1000
    held_out_images: int = 300
    questions_per_image: int = 4
    blurred_share: float = 0.15
    crowd: Crowd = field(default_factory=Crowd)


def write_vizwiz_demo(folder: Path, config: DemoData, *, seed: int) -> dict[str, Counter[str]]:
    """Write `train.json`, `val.json` and the pictures in `train/` and `val/`, as VizWiz is published.

    Args:
        folder: created; files of an earlier run are written over.
        config: sizes and shares.
        seed: decides which pictures, questions, answers and blurs.

    Returns:
        Questions by answer type for each split.

    Raises:
        ConfigError: more pictures are asked for than there are.
        RecordError: the same picture in both splits, or easy-vqa is missing.
    """
    sources = {
        "train": [scene for scene in read_scenes("train") if scene.image_id not in BASE_IMAGES],
        "val": read_scenes("test"),
    }
    sizes = {"train": config.train_images, "val": config.held_out_images}
    counts, hashes = {}, {}
    for number, (split, scenes) in enumerate(sources.items()):
        if sizes[split] > len(scenes):
            raise ConfigError(f"{sizes[split]} {split} images asked for, there are {len(scenes)}; ask for fewer")
        rng = np.random.default_rng([seed, number])
        chosen = [scenes[index] for index in rng.permutation(len(scenes))[: sizes[split]]]
        rows, hashes[split] = _write_split(folder, split, chosen, config, rng)
        counts[split] = Counter(row["answer_type"] for row in rows)
    if shared := hashes["train"] & hashes["val"]:
        raise RecordError(f"{len(shared)} pictures are in both splits of {folder}; use another seed")
    return counts


def _write_split(
    folder: Path, split: str, scenes: list[Scene], config: DemoData, rng: np.random.Generator
) -> tuple[list[dict], set[str]]:
    """Write one split; returns its annotation rows and the SHA-256 of its pictures."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    rows, hashes = [], set()
    for number, scene in enumerate(scenes):
        name = f"VizWiz_{split}_{number:08d}.jpg"
        blurred = bool(rng.random() < config.blurred_share)
        encoded = _jpeg(blur(draw(scene), rng) if blurred else draw(scene))
        (folder / split / name).write_bytes(encoded)
        hashes.add(hashlib.sha256(encoded).hexdigest())
        rows += [_row(name, scene, blurred, question, config, rng) for question in range(config.questions_per_image)]
    (folder / f"{split}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return rows, hashes


def _row(name: str, scene: Scene, blurred: bool, number: int, config: DemoData, rng: np.random.Generator) -> dict:
    """One annotated question; the questions of a picture go through the topics in turn."""
    topic = TOPICS[number % len(TOPICS)]
    question, truth, _ = ask(scene, topic, QUESTIONS[topic], rng)
    answers = answer(topic, truth, blurred, config.crowd, rng)
    return {
        "image": name,
        "question": question,
        "answers": answers,
        "answer_type": UNANSWERABLE if blurred else "yes/no" if topic == "yes/no" else "other",
        "answerable": int(not blurred),
    }


def _jpeg(pixels: np.ndarray) -> bytes:
    """Quality 95 without chroma subsampling: the colours of a 12-pixel shape survive."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
