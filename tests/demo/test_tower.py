"""Stage one's batches: pictures as the processor makes them, targets that leave out what a blurred picture hides."""

import numpy as np
import torch
from transformers import AutoProcessor

from hf_llava_vqa.demo.pictures import COLORS, KINDS, draw
from hf_llava_vqa.demo.tower import IGNORED, pixel_values, tower_targets
from hf_llava_vqa.models.tiny import SAMPLE_TEXTS, TinyConfig, build_tiny_llava


def test_pixels_are_the_processors(held_out_scenes, tmp_path):
    build_tiny_llava(tmp_path, TinyConfig(image_size=64, patch_size=8), SAMPLE_TEXTS, seed=0)
    pictures = [draw(scene) for scene in held_out_scenes[:3]]
    processed = AutoProcessor.from_pretrained(tmp_path).image_processor(pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixel_values(pictures), processed, atol=1e-5, rtol=0)


def test_targets_name_what_a_sharp_picture_shows_and_where(held_out_scenes):
    scenes = held_out_scenes[:2]
    targets = tower_targets(scenes, np.array([False, True]), patch=8)
    assert targets["kind"].tolist() == [KINDS.index(scenes[0].kind), IGNORED]
    assert targets["color"].tolist() == [list(COLORS).index(scenes[0].color), IGNORED]
    assert targets["blurred"].tolist() == [0, 1]
    assert set(targets["covered"][1].tolist()) == {IGNORED}
    rows, columns = scenes[0].box
    inside = ((rows.start + rows.stop) // 2 // 8) * 8 + (columns.start + columns.stop) // 2 // 8
    assert targets["covered"][0, inside] == 1
    assert 0 < targets["covered"][0].sum() < 64
