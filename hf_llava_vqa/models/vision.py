"""The frozen vision tower."""

import torch
from torch import nn


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
