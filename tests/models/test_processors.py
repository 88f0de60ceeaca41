"""The image pipeline: the original code's pixels, padded and cropped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import LlavaConfig, LlavaProcessor

from hf_llava_vqa.images import open_image
from hf_llava_vqa.models.processors import prepare_processor
from hf_llava_vqa.models.tiny import SAMPLE_TEXTS, TinyConfig, build_tiny_llava

GOLDEN = Path(__file__).parents[1] / "golden" / "parity"
ROWS = [json.loads(line) for line in (GOLDEN / "image_pad.jsonl").open()]


@pytest.fixture(scope="module")
def processors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LlavaProcessor]:
    """By image aspect; of a model that reads 56 by 56 pixels, as the original's run did."""
    folder = tmp_path_factory.mktemp("tiny_56")
    build_tiny_llava(folder, TinyConfig(image_size=56), SAMPLE_TEXTS, seed=0)
    config = LlavaConfig.from_pretrained(folder)
    return {
        aspect: prepare_processor(LlavaProcessor.from_pretrained(folder), config, image_aspect=aspect)
        for aspect in ("pad", "crop")
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: Path(row["file"]).stem)
@pytest.mark.parametrize(("aspect", "key"), [("pad", "pad"), ("crop", "no_pad")])
def test_the_pixels_of_the_original_pipeline(
    processors: dict[str, LlavaProcessor], row: dict[str, Any], aspect: str, key: str
) -> None:
    golden = np.load(GOLDEN / row["npz"])
    picture = open_image(GOLDEN / row["file"])
    if "transparent" in row["file"] or "alpha" in row["file"]:
        # On purpose: the original drops alpha. Its pipeline is compared on the pixels it saw.
        picture = Image.fromarray(golden["rgb"])
    # On purpose: the original ignores the orientation; `exif_*` is its result on the upright picture.
    expected = golden[f"exif_{key}" if row["exif_changes_result"] else key]
    ours = processors[aspect].image_processor(picture, return_tensors="pt")["pixel_values"][0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5)
