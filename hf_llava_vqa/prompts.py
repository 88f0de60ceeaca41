"""Prompt templates, the one encoder (turns -> token ids and supervised flags), and the chat template made from it.

Every token the package trains or evaluates on comes out of `encode`; the Jinja chat template is generated from the
same `Template`, so `processor.apply_chat_template` gives the same ids.

`turns` is a list of `{"role": "user" | "assistant" | "vuser", "content": str}`. Inside a user turn `<image>` marks a
picture and becomes one placeholder id; everything else is plain text and cannot forge special tokens or roles. `vuser`
is the model asking itself: in the user's place, but trained on, in a template that has the role.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_llava_vqa.errors import PromptError

IMAGE_TOKEN = "<image>"
FRAME = ("<im_start>", "<im_end>")  # around every picture, for a tokenizer that knows them (`mm_use_im_start_end`)
ANSWER, QUESTION = 1, 2  # what a supervised token belongs to: an answer, or a question of the model's own
QUESTIONERS = ("user", "vuser")
Turn = dict[str, str]


@dataclass(frozen=True)
class Template:
    """A conversation format: `system`, then `ROLE: content` per turn; what the model says ends with `end_of_turn`."""

    name: str
    system: str
    roles: dict[str, str]  # our role -> the word in front of the colon
    end_of_turn: str


# Vicuna's conversation as LLaVA-1.5 trains on it (haotian-liu/LLaVA, llava/conversation.py, `vicuna_v1`).
V1 = Template(
    name="v1",
    system=(
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    roles={"user": "USER", "assistant": "ASSISTANT"},
    end_of_turn="</s>",
)
# SQ-LLaVA's (heliossun/SQ-LLaVA, sqllava/conversation.py, `v1_sq`): no new token, `VUSER` is plain text.
V1_SQ = Template(
    name="v1_sq",
    system=V1.system
    + (
        "Also, the artificial intelligence assistant is a curious virtual user. The virtual user asks complex "
        "questions that are relevant to the content in the image, for example, asking about background knowledge of "
        "the objects in the image, asking to discuss about events happening in the image, etc. "
        "Again, do not ask about uncertain details."
    ),
    roles={**V1.roles, "vuser": "VUSER"},
    end_of_turn=V1.end_of_turn,
)
# A picture and its caption, without a word around them, to pretrain projectors (the same file, `plain`).
PLAIN = Template(name="plain", system="", roles={"user": "", "assistant": ""}, end_of_turn="\n")
TEMPLATES = {template.name: template for template in (V1, V1_SQ, PLAIN)}

# Written out for the reader; `chat_template` fills in the words and joins the lines. Content is a string or blocks.
_TEXT_OF_A_MESSAGE = """
{%- macro text(message) -%}
    {%- if message['content'] is string -%}
        {{- message['content'] -}}
    {%- else -%}
        {%- for block in message['content'] if block['type'] == 'text' -%}{{- block['text'] -}}{%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
"""
_CHAT_TEMPLATE = """
{{- bos_token + '@BOUNDARY@' -}}
{%- if messages[0]['role'] == 'system' -%}{{- text(messages[0]) -}}{%- else -%}{{- '@SYSTEM@' -}}{%- endif -%}
{{- ' ' -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '@USER@: ' -}}
        {%- if message['content'] is not string -%}
            {%- for block in message['content'] if block['type'] == 'image' -%}{{- '@IMAGE@' -}}{%- endfor -%}
        {%- endif -%}
        {{- text(message) + ' ' -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- '@ASSISTANT@:' -}}
        {% generation %}{{- ' ' + text(message) + '@END@' -}}{% endgeneration %}
@ASKING@    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '@ASSISTANT@:' -}}{%- endif -%}
"""

_ASKING = """
    {%- elif message['role'] == 'vuser' -%}
        {{- '@VUSER@:' -}}
        {% generation %}{{- ' ' + text(message) + '@END@' -}}{% endgeneration %}
        {%- if add_generation_prompt or not loop.last -%}{{- ' ' -}}{%- endif -%}
"""  # in templates with self-questions
_CAPTION_TEMPLATE = """
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' and message['content'] is not string -%}
        {%- for block in message['content'] if block['type'] == 'image' -%}{{- '@IMAGE@' -}}{%- endfor -%}
    {%- elif message['role'] == 'assistant' -%}
        {% generation %}{{- '@AFTER_PICTURE@' + text(message).lstrip() + '@END@' -}}{% endgeneration %}
    {%- endif -%}
{%- endfor -%}
"""

_SPECIAL_TOKEN = re.compile(r"<(?=(?:image|im_start|im_end|pad|unk|s|/s)>)")
_SPECIAL_TOKEN_BUT_IMAGE = re.compile(r"<(?=(?:im_start|im_end|pad|unk|s|/s)>)")
_ROLE_TAG = re.compile(r"\b(V?USER|ASSISTANT)(?=:)")


def get_template(name: str) -> Template:
    """The template called `name`; raises `PromptError` for an unknown one."""
    if name not in TEMPLATES:
        raise PromptError(f"unknown template {name!r}; use one of: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def asks_itself(name: str) -> bool:
    """Whether the template called `name` has questions of the model's own."""
    return "vuser" in get_template(name).roles


def neutralise(text: str) -> str:
    """Break literal special tokens (`</s>` -> `< /s>`) and role tags (`USER:` -> `User:`) in a user's text."""
    return _ROLE_TAG.sub(lambda tag: tag.group().capitalize(), _SPECIAL_TOKEN.sub("< ", text))


def question_turns(turns: Sequence[Turn], *, images: int = 0, instruction: str = "") -> list[Turn]:
    """A record's raw turns as the encoder wants them.

    User text is neutralised, one `<image>` line per picture goes in front of the first turn, and `instruction` (how
    to answer) on a line of its own after the last user turn.

    Raises:
        PromptError: there are no turns.
    """
    _require_turns(turns)
    prepared = [
        {
            "role": turn["role"],
            "content": neutralise(turn["content"]) if turn["role"] != "assistant" else turn["content"],
        }
        for turn in turns
    ]
    if instruction and prepared[-1]["role"] == "user":
        prepared[-1]["content"] += "\n" + instruction
    prepared[0]["content"] = f"{IMAGE_TOKEN}\n" * images + prepared[0]["content"]
    return prepared


def render(turns: Sequence[Turn], template: str = "v1", *, next_role: str | None = None) -> str:
    """The prompt as text, without the leading `<s>`; `next_role` as for `encode`."""
    return "".join(text for text, _ in _segments(turns, get_template(template), next_role))


def encode(
    turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, template: str = "v1", *, next_role: str | None = None
) -> tuple[list[int], list[int]]:
    """Token ids of a dialogue, and which of them are trained on.

    The text is tokenised in chunks around the images, as LLaVA does (llava/mm_utils.py, `tokenizer_image_token`):
    one `<s>` in front, one placeholder id per `<image>`. Supervised are the answers' tokens, with the space after
    `ASSISTANT:` and the closing `</s>`, and in the same way those of the model's own questions after `VUSER:`.

    Args:
        turns: the dialogue; ending with a user turn it encodes the prompt for generation, with nothing supervised.
        tokenizer: a fast tokenizer that knows `<image>`.
        template: name of the template.
        next_role: whose turn the model is to speak next, `assistant` or `vuser`; by default the assistant's after a
            user turn, and nobody's after others.

    Returns:
        `(input_ids, supervised)`, both of length T (one id per image; `forest.expand_images` widens them); `supervised`
        is 0 where a token is not trained on, else `ANSWER` or `QUESTION`.

    Raises:
        PromptError: roles out of order, an empty turn, an unknown template, or a tokenizer without offsets.
    """
    if not tokenizer.is_fast:
        raise PromptError("labels need character offsets: load the tokenizer with use_fast=True")
    slot = picture(tokenizer)
    segments = [
        (part.replace(IMAGE_TOKEN, slot), kind) for part, kind in _segments(turns, get_template(template), next_role)
    ]
    text = "".join(part for part, _ in segments)
    kinds = [kind for part, kind in segments for _ in part]  # per character
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    input_ids: list[int] = []
    supervised: list[int] = []
    start = 0
    for number, chunk in enumerate(text.split(IMAGE_TOKEN)):
        if number:
            input_ids.append(image_id)
            supervised.append(0)
            start += len(IMAGE_TOKEN)
        encoded = tokenizer(chunk, add_special_tokens=True, return_offsets_mapping=True)
        skip = 1 if number and encoded["input_ids"][:1] == [tokenizer.bos_token_id] else 0
        input_ids += encoded["input_ids"][skip:]
        # A token belongs to the answer if its last character does: a word piece carries the space before it.
        supervised += [kinds[start + end - 1] if end > begin else 0 for begin, end in encoded["offset_mapping"][skip:]]
        start += len(chunk)
    return input_ids, supervised


def picture(tokenizer: PreTrainedTokenizerBase) -> str:
    """How a picture is written: `<image>`, or between the tokens of `FRAME` if the tokenizer knows them."""
    known = all(tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id) for token in FRAME)
    return IMAGE_TOKEN.join(FRAME) if known else IMAGE_TOKEN


def chat_template(template: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The Jinja chat template whose ids, through `apply_chat_template(tokenize=True)`, are those of `encode`.

    The processor tokenises the whole text in one pass. A Llama tokenizer with `legacy=false` then leaves out the word
    boundary that LLaVA's chunk-wise tokenisation puts after `<s>` and after an image, so for such a one the template
    writes a space there.
    """
    spec = get_template(template)
    one_pass = tokenizer(f"{IMAGE_TOKEN}\nx", add_special_tokens=False)["input_ids"][1:]
    chunk = tokenizer("\nx", add_special_tokens=False)["input_ids"]
    boundary = "" if one_pass == chunk else " "
    after_picture = boundary if picture(tokenizer) == IMAGE_TOKEN else ""
    filled = _TEXT_OF_A_MESSAGE + (_CAPTION_TEMPLATE if spec == PLAIN else _CHAT_TEMPLATE)
    for name, value in {
        "ASKING": _ASKING if asks_itself(template) else "",
        "VUSER": spec.roles.get("vuser", ""),
        "SYSTEM": spec.system.replace("'", "\\'"),
        "USER": spec.roles["user"],
        "ASSISTANT": spec.roles["assistant"],
        "END": spec.end_of_turn.replace("\n", "\\n"),
        "BOUNDARY": boundary,
        "IMAGE": picture(tokenizer) + ("" if spec == PLAIN else after_picture + "\\n"),
        "AFTER_PICTURE": after_picture,
    }.items():
        filled = filled.replace(f"@{name}@", value)
    return "".join(line.strip() for line in filled.splitlines())


def messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The same turns in the form `apply_chat_template` takes: a list of image and text blocks a turn."""
    result = []
    for turn in turns:
        images, text = _split_images(turn["content"]) if turn["role"] == "user" else (0, turn["content"])
        text = _SPECIAL_TOKEN.sub("< ", text)  # as `encode` does
        blocks = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]
        result.append({"role": turn["role"], "content": blocks})
    return result


def _split_images(content: str) -> tuple[int, str]:
    images = content.count(IMAGE_TOKEN)
    return images, content.replace(f"{IMAGE_TOKEN}\n", "").replace(IMAGE_TOKEN, "")


def _require_turns(turns: Sequence[Turn]) -> None:
    if not turns:
        raise PromptError("a dialogue needs at least one turn")


def _segments(turns: Sequence[Turn], template: Template, next_role: str | None = None) -> list[tuple[str, int]]:
    """The prompt as pieces of text with what is trained on in them: 0 for nothing, `ANSWER` or `QUESTION`."""
    _require_turns(turns)
    if template == PLAIN:
        return _caption_segments(turns)
    pieces: list[tuple[str, int]] = [(template.system + " ", 0)]
    before: Turn | None = None
    for number, turn in enumerate(turns):
        _check_turn(number, turn, before, template)
        pieces += _turn_segments(turn, before, template)
        before = turn
    if next_role is None and turns[-1]["role"] == "user":
        next_role = "assistant"
    if next_role is not None:
        pieces.append((_tag(next_role, before, template), 0))
    return pieces


def _check_turn(number: int, turn: Turn, before: Turn | None, template: Template) -> None:
    """Raise `PromptError` unless `turn` may follow: answers follow questions, and the first turn is the user's.

    A user who only shows pictures may be followed by a question of the model's own.
    """
    role = turn["role"]
    asked = before is not None and before["role"] in QUESTIONERS
    due = "assistant" if asked else "user"
    own = role == "vuser" and role in template.roles and before is not None
    if role != due and not (own and (not asked or _only_shows(before))):
        raise PromptError(f"turn {number} has the role {role!r} where {due!r} is due")
    if not turn["content"].strip():
        raise PromptError(f"turn {number} ({role}) is empty; remove the dialogue or give it text")


def _only_shows(turn: Turn | None) -> bool:
    return turn is not None and turn["role"] == "user" and not turn["content"].replace(IMAGE_TOKEN, "").strip()


def _turn_segments(turn: Turn, before: Turn | None, template: Template) -> list[tuple[str, int]]:
    tag = _tag(turn["role"], before, template)
    if turn["role"] == "user":
        content = _SPECIAL_TOKEN_BUT_IMAGE.sub("< ", turn["content"])
        return [(f"{tag} {content} ", 0)]
    kind = ANSWER if turn["role"] == "assistant" else QUESTION
    content = _SPECIAL_TOKEN.sub("< ", turn["content"])
    return [(tag, 0), (f" {content}{template.end_of_turn}", kind)]


def _tag(role: str, before: Turn | None, template: Template) -> str:
    """The word in front of a turn; after a question of the model's own with a space, which a user's brings along."""
    space = " " if before is not None and before["role"] == "vuser" else ""
    return f"{space}{template.roles[role]}:"


def _caption_segments(turns: Sequence[Turn]) -> list[tuple[str, int]]:
    """Pictures and their caption; what the user says about them is left out, as LLaVA does."""
    roles = [turn["role"] for turn in turns]
    if roles not in (["user"], ["user", "assistant"]) or IMAGE_TOKEN not in turns[0]["content"]:
        raise PromptError("the plain template takes a picture and one caption; for dialogues use the template v1")
    pieces: list[tuple[str, int]] = [(IMAGE_TOKEN * turns[0]["content"].count(IMAGE_TOKEN), 0)]
    for turn in turns[1:]:
        caption = _SPECIAL_TOKEN.sub("< ", turn["content"]).lstrip()
        if not caption:
            raise PromptError("turn 1 (assistant) is empty; remove the dialogue or give it text")
        pieces.append((caption + PLAIN.end_of_turn, ANSWER))
    return pieces
