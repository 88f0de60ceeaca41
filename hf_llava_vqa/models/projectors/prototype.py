"""SQ-LLaVA's projector: patches are grouped around prototypes of their own picture, and learn from their group.

`PrototypeProjector` is what SQ-LLaVA's code computes (heliossun/SQ-LLaVA, multimodal_projector/cluster.py), and what
its weights need; `SoftPrototypeProjector` is what its paper describes (arXiv 2403.11299). Everything is matrix products
over [B, N, L] and [B, L, D]: no product of the two is ever laid out.

Grouping is computed in float32 at least. The prototypes of a picture are nearly parallel, and in bfloat16 rounding
would choose among them.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaConfig
from transformers.activations import ACT2FN

from hf_llava_vqa.models.projectors.linear import feature_width


class GroupingProjector(nn.Module, ABC):
    """`group`, which subclasses define, then an MLP with QuickGELU: [B, L, D] to [B, L, H]."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__()
        hidden = config.text_config.hidden_size
        self.linear_1 = nn.Linear(feature_width(config), hidden)
        self.act = ACT2FN["quick_gelu"]
        self.linear_2 = nn.Linear(hidden, hidden)

    def forward(self, image_features: Tensor) -> Tensor:
        """Patch features [B, L, D] to the language model's width [B, L, H]."""
        precision = torch.promote_types(image_features.dtype, torch.float32)
        with torch.autocast(image_features.device.type, enabled=False):
            grouped = self.group(image_features.to(precision))
        return self.linear_2(self.act(self.linear_1(grouped.to(image_features.dtype))))

    @abstractmethod
    def group(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, D], each with what its group adds to it."""


class PrototypeProjector(GroupingProjector):
    """Every token joins its most similar prototype, and gets the mean of that group, by how similar it is.

    The prototypes begin as averages of neighbouring tokens. An iteration deals each token out to them, and makes each
    the sum of its shares.
    """

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        width = feature_width(config)
        self.num_prototypes = config.num_prototypes
        self.iterations = config.prototype_iterations
        self.prototype = InputPrecisionLinear(width, width)
        self.key = InputPrecisionLinear(width, width)
        self.value = InputPrecisionLinear(width, width)
        self.similarity_scale = nn.Parameter(torch.ones(1))
        self.similarity_shift = nn.Parameter(torch.zeros(1))

    def group(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, D], each with its similarity to its prototype times the mean of the group."""
        values = self.value(tokens)
        pooling = pooling_matrix(tokens, self.num_prototypes)
        pooled_values = pooling @ values
        prototypes = self.prototypes(pooling @ tokens, tokens, values)
        cosines = functional.normalize(prototypes, dim=-1) @ functional.normalize(tokens, dim=-1).mT
        similarity = torch.sigmoid(self.similarity_shift + self.similarity_scale * cosines)  # [B, N, L]
        joined = torch.zeros_like(similarity).scatter_(1, similarity.argmax(dim=1, keepdim=True), 1.0)
        gates = similarity * joined
        means = (gates @ values + pooled_values) / (joined.sum(dim=-1, keepdim=True) + 1)
        return tokens + gates.mT @ means

    def prototypes(self, prototypes: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        """The prototypes [B, N, D] after the last iteration."""
        keys = functional.normalize(self.key(tokens), dim=1)  # over the tokens: unusual, but so the weights were made
        for _ in range(self.iterations):
            shares = (functional.normalize(self.prototype(prototypes), dim=-1) @ keys.mT).softmax(dim=1)
            prototypes = shares @ values
        return prototypes


class SoftPrototypeProjector(GroupingProjector):
    """Every token gets a mean of all prototypes, each weighted by how similar it is, through one more linear map.

    The prototypes begin as learned vectors, the same for all pictures. The paper leaves open along which axis the
    shares of an iteration sum to one: here, as in the code, each token is dealt out to the prototypes.
    """

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        width = feature_width(config)
        self.iterations = config.prototype_iterations
        self.initial = nn.Parameter(torch.randn(config.num_prototypes, width) * width**-0.5)
        self.query = InputPrecisionLinear(width, width)
        self.key = InputPrecisionLinear(width, width)
        self.value = InputPrecisionLinear(width, width)
        self.output = InputPrecisionLinear(width, width)

    def group(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, D], each with its share of all prototypes."""
        keys, values = self.key(tokens), self.value(tokens)
        prototypes = self.initial.to(tokens.dtype).expand(len(tokens), -1, -1)
        for _ in range(self.iterations):
            prototypes = (self.query(prototypes) @ keys.mT).softmax(dim=1) @ values
        cosines = functional.normalize(prototypes, dim=-1) @ functional.normalize(tokens, dim=-1).mT
        return tokens + self.output(cosines.mT @ prototypes / prototypes.shape[1])


class InputPrecisionLinear(nn.Linear):
    """A linear map in the precision of what it reads; a float32 product stays one when the weights are bfloat16."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return functional.linear(input, self.weight.to(input.dtype), self.bias.to(input.dtype))


def pooling_matrix(tokens: Tensor, groups: int) -> Tensor:
    """[N, L]: adaptive average pooling of tokens [B, L, D] as a product, whose gradient is the same in every run."""
    every_token = torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device)
    return functional.adaptive_avg_pool1d(every_token, groups).T
