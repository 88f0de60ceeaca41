"""Augmented pictures: the same for the same seed, epoch and key; within the recipe's ranges; never mirrored."""

import math
import multiprocessing
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hf_llava_vqa import augmentation
from hf_llava_vqa.augmentation import augment, crop_box
from hf_llava_vqa.images import MEAN_COLOR

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def colours_by_column(size=(120, 90)):
    """A picture whose columns run from black on the left to red on the right."""
    values = np.zeros((size[1], size[0], 3), np.uint8)
    values[..., 0] = np.linspace(0, 255, size[0], dtype=np.uint8)
    return Image.fromarray(values)


def augmented_bytes(arguments):
    seed, epoch, key = arguments
    return augment(NOISE, seed=seed, epoch=epoch, key=key, side=28).tobytes()


# What it depends on


def test_the_same_arguments_give_the_same_pixels_in_every_process():
    cases = [(seed, epoch, key) for seed in range(3) for epoch in range(3) for key in ("a.png", "b.png")]
    here = list(map(augmented_bytes, cases))
    random.seed(5)  # not the process's generators
    np.random.seed(5)
    assert list(map(augmented_bytes, cases)) == here
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(augmented_bytes, cases) == here


def test_seed_epoch_and_key_all_matter():
    views = [augmented_bytes((seed, epoch, key)) for seed in range(4) for epoch in range(4) for key in "abcd"]
    assert len(set(views)) == len(views)


def test_the_generators_of_the_process_are_left_alone():
    random.seed(1)
    before = random.getstate()
    augment(NOISE, seed=0, epoch=0, key="a")
    assert random.getstate() == before


def test_the_picture_is_left_as_it_was():
    before = NOISE.tobytes()
    for epoch in range(20):
        view = augment(NOISE, seed=0, epoch=epoch, key="a")
        assert (view.size, view.mode) == ((336, 336), "RGB")
    assert NOISE.tobytes() == before


# The part that is kept


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 10**6))
def test_the_part_lies_inside_the_picture(width, height, seed):
    left, top, right, bottom = crop_box((width, height), random.Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_area_and_shape_keep_to_their_ranges():
    boxes = [crop_box((1000, 900), random.Random(seed)) for seed in range(2000)]
    areas = [(right - left) * (bottom - top) / 900_000 for left, top, right, bottom in boxes]
    ratios = [(right - left) / (bottom - top) for left, top, right, bottom in boxes]
    assert 0.499 < min(areas) < 0.51
    assert 0.9 < max(areas) <= 1
    assert 0.748 < min(ratios) < 0.76
    assert 1.32 < max(ratios) < 1.336
    assert np.mean(np.log(ratios)) == pytest.approx(0, abs=0.03)
    assert {left for left, *_ in boxes} > {0, 100}


@pytest.mark.parametrize(
    ("size", "box"), [((1000, 100), (433, 0, 566, 100)), ((100, 1000), (0, 433, 100, 566)), ((1, 1), (0, 0, 1, 1))]
)
def test_a_very_long_picture_keeps_its_middle(size, box):
    assert crop_box(size, random.Random(0)) == box


# The operations


def view_of(name, image, sign):
    """The picture after one operation whose sign is drawn as given."""
    generator = random.Random()
    generator.random = lambda: 0.25 if sign > 0 else 0.75
    return getattr(augmentation, f"_{name}")(image, generator)


def test_the_operations_are_those_of_the_recipe():
    names = [operation.__name__ for operation in augmentation._OPERATIONS]
    assert names == [
        *("_identity", "_brightness", "_sharpness", "_equalize"),
        *("_shear_x", "_shear_y", "_translate_x", "_translate_y", "_rotate"),
    ]


def test_each_operation_is_drawn_equally_often_and_applied_half_of_the_time(monkeypatch):
    drawn = Counter()

    def counting(number):
        return lambda image, generator: drawn.update([number]) or image

    monkeypatch.setattr(augmentation, "_OPERATIONS", tuple(map(counting, range(9))))
    small = Image.new("RGB", (8, 8))
    for epoch in range(3000):
        augment(small, seed=0, epoch=epoch, key="a", side=8)
    expected = 3000 * 2 * 0.5 / 9
    assert sorted(drawn) == list(range(9))
    assert abs(drawn.total() - 3000) < 6 * math.sqrt(6000 / 4)
    assert all(abs(count - expected) < 6 * math.sqrt(expected) for count in drawn.values())


def test_identity_changes_nothing():
    assert view_of("identity", NOISE, 1).tobytes() == NOISE.tobytes()


def test_brightness_is_scaled_by_15_percent():
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    assert view_of("brightness", grey, 1).getpixel((0, 0)) == (115, 115, 115)
    assert view_of("brightness", grey, -1).getpixel((0, 0)) == (85, 85, 85)


def test_sharpness_moves_away_from_the_blurred_picture_and_back():
    edge = Image.new("L", (9, 9), 100).convert("RGB")
    edge.paste((150, 150, 150), (5, 0, 9, 9))
    sharper, softer = (np.asarray(view_of("sharpness", edge, sign))[4, :, 0].astype(int) for sign in (1, -1))
    assert sharper[5] > 150 > softer[5]
    assert sharper[4] < 100 < softer[4]
    assert sharper[2] == softer[2] == 100


def test_equalize_is_pillows():
    assert view_of("equalize", NOISE, 1).tobytes() == ImageOps.equalize(NOISE).tobytes()


def centre(image):
    """Where the white pixels lie on average."""
    rows, columns = np.nonzero(np.asarray(image)[..., 0] > 230)
    return columns.mean(), rows.mean()


def dot(x, y):
    image = Image.new("RGB", (336, 336))
    image.paste("white", (x - 3, y - 3, x + 4, y + 4))
    return image


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("translate_x", lambda x, y, sign: (x - sign * 5, y)),
        ("translate_y", lambda x, y, sign: (x, y - sign * 5)),
        ("shear_x", lambda x, y, sign: (x - sign * 0.15 * y, y)),
        ("shear_y", lambda x, y, sign: (x, y - sign * 0.15 * x)),
    ],
)
def test_shifts_and_shears_move_points_as_far_as_the_recipe_says(name, moved, sign):
    assert centre(view_of(name, dot(150, 200), sign)) == pytest.approx(moved(150, 200, sign), abs=1)


def test_rotation_is_by_15_degrees_about_the_middle():
    for sign in (1, -1):
        x, y = centre(view_of("rotate", dot(268, 168), sign))
        assert math.degrees(math.atan2(168 - y, x - 168)) == pytest.approx(sign * 15, abs=0.5)


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_empty_corners_show_the_mean_colour(name):
    view = view_of(name, Image.new("RGB", (336, 336), "white"), -1)
    corners = {view.getpixel((x, y)) for x in (0, 335) for y in (0, 335)}
    assert MEAN_COLOR in corners


def test_no_picture_is_mirrored():
    left_to_right = colours_by_column()
    for epoch in range(300):
        view = np.asarray(augment(left_to_right, seed=1, epoch=epoch, key="a", side=64)).astype(int)
        middle = view[20:44]
        assert middle[:, 40:56, 0].mean() > middle[:, 8:24, 0].mean() + 30
