"""What tests of prompts share: the golden tokenizers, and which text tokens and labels spell."""

import re
from functools import cache
from pathlib import Path

from tokenizers import AddedToken
from transformers import AutoTokenizer, LlavaProcessor, PreTrainedTokenizerBase
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from hf_llava_vqa import prompts

GOLDEN = Path(__file__).parent / "golden" / "parity"
VARIANTS = ("legacy_false", "legacy_true")  # a Llama tokenizer's two ways of marking word boundaries
IMAGE = 2000  # `<image>` in the golden tokenizers


@cache
def tokenizer(variant: str) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(GOLDEN / "tokenizer" / f"fast_{variant}")


@cache
def framing_tokenizer(variant: str) -> PreTrainedTokenizerBase:
    """One that knows the tokens around pictures."""
    framing = AutoTokenizer.from_pretrained(GOLDEN / "tokenizer" / f"fast_{variant}")
    framing.add_tokens([AddedToken(token, special=True, normalized=False) for token in prompts.FRAME])
    return framing


@cache
def processor(variant: str) -> LlavaProcessor:
    return LlavaProcessor(
        LlavaImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer(variant),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=prompts.chat_template("v1", tokenizer(variant)),
    )


def text_of(ids: list[int], variant: str) -> str:
    """What the tokens spell: word boundaries as spaces, byte pieces as bytes."""
    pieces = tokenizer(variant).convert_ids_to_tokens(ids)
    raw = b"".join(
        bytes([int(piece[3:5], 16)]) if re.fullmatch("<0x[0-9A-F]{2}>", piece) else piece.encode() for piece in pieces
    )
    return raw.decode().replace("▁", " ")


def supervised_text(turns: list[prompts.Turn], variant: str, template: str = "v1") -> str:
    ids, supervised = prompts.encode(turns, tokenizer(variant), template)
    return text_of([token for token, flag in zip(ids, supervised, strict=True) if flag], variant)


def broken_up(text: str) -> str:
    for token in ("<image>", *prompts.FRAME, "<pad>", "<unk>", "<s>", "</s>"):
        text = text.replace(token, "< " + token[1:])
    return text


def answers_text(turns: list[prompts.Turn], roles: tuple[str, ...] = ("assistant",)) -> str:
    return "".join(f" {broken_up(turn['content'])}</s>" for turn in turns if turn["role"] in roles)
