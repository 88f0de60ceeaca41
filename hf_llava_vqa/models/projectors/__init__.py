"""Projectors besides the stock MLP, each with a LLaVA that differs from transformers' in nothing else.

Importing this package registers them with transformers' Auto classes. Their `projector_hidden_act` is no activation
that transformers knows, so the stock class refuses their checkpoints instead of starting from a random projector.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, LlavaConfig

from hf_llava_vqa.models.projectors.modeling import (
    LlavaLinearConfig,
    LlavaLinearForConditionalGeneration,
    LlavaLinearModel,
    LlavaPrototypeConfig,
    LlavaPrototypeForConditionalGeneration,
    LlavaPrototypeModel,
    LlavaSoftPrototypeConfig,
    LlavaSoftPrototypeForConditionalGeneration,
    LlavaSoftPrototypeModel,
)

__all__ = [
    "PROJECTORS",
    "LlavaLinearConfig",
    "LlavaLinearForConditionalGeneration",
    "LlavaPrototypeConfig",
    "LlavaPrototypeForConditionalGeneration",
    "LlavaSoftPrototypeConfig",
    "LlavaSoftPrototypeForConditionalGeneration",
]

PROJECTORS: dict[str, type[LlavaConfig]] = {
    "mlp": LlavaConfig,
    "linear": LlavaLinearConfig,
    "prototype": LlavaPrototypeConfig,
    "soft_prototype": LlavaSoftPrototypeConfig,
}
"""Name of a projector -> configuration of a LLaVA that has it."""

for _config, _model, _generator in (
    (LlavaLinearConfig, LlavaLinearModel, LlavaLinearForConditionalGeneration),
    (LlavaPrototypeConfig, LlavaPrototypeModel, LlavaPrototypeForConditionalGeneration),
    (LlavaSoftPrototypeConfig, LlavaSoftPrototypeModel, LlavaSoftPrototypeForConditionalGeneration),
):
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
    AutoModelForImageTextToText.register(_config, _generator)
