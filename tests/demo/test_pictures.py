"""Scenes: easy-VQA's pictures are taken apart rightly, drawn again exactly, varied without changing their kind."""

import sys
from collections import Counter

import easy_vqa
import numpy as np
import pytest
from PIL import Image

from hf_llava_vqa.demo.pictures import COLORS, KINDS, Scene, blur, draw, read_scenes, vary
from hf_llava_vqa.errors import RecordError


def kind_by_area(scene: Scene) -> str:
    """The kind told from the share of its box that a shape fills: 1, pi/4 or 1/2."""
    solid = scene.coverage > 0.5
    filled = solid[np.ix_(solid.any(axis=1), solid.any(axis=0))].mean()
    return "rectangle" if filled > 0.9 else "circle" if filled > 0.65 else "triangle"


def test_pictures_without_a_known_kind_are_left_out(train_scenes, held_out_scenes):
    assert (len(train_scenes), len(held_out_scenes)) == (4000 - 163, 1000 - 46)
    assert set(Counter(scene.kind for scene in train_scenes)) == set(KINDS)


def test_drawing_gives_the_original_picture(held_out_scenes):
    paths = easy_vqa.get_test_image_paths()
    for scene in held_out_scenes[:100]:
        with Image.open(paths[scene.image_id]) as image:
            original = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(draw(scene) - original).max() <= 2


def test_kinds_agree_with_geometry(held_out_scenes):
    clear = [scene for scene in held_out_scenes if scene.size == "large"]
    assert len(clear) > 300
    assert all(kind_by_area(scene) == scene.kind for scene in clear)


def test_varied_scenes_keep_their_kind_and_name_their_color(held_out_scenes):
    rng = np.random.default_rng(0)
    varied = [vary(scene, rng) for scene in held_out_scenes if scene.size == "large"][:200]
    assert all(kind_by_area(scene) == scene.kind for scene in varied)
    for scene in varied:
        distances = {name: np.abs(np.subtract(scene.ink, value)).sum() for name, value in COLORS.items()}
        assert min(distances, key=distances.__getitem__) == scene.color
    assert len({scene.background for scene in varied}) > 100


def test_varying_is_reproducible(held_out_scenes):
    first, second = (draw(vary(held_out_scenes[0], np.random.default_rng(3))) for _ in range(2))
    assert np.array_equal(first, second)


def test_blurred_pictures_have_no_edges(held_out_scenes):
    rng = np.random.default_rng(0)
    black = next(scene for scene in held_out_scenes if scene.color == "black" and scene.size == "large")
    steepest = np.abs(np.diff(blur(draw(black), rng).astype(int), axis=0)).max()
    assert steepest < 20 < np.abs(np.diff(draw(black).astype(int), axis=0)).max()


def test_missing_package_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(RecordError, match="pip install easy-vqa"):
        read_scenes("train")
