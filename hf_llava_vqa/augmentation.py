"""Augmenting training pictures: the recipe SQ-LLaVA once trained with, drawn by hash and made with Pillow alone.

A random part of the picture is resized to a square; then two operations, drawn with replacement, are each applied
with probability one half. There is no mirror image: it breaks text and swaps left and right.

What an operation draws stands with it below. Shears, shifts, rotations and the probability are SQ-LLaVA's (level 5 of
its 10). Its brightness and sharpness change nothing at that level (0.1 + 1.8 * 5 / 10 = 1), so theirs are torchvision's
RandAugment at the same level (5 of 30, times 0.9). Empty corners show the mean colour, which the model reads as zeros;
SQ-LLaVA's were grey.
"""

import hashlib
import math
import random
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

from hf_llava_vqa.images import MEAN_COLOR

AUGMENTATIONS = ("none", "randaugment")

SIDE = 336  # pixels
SCALE = (0.5, 1.0)  # share of the picture's area that is kept
RATIO = (3 / 4, 4 / 3)  # width to height of the part, drawn on a logarithmic scale
CROP_ATTEMPTS = 10
OPERATIONS_PER_PICTURE = 2
PROBABILITY = 0.5

SHEAR = 0.15  # columns per row, and rows per column
SHIFT = 5 / 336  # of the side
ROTATION = 15.0  # degrees
ENHANCEMENT = 0.15  # the factor is 1 plus or minus this

Operation = Callable[[Image.Image, random.Random], Image.Image]


def augment(image: Image.Image, *, seed: int, epoch: int, key: str, side: int = SIDE) -> Image.Image:
    """Return the RGB picture as it is seen in one epoch: `side` by `side` pixels. It depends on the arguments only.

    Args:
        key: names the picture within the data set.
        side: what the vision tower reads; the part that is kept gets stretched to it.
    """
    # Only `random()` and `uniform()` are drawn: Python promises the first to stay the same in all versions.
    generator = random.Random(hashlib.sha256(f"{seed}/{epoch}/{key}".encode()).digest())
    image = image.resize((side, side), Image.Resampling.BICUBIC, box=crop_box(image.size, generator))
    for _ in range(OPERATIONS_PER_PICTURE):
        operation = _OPERATIONS[int(generator.random() * len(_OPERATIONS))]
        if generator.random() < PROBABILITY:
            image = operation(image, generator)
    return image


def crop_box(size: tuple[int, int], generator: random.Random) -> tuple[int, int, int, int]:
    """Draw the part that is kept, as (left, top, right, bottom) in pixels: `SCALE` of the area, of a shape in `RATIO`.

    A picture too long for that keeps the largest part around its centre whose shape is in `RATIO`.
    """
    width, height = size
    for _ in range(CROP_ATTEMPTS):
        area = width * height * generator.uniform(*SCALE)
        ratio = math.exp(generator.uniform(*map(math.log, RATIO)))
        kept_width, kept_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < kept_width <= width and 0 < kept_height <= height:
            left = int(generator.random() * (width - kept_width + 1))
            top = int(generator.random() * (height - kept_height + 1))
            return left, top, left + kept_width, top + kept_height
    kept_width = min(width, max(1, round(height * RATIO[1])))
    kept_height = min(height, max(1, round(width / RATIO[0])))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return left, top, left + kept_width, top + kept_height


def _signed(value: float, generator: random.Random) -> float:
    return value if generator.random() < 0.5 else -value


def _identity(image: Image.Image, generator: random.Random) -> Image.Image:
    return image


def _brightness(image: Image.Image, generator: random.Random) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 + _signed(ENHANCEMENT, generator))


def _sharpness(image: Image.Image, generator: random.Random) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1 + _signed(ENHANCEMENT, generator))


def _equalize(image: Image.Image, generator: random.Random) -> Image.Image:
    return ImageOps.equalize(image)


def _shear_x(image: Image.Image, generator: random.Random) -> Image.Image:
    return _affine(image, (1, _signed(SHEAR, generator), 0, 0, 1, 0))


def _shear_y(image: Image.Image, generator: random.Random) -> Image.Image:
    return _affine(image, (1, 0, 0, _signed(SHEAR, generator), 1, 0))


def _translate_x(image: Image.Image, generator: random.Random) -> Image.Image:
    return _affine(image, (1, 0, _signed(SHIFT * image.width, generator), 0, 1, 0))


def _translate_y(image: Image.Image, generator: random.Random) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, _signed(SHIFT * image.height, generator)))


def _rotate(image: Image.Image, generator: random.Random) -> Image.Image:
    return image.rotate(_signed(ROTATION, generator), Image.Resampling.BILINEAR, fillcolor=MEAN_COLOR)


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Take each pixel (x, y) from (a x + b y + c, d x + e y + f) of the picture."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=MEAN_COLOR)


_OPERATIONS: tuple[Operation, ...] = (
    _identity,
    _brightness,
    _sharpness,
    _equalize,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _rotate,
)
