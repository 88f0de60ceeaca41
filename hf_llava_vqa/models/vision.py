"""The vision tower, frozen or adapted."""

import torch
from torch import nn
from transformers import LlavaModel


def run_without_autograd(tower: nn.Module) -> None:
    """Make a frozen tower compute without a graph, whatever its inputs require.

    Gradient checkpointing with PEFT makes the input embeddings of every submodule require gradients, the tower's
    included (huggingface/transformers#41993), which would back-propagate through it for nothing.
    """
    modes: list[bool] = []

    def enter(*_: object) -> None:
        modes.append(torch.is_grad_enabled())
        torch.set_grad_enabled(False)

    def leave(*_: object) -> None:
        torch.set_grad_enabled(modes.pop())

    tower.register_forward_pre_hook(enter)
    tower.register_forward_hook(leave, always_call=True)


def freeze_unread_layers(model: LlavaModel) -> None:
    """Freeze the tower's layers behind the deepest one that features are taken from: LLaVA-1.5 reads layer -2.

    They are computed and never read, so an adapter there gets no gradient, and DDP would wait for one.
    """
    layers = model.vision_tower.encoder.layers
    taken = model.config.vision_feature_layer
    outputs = len(layers) + 1  # the embeddings' comes first
    deepest = max(index % outputs for index in ([taken] if isinstance(taken, int) else taken))
    layers[deepest:].requires_grad_(False)
