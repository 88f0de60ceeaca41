"""One linear map, the projector of LLaVA 1.0."""

from torch import nn
from transformers import LlavaConfig


class LinearProjector(nn.Linear):
    """Patch features [B, L, D] to the language model's width [B, L, H]."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(feature_width(config), config.text_config.hidden_size, bias=config.multimodal_projector_bias)


def feature_width(config: LlavaConfig) -> int:
    """Width of the patch features a projector reads: that of the tower, for each layer that is taken."""
    layers = config.vision_feature_layer
    return config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
