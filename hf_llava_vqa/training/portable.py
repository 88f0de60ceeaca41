"""What makes a saved folder fit for publishing: safetensors and JSON only, under names that every loader finds."""

from pathlib import Path

from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from transformers.trainer import TRAINING_ARGS_NAME

PUBLISHED = ("*.safetensors", "*.json", "*.jinja", "*.model", "README.md")
"""What a checkpoint publishes; the rest (optimizer, random state) is for going on with the run."""


def make_portable(folder: str | Path) -> None:
    """Leave safetensors and JSON in a saved folder, under names that every loader finds.

    The Trainer pickles its arguments, the Hub token among them, and nothing reads that file. PEFT writes DoRA's
    magnitudes as `lora_magnitude_vector`, but `LlavaForConditionalGeneration.from_pretrained` looks for
    `lora_magnitude_vector.weight` and else starts from new ones with no more than a report; PEFT reads both.
    """
    Path(folder, TRAINING_ARGS_NAME).unlink(missing_ok=True)
    adapter = Path(folder, SAFETENSORS_WEIGHTS_NAME)
    tensors = load_file(adapter) if adapter.is_file() else {}
    bare = [name for name in tensors if name.endswith("lora_magnitude_vector")]
    for name in bare:
        tensors[f"{name}.weight"] = tensors.pop(name)
    if bare:
        save_file(tensors, adapter, metadata={"format": "pt"})
