"""How much arithmetic a training step needs, and which share of a GPU's peak that is.

LoRA on a frozen language model takes 4 N + 6 P operations a token: 2 N forward, 2 N for the gradients of the inputs,
and 6 P for the adapter's forward pass and both of its gradients. Attention adds 4 h an allowed pair and layer, three
times with the backward pass; the frozen tower its forward pass. Projector, norms, embeddings and head are left out.
"""

from dataclasses import dataclass

import torch
from peft import PeftModel

# Dense bfloat16, in FLOP/s, by a part of the name that CUDA gives the card.
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}


@dataclass(frozen=True)
class Arithmetic:
    """What the operations of a step are counted from."""

    layers_parameters: int  # N: matrices of the language model's layers
    adapter_parameters: int  # P
    attention_width: int  # h times layers of the language model
    tower_flops: float  # forward pass of one picture

    @classmethod
    def of(cls, model: PeftModel) -> "Arithmetic":
        """Of a LLaVA with LoRA."""
        base = model.get_base_model()
        text, vision = base.config.text_config, base.config.vision_config
        layers = dict(base.model.language_model.layers.named_parameters())
        matrices = {name: p.numel() for name, p in layers.items() if p.dim() == 2}
        adapter = sum(count for name, count in matrices.items() if "lora_" in name)
        seen = (vision.image_size // vision.patch_size) ** 2 + 1
        tower = sum(p.numel() for p in base.model.vision_tower.parameters() if p.dim() == 2)
        attention = 4 * seen**2 * vision.hidden_size * vision.num_hidden_layers
        return cls(
            layers_parameters=sum(matrices.values()) - adapter,
            adapter_parameters=adapter,
            attention_width=text.hidden_size * text.num_hidden_layers,
            tower_flops=2 * tower * seen + attention,
        )

    def flops(self, tokens: int, pairs: int, images: int, *, recompute: bool = False) -> float:
        """Operations of a step that puts `tokens` and `images` through the model; `pairs` of tokens attend."""
        passes = 1 if recompute else 0
        linear = (4 + 2 * passes) * self.layers_parameters + (6 + 2 * passes) * self.adapter_parameters
        return linear * tokens + (3 + passes) * 4 * self.attention_width * pairs + self.tower_flops * images


def peak_flops() -> float | None:
    """What the GPU could do a second; None on the CPU and for a card that `PEAKS` does not list."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)
