"""easy-VQA's pictures as scenes: one flat shape on a light background, taken apart and drawn again.

The package `easy-vqa` (MIT, https://github.com/vzhou842/easy-VQA) holds 5,000 pictures of 64×64 pixels. What
each shows is worked out from its own questions and pixels, never guessed.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from hf_llava_vqa.errors import RecordError

SIDE = 64  # pixels
BASE_IMAGES = range(2500)  # ids of the train pictures the base learns from; the demo data use the others
KINDS = ("circle", "rectangle", "triangle")
COLORS = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (165, 42, 42),
    "gray": (128, 128, 128),
    "green": (0, 255, 0),
    "red": (255, 0, 0),
    "teal": (0, 128, 128),
    "yellow": (255, 255, 0),
}
LIGHT = 230  # the darkest channel of easy-VQA's backgrounds
BLUR_RADIUS = (8.0, 11.0)  # pixels; at 8 a disc, a square and a triangle of 36 pixels look alike


Rgb = tuple[int, ...]


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `coverage` is the shape, [64, 64] float32 in 0..1, smooth at the edges."""

    image_id: int
    kind: str
    color: str
    coverage: np.ndarray
    background: Rgb
    ink: Rgb

    @property
    def size(self) -> str:
        """small, medium or large, after the longer side of the shape."""
        rows, columns = self.box
        longest = max(rows.stop - rows.start, columns.stop - columns.start)
        return "small" if longest < 14 else "medium" if longest < 25 else "large"

    @property
    def box(self) -> tuple[slice, slice]:
        """The shape's bounding box as (rows, columns)."""
        rows, columns = (np.flatnonzero(self.coverage.any(axis=axis)) for axis in (1, 0))
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def read_scenes(split: str) -> list[Scene]:
    """The scenes of easy-VQA's `split` (train or test) in the order of their ids.

    Pictures whose questions do not tell the kind of shape are left out: 163 of 4,000 and 46 of 1,000.

    Raises:
        RecordError: the package is missing, or a picture is not a flat shape of a known colour.
    """
    try:
        import easy_vqa
    except ModuleNotFoundError as error:
        raise RecordError("the demo draws on the package easy-vqa; run: pip install easy-vqa==1.0") from error
    questions = {"train": easy_vqa.get_train_questions, "test": easy_vqa.get_test_questions}[split]()
    paths = {"train": easy_vqa.get_train_image_paths, "test": easy_vqa.get_test_image_paths}[split]()
    kinds = _kinds(*questions)
    return [_read_scene(image_id, kind, Path(paths[image_id])) for image_id, kind in sorted(kinds.items())]


def _kinds(texts: list[str], answers: list[str], image_ids: list[int]) -> dict[int, str]:
    """Image id -> kind of shape, as far as the picture's own questions and answers tell."""
    possible: dict[int, set[str]] = defaultdict(lambda: set(KINDS))
    for text, answer, image_id in zip(texts, answers, image_ids, strict=True):
        named = set(KINDS).intersection(re.findall(r"\w+", text))
        if answer in KINDS:
            possible[image_id] &= {answer}
        elif named and answer in ("yes", "no"):
            shown = (answer == "yes") != bool(re.search(r"\b(no|not)\b", text))
            possible[image_id] &= named if shown else set(KINDS) - named
        elif named:  # "what color is the circle?"
            possible[image_id] &= named
    return {image_id: kinds.pop() for image_id, kinds in possible.items() if len(kinds) == 1}


def _read_scene(image_id: int, kind: str, path: Path) -> Scene:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    codes, counts = np.unique(pixels.reshape(-1, 3) @ (1 << 16, 1 << 8, 1), return_counts=True)
    by_frequency = [(code >> 16, code >> 8 & 255, code & 255) for code in codes[np.argsort(-counts)].tolist()]
    background = next((value for value in by_frequency if min(value) >= LIGHT), None)
    ink = next((value for value in by_frequency if value in COLORS.values()), None)
    if ink is None or background is None:
        raise RecordError(f"{path}: not a flat shape in one of easy-VQA's colours; reinstall easy-vqa==1.0")
    color = next(name for name, value in COLORS.items() if value == ink)
    difference = np.subtract(ink, background)
    coverage = (pixels - np.array(background)) @ (difference / (difference @ difference))
    return Scene(image_id, kind, color, coverage.clip(0, 1).astype(np.float32), background, ink)


def draw(scene: Scene) -> np.ndarray:
    """The scene as pixels, [64, 64, 3] uint8; an unaltered scene gives easy-VQA's own picture to ±2."""
    background, ink = np.array(scene.background), np.array(scene.ink)
    return np.rint(background + scene.coverage[..., None] * (ink - background)).astype(np.uint8)


def blur(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur so strongly that the kind of shape cannot be told, [64, 64, 3] uint8 -> the same."""
    radius = rng.uniform(*BLUR_RADIUS)
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def vary(scene: Scene, rng: np.random.Generator) -> Scene:
    """Another scene with a shape of the same kind.

    Flips, quarter turns, a zoom of 0.85 to 1.3 for shapes that stay recognisable, a new place and background, one
    of the eight colours and a little brightness: the name of the colour is still right.
    """
    shape = np.rot90(scene.coverage[scene.box], int(rng.integers(4)))
    shape = shape[:: rng.choice((1, -1)), :: rng.choice((1, -1))]
    if min(shape.shape) >= 8:
        shape = _zoom(shape, rng.uniform(0.85, 1.3))
    coverage = np.zeros((SIDE, SIDE), np.float32)
    top, left = (rng.integers(SIDE - length + 1) for length in shape.shape)
    coverage[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
    color = str(rng.choice(list(COLORS)))
    ink = np.clip(np.array(COLORS[color]) * rng.uniform(0.9, 1.1) + rng.uniform(-8, 8, 3), 0, 255)
    background = rng.integers(LIGHT, 256, size=3)
    return replace(
        scene,
        color=color,
        coverage=coverage,
        background=tuple(map(int, background)),
        ink=tuple(map(int, ink)),
    )


def _zoom(shape: np.ndarray, factor: float) -> np.ndarray:
    height, width = (min(SIDE, round(length * factor)) for length in shape.shape)
    return np.asarray(Image.fromarray(shape).resize((width, height), Image.Resampling.BILINEAR))
