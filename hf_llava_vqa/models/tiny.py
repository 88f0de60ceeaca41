"""A tiny LLaVA, complete and offline: CLIP tower, Llama, tokenizer and processor built from a `TinyConfig`.

Everything is stock Hugging Face, only small, so tests, the demo and the benchmarks go through the same
classes and files as llava-1.5-7b. Weights are random; the demo trains its base from here.
"""

import json
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from hf_llava_vqa import prompts

UNK, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<pad>"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_ASCII = sorted(set(string.ascii_letters + string.digits + string.punctuation))
# In Llama's vocabulary `USER` is one piece, but two after a space: these merges come first to keep it so.
_USER_MERGES = [("U", "S"), ("▁", "US"), ("E", "R"), ("US", "ER")]

SAMPLE_TEXTS = (
    prompts.V1.system,
    "USER: ASSISTANT:",
    "What is this? It is a can of cola. What colour is the box? It is red. How many bottles are there? Two.",
    "Is there a dog in the picture? Yes, there is a brown dog. No, the picture is too blurry. unanswerable",
    "When the provided information is insufficient, respond with 'Unanswerable'.",
    "Answer the question using a single word or phrase. Describe the picture.",
)
"""A few prompts and answers, enough to train a tokenizer for tests."""


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of a tiny LLaVA; the defaults build in a second and run in milliseconds."""

    image_size: int = 28  # pixels a side
    patch_size: int = 14  # (image_size / patch_size)^2 image tokens
    vision_hidden: int = 32
    vision_intermediate: int = 64
    vision_layers: int = 3  # the last one is computed but not used: LLaVA reads layer -2
    vision_heads: int = 2
    hidden: int = 64
    intermediate: int = 128
    layers: int = 2
    heads: int = 4
    max_positions: int = 2048
    vocab_size: int = 512  # at most so many pieces, without `<image>` and `<pad>`
    initializer_range: float = 0.02


def build_tiny_llava(folder: str | Path, config: TinyConfig, corpus: Iterable[str], *, seed: int) -> None:
    """Write a complete Hugging Face LLaVA folder with random weights (float32 safetensors).

    Args:
        folder: created if missing; `LlavaForConditionalGeneration` and `AutoProcessor` load it.
        config: the sizes.
        corpus: texts the tokenizer is trained on; it always knows ASCII and falls back to bytes.
        seed: of the weights. The same arguments give the same bytes; the caller's random state is untouched.
    """
    processor = tiny_processor(config, tiny_tokenizer(corpus, config.vocab_size))
    model = tiny_model(config, processor.tokenizer, seed=seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def tiny_tokenizer(corpus: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A BPE tokenizer that behaves like Llama's with `legacy=false`, trained on `corpus`.

    `<unk>`, `<s>`, `</s>` are ids 0, 1, 2; then 256 bytes, merged pieces and single characters; `<image>` and
    `<pad>` are added behind. Its class is the generic fast one: for class LlamaTokenizer, AutoTokenizer of
    transformers 5 throws the stored pre-tokenizer away and builds another.
    """
    pieces, merges = _train_bpe(corpus, vocab_size)
    vocab = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab, merges, unk_token=UNK, fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = (UNK, BOS, EOS, prompts.IMAGE_TOKEN, PAD)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, vocab[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": prompts.IMAGE_TOKEN},
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def tiny_processor(config: TinyConfig, tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """LLaVA-1.5's processor: pad to a square with the mean colour, resize, CLIP's mean and deviation."""
    side = config.image_size
    return LlavaProcessor(
        LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer,
        patch_size=config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=prompts.IMAGE_TOKEN,
        chat_template=prompts.chat_template("v1", tokenizer),
    )


def tiny_model(config: TinyConfig, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlavaForConditionalGeneration:
    """The model with random weights, float32, on the CPU; the caller's random state is untouched."""
    vision = CLIPVisionConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_size=config.vision_hidden,
        intermediate_size=config.vision_intermediate,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.vision_heads,
        projection_dim=config.vision_hidden,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.max_positions,
        initializer_range=config.initializer_range,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    llava = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.get_vocab()[prompts.IMAGE_TOKEN],
        image_seq_length=(config.image_size // config.patch_size) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(llava)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.eval()


def _train_bpe(corpus: Iterable[str], vocab_size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces in id order and merges in rank order, at most `vocab_size` pieces."""
    user_pieces = [left + right for left, right in _USER_MERGES]
    reserved = [UNK, BOS, EOS, *_BYTES, *user_pieces]
    backend = Tokenizer(models.BPE())
    # Pieces never cross words or punctuation, and digits stay single, as in SentencePiece.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(reserved), initial_alphabet=["▁", *_ASCII], show_progress=False
    )
    backend.train_from_iterator(_lines_without_user(corpus), trainer)
    trained = json.loads(backend.to_str())["model"]
    merges = [(left, right) for left, right in trained["merges"] if left + right not in user_pieces]
    merged = [left + right for left, right in merges]
    characters = [piece for piece in sorted(trained["vocab"]) if len(piece) == 1]
    return list(dict.fromkeys([*reserved, *merged, *characters])), [*_USER_MERGES, *merges]


def _lines_without_user(corpus: Iterable[str]) -> Iterator[str]:
    """Single lines, so that a newline stays the byte `<0x0A>` as in Llama; `USER` has its own merges."""
    for text in corpus:
        yield from text.replace("USER", " ").splitlines()
