"""A language model and a CLIP tower in folders of their own, as the Hub has them: what a LLaVA is assembled from."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from hf_llava_vqa import prompts
from hf_llava_vqa.models.tiny import BOS, EOS, PAD, SAMPLE_TEXTS, UNK, tiny_tokenizer

KINDS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}
SIDE, PATCH = 28, 14


def language_model_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer without `<image>` and `<pad>`; like Vicuna's it pads with `<unk>`."""
    backend = json.loads(tiny_tokenizer(SAMPLE_TEXTS, 512).backend_tokenizer.to_str())
    backend["added_tokens"] = [t for t in backend["added_tokens"] if t["content"] not in (prompts.IMAGE_TOKEN, PAD)]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=UNK,
        clean_up_tokenization_spaces=False,
    )


def save_language_model(folder: Path, kind: str = "llama", *, hidden: int = 64) -> Path:
    """A random language model with its tokenizer; Qwen2's has tied embeddings."""
    tokenizer = language_model_tokenizer()
    config = KINDS[kind](
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=kind == "qwen2",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_vision_tower(folder: Path, *, width: int = 32) -> Path:
    """A random CLIP, text encoder included, with its image processor."""
    sizes = {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision = {"image_size": SIDE, "patch_size": PATCH, **sizes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        CLIPModel(CLIPConfig(vision_config=vision, text_config=sizes)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )
    return folder
