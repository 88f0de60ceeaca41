"""Configuration and model of each projector: transformers' LLaVA, built around another `multi_modal_projector`."""

from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoModel, LlavaConfig, LlavaForConditionalGeneration, LlavaModel, LlavaPreTrainedModel
from transformers import initialization as init

from hf_llava_vqa.models.projectors.linear import LinearProjector
from hf_llava_vqa.models.projectors.prototype import PrototypeProjector, SoftPrototypeProjector


@strict
class LlavaLinearConfig(LlavaConfig):
    """LLaVA with one linear map as projector."""

    model_type = "llava_linear"
    projector_hidden_act: str = "one_linear"


@strict
class LlavaPrototypeConfig(LlavaConfig):
    """LLaVA with the projector of SQ-LLaVA's code."""

    model_type = "llava_prototype"
    projector_hidden_act: str = "prototype"
    num_prototypes: int = 256
    prototype_iterations: int = 2


@strict
class LlavaSoftPrototypeConfig(LlavaPrototypeConfig):
    """LLaVA with the projector of SQ-LLaVA's paper."""

    model_type = "llava_soft_prototype"
    projector_hidden_act: str = "soft_prototype"


class _Model(LlavaModel):
    """`LlavaModel` with the projector of a subclass."""

    projector: ClassVar[type[nn.Module]]

    def __init__(self, config: LlavaConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)  # LlavaModel's own would build the MLP
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.multi_modal_projector = self.projector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The stock initialisation, and that of the parameters which are no layer's."""
        super()._init_weights(module)
        if isinstance(module, PrototypeProjector):
            init.ones_(module.similarity_scale)
            init.zeros_(module.similarity_shift)
        elif isinstance(module, SoftPrototypeProjector):
            init.normal_(module.initial, std=module.initial.shape[1] ** -0.5)


class LlavaLinearModel(_Model):
    """The model without a language modelling head."""

    config: LlavaLinearConfig
    projector = LinearProjector


class LlavaPrototypeModel(_Model):
    """The model without a language modelling head."""

    config: LlavaPrototypeConfig
    projector = PrototypeProjector


class LlavaSoftPrototypeModel(_Model):
    """The model without a language modelling head."""

    config: LlavaSoftPrototypeConfig
    projector = SoftPrototypeProjector


class _Generator(LlavaForConditionalGeneration):
    """`LlavaForConditionalGeneration` around the model of a subclass."""

    model_class: ClassVar[type[_Model]]

    def __init__(self, config: LlavaConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)  # LlavaForConditionalGeneration's own would build the stock model
        self.model = self.model_class(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


class LlavaLinearForConditionalGeneration(_Generator):
    """LLaVA 1.0: CLIP, one linear map, a language model."""

    config: LlavaLinearConfig
    model_class = LlavaLinearModel


class LlavaPrototypeForConditionalGeneration(_Generator):
    """SQ-LLaVA as its code has it: CLIP, prototypes with an MLP, a language model."""

    config: LlavaPrototypeConfig
    model_class = LlavaPrototypeModel


class LlavaSoftPrototypeForConditionalGeneration(_Generator):
    """SQ-LLaVA as its paper has it: CLIP, soft prototypes with an MLP, a language model."""

    config: LlavaSoftPrototypeConfig
    model_class = LlavaSoftPrototypeModel
