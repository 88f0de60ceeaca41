"""Which layers of the tower are read, and so can be trained."""

from pathlib import Path

import pytest
from transformers import LlavaForConditionalGeneration

from hf_llava_vqa.models.vision import freeze_unread_layers


@pytest.mark.parametrize(
    ("taken", "trained"), [(-1, [0, 1, 2]), (-2, [0, 1]), (2, [0, 1]), ([-3, -2], [0, 1]), ([1, -1], [0, 1, 2])]
)
def test_layers_behind_the_deepest_that_is_taken_are_frozen(
    tiny_llava: Path, taken: int | list[int], trained: list[int]
) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(tiny_llava).model
    model.config.vision_feature_layer = taken
    freeze_unread_layers(model)
    layers = model.vision_tower.encoder.layers
    assert [place for place, layer in enumerate(layers) if layer.mlp.fc1.weight.requires_grad] == trained
