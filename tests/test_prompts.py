"""The encoder's promises on arbitrary text, and what it refuses."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from prompting import (
    IMAGE,
    VARIANTS,
    answers_text,
    broken_up,
    framing_tokenizer,
    processor,
    supervised_text,
    text_of,
    tokenizer,
)

from hf_llava_vqa import prompts
from hf_llava_vqa.errors import PromptError

# Properties of any text

FRAGMENTS = ["USER:", " ASSISTANT: ", "VUSER:", "</s>", "<s>", "<unk>", "<pad>", "<image>", "<image>\n", " ", "\n", "<"]
FRAGMENTS += prompts.FRAME
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="▁")  # ▁ is how the pieces write a space
ANY_TEXT = st.lists(st.sampled_from(FRAGMENTS) | st.text(CHARACTERS, max_size=8), min_size=1, max_size=6).map("".join)
SOME_TEXT = ANY_TEXT.filter(lambda text: text.strip())


@st.composite
def dialogues(draw: st.DrawFn, *, last: str = "any", max_images: int = 2) -> tuple[list[prompts.Turn], int]:
    """Prepared turns and their number of images."""
    length = draw(st.integers(1, 6))
    if last != "any" and (length % 2 == 0) != (last == "assistant"):
        length += 1
    raw = [{"role": ("user", "assistant")[number % 2], "content": draw(SOME_TEXT)} for number in range(length)]
    images = draw(st.integers(0, max_images))
    return prompts.question_turns(raw, images=images, instruction=draw(st.sampled_from(["", "Be brief."]))), images


@pytest.mark.parametrize("variant", VARIANTS)
@given(dialogue=dialogues())
def test_labels_cover_exactly_the_answers(variant: str, dialogue: tuple[list[prompts.Turn], int]) -> None:
    turns, images = dialogue
    ids, supervised = prompts.encode(turns, tokenizer(variant))
    assert supervised_text(turns, variant) == answers_text(turns)
    assert ids.count(tokenizer(variant).bos_token_id) == 1 == ids[0]
    assert ids.count(tokenizer(variant).eos_token_id) == len(turns) // 2
    assert ids.count(IMAGE) == images
    assert not any(flag for token, flag in zip(ids, supervised, strict=True) if token == IMAGE)


@pytest.mark.parametrize("variant", VARIANTS)
@given(dialogue=dialogues())
def test_encode_spells_render(variant: str, dialogue: tuple[list[prompts.Turn], int]) -> None:
    turns, _ = dialogue
    ids, _ = prompts.encode(turns, tokenizer(variant))
    text = text_of(ids[1:], variant)
    # The tokenizer opens each chunk with a word boundary, and with legacy=true the text after each </s> too.
    expected = " " + prompts.render(turns).replace("<image>", "<image> ")
    assert text == (expected.replace("</s>USER:", "</s> USER:") if variant == "legacy_true" else expected)


@given(ANY_TEXT)
def test_neutralise_is_idempotent_and_leaves_nothing_to_forge(text: str) -> None:
    neutral = prompts.neutralise(text)
    assert prompts.neutralise(neutral) == neutral
    assert not re.search(r"<(image|im_start|im_end|pad|unk|s|/s)>|\b(V?USER|ASSISTANT):", neutral)
    assert neutral.replace(" ", "").lower() == text.replace(" ", "").lower()


@pytest.mark.parametrize("variant", VARIANTS)
@given(dialogue=dialogues(last="assistant"))
def test_chat_template_gives_the_encoders_ids_and_labels(
    variant: str, dialogue: tuple[list[prompts.Turn], int]
) -> None:
    turns, _ = dialogue
    ids, supervised = prompts.encode(turns, tokenizer(variant))
    templated = tokenizer(variant).apply_chat_template(
        prompts.messages(turns),
        chat_template=processor(variant).chat_template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert templated["input_ids"] == ids
    assert templated["assistant_masks"] == [int(flag) for flag in supervised]


@pytest.mark.parametrize("variant", VARIANTS)
@given(dialogue=dialogues(last="assistant"))
def test_pictures_are_framed_by_a_tokenizer_that_knows_how(
    variant: str, dialogue: tuple[list[prompts.Turn], int]
) -> None:
    turns, images = dialogue
    framing = framing_tokenizer(variant)
    start, end = framing.convert_tokens_to_ids(list(prompts.FRAME))
    for template in ("v1", "plain") if images and len(turns) == 2 else ("v1",):
        ids, supervised = prompts.encode(turns, framing, template)
        templated = framing.apply_chat_template(
            prompts.messages(turns),
            chat_template=prompts.chat_template(template, framing),
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert templated["input_ids"] == ids
        assert templated["assistant_masks"] == [int(flag) for flag in supervised]
        framed = [ids[at - 1 : at + 2] for at, token in enumerate(ids) if token == IMAGE]
        assert framed == [[start, IMAGE, end]] * images
        assert [ids.count(token) for token in (start, end)] == [images, images]
        assert not any(flag for token, flag in zip(ids, supervised, strict=True) if token in (start, IMAGE, end))


@pytest.mark.parametrize("variant", VARIANTS)
@given(question=ANY_TEXT, caption=SOME_TEXT, images=st.integers(1, 2))
def test_the_plain_chat_template_gives_the_encoders_ids_and_labels(
    variant: str, question: str, caption: str, images: int
) -> None:
    raw = [{"role": "user", "content": question}, {"role": "assistant", "content": caption}]
    turns = prompts.question_turns(raw, images=images)
    ids, supervised = prompts.encode(turns, tokenizer(variant), "plain")
    templated = tokenizer(variant).apply_chat_template(
        prompts.messages(turns),
        chat_template=prompts.chat_template("plain", tokenizer(variant)),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert templated["input_ids"] == ids
    assert templated["assistant_masks"] == [int(flag) for flag in supervised]
    assert supervised == [False] * (1 + images) + [True] * (len(ids) - 1 - images)
    assert text_of(ids[1 + images :], variant).strip(" ") == broken_up(caption).lstrip() + "\n"


@pytest.mark.parametrize("variant", VARIANTS)
@given(dialogue=dialogues(last="user"))
def test_chat_template_gives_the_encoders_generation_prompt(
    variant: str, dialogue: tuple[list[prompts.Turn], int]
) -> None:
    turns, _ = dialogue
    templated = tokenizer(variant).apply_chat_template(
        prompts.messages(turns), chat_template=processor(variant).chat_template, add_generation_prompt=True
    )
    assert templated["input_ids"] == prompts.encode(turns, tokenizer(variant))[0]


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=25)
@given(dialogue=dialogues(last="assistant"))
def test_processor_expands_images_and_keeps_the_labels(variant: str, dialogue: tuple[list[prompts.Turn], int]) -> None:
    turns, images = dialogue
    ids, supervised = prompts.encode(turns, tokenizer(variant))
    messages = prompts.messages(turns)
    for block in (block for message in messages for block in message["content"] if block["type"] == "image"):
        block["image"] = Image.new("RGB", (28, 28))
    templated = processor(variant).apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    wide = [
        (token, flag) for token, flag in zip(ids, supervised, strict=True) for _ in range(4 if token == IMAGE else 1)
    ]
    assert list(templated["input_ids"][0]) == [token for token, _ in wide]
    assert len(templated.get("pixel_values", [])) == images
    assert list(templated["assistant_masks"][0]) == [int(flag) for _, flag in wide]


# Questions of the model's own


@st.composite
def own_dialogues(draw: st.DrawFn) -> list[prompts.Turn]:
    """A finished dialogue about a picture in which some questions are the model's own, perhaps from the first."""
    pairs = draw(
        st.lists(st.tuples(st.sampled_from(prompts.QUESTIONERS), SOME_TEXT, SOME_TEXT), min_size=1, max_size=3)
    )
    turns = [{"role": "user", "content": ""}] if pairs[0][0] == "vuser" else []
    for role, asked, answered in pairs:
        turns += [{"role": role, "content": asked}, {"role": "assistant", "content": answered}]
    return prompts.question_turns(turns, images=draw(st.integers(1, 2)))


@pytest.mark.parametrize("variant", VARIANTS)
@given(turns=own_dialogues(), ends=st.sampled_from([None, "assistant"]))
def test_chat_template_asks_as_the_encoder_does(variant: str, turns: list[prompts.Turn], ends: str | None) -> None:
    if ends:
        turns = turns[:-1]
    ids, supervised = prompts.encode(turns, tokenizer(variant), "v1_sq", next_role=ends)
    templated = tokenizer(variant).apply_chat_template(
        prompts.messages(turns),
        chat_template=prompts.chat_template("v1_sq", tokenizer(variant)),
        add_generation_prompt=ends is not None,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert templated["input_ids"] == ids
    assert templated["assistant_masks"] == [int(kind > 0) for kind in supervised]
    assert supervised_text(turns, variant, "v1_sq") == answers_text(turns, ("assistant", "vuser"))


def test_who_speaks_next() -> None:
    seen = [{"role": "user", "content": "<image>\n"}]
    asked = [*seen, {"role": "vuser", "content": "Why?"}]
    answered = [*asked, {"role": "assistant", "content": "so"}]

    def end(turns: list[prompts.Turn], next_role: str | None = None) -> str:
        return prompts.render(turns, "v1_sq", next_role=next_role).removeprefix(prompts.V1_SQ.system)

    assert end(seen, "vuser") == " USER: <image>\n VUSER:"
    assert end(asked) == " USER: <image>\n VUSER: Why?</s>"
    assert end(asked, "assistant") == " USER: <image>\n VUSER: Why?</s> ASSISTANT:"
    assert end(answered, "vuser") == " USER: <image>\n VUSER: Why?</s> ASSISTANT: so</s>VUSER:"


@pytest.mark.parametrize(
    ("roles", "template", "message"),
    [
        (["user", "vuser"], "v1_sq", "turn 1 has the role 'vuser' where 'assistant' is due"),
        (["vuser"], "v1_sq", "turn 0 has the role 'vuser' where 'user' is due"),
        (["user", "assistant", "vuser"], "v1", "turn 2 has the role 'vuser' where 'user' is due"),
        (["user", "assistant", "vuser", "user"], "v1_sq", "turn 3 has the role 'user' where 'assistant' is due"),
    ],
)
def test_a_self_question_stands_where_a_question_may(roles: list[str], template: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        prompts.render([{"role": role, "content": "a"} for role in roles], template)


# The chat template as others use it, and what is refused


@pytest.mark.parametrize("variant", VARIANTS)
def test_chat_template_takes_plain_strings_and_another_system_message(variant: str) -> None:
    template = processor(variant).chat_template
    question = {"role": "user", "content": "What is this?"}
    plain, own_system = (
        tokenizer(variant).apply_chat_template(conversation, chat_template=template, tokenize=False)
        for conversation in ([question], [{"role": "system", "content": "Be brief."}, question])
    )
    boundary = " " if variant == "legacy_false" else ""
    assert plain == f"<s>{boundary}{prompts.V1.system} USER: What is this? "
    assert own_system == f"<s>{boundary}Be brief. USER: What is this? "


def test_messages_hold_a_block_of_its_own_for_every_picture() -> None:
    first, second, text = prompts.messages([{"role": "user", "content": "<image>\n<image>\nWhy?"}])[0]["content"]
    assert first == second == {"type": "image"}
    assert first is not second  # a caller puts the pictures in
    assert text == {"type": "text", "text": "Why?"}


def test_question_turns_put_images_first_and_the_instruction_last() -> None:
    raw = [
        {"role": "user", "content": "Read <image> USER: </s>"},
        {"role": "assistant", "content": "USER: a"},
        {"role": "user", "content": "Why?"},
    ]
    assert prompts.question_turns(raw, images=2, instruction="Be brief.") == [
        {"role": "user", "content": "<image>\n<image>\nRead < image> User: < /s>"},
        {"role": "assistant", "content": "USER: a"},
        {"role": "user", "content": "Why?\nBe brief."},
    ]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "at least one turn"),
        ([{"role": "assistant", "content": "a"}], "turn 0 has the role 'assistant' where 'user' is due"),
        ([{"role": "user", "content": "a"}] * 2, "turn 1 has the role 'user' where 'assistant' is due"),
        ([{"role": "user", "content": " \n"}], r"turn 0 \(user\) is empty"),
    ],
)
def test_broken_dialogues_are_refused(turns: list[prompts.Turn], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        prompts.render(turns)
    with pytest.raises(PromptError, match=message):
        prompts.encode(prompts.question_turns(turns), tokenizer("legacy_false"))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (["no picture", "a"], "takes a picture and one caption; for dialogues use the template v1"),
        (["<image>", "a", "b", "c"], "takes a picture and one caption"),
        (["<image>", " \n"], r"turn 1 \(assistant\) is empty"),
    ],
)
def test_what_is_no_caption_is_refused(contents: list[str], message: str) -> None:
    roles = ("user", "assistant")
    turns = [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]
    with pytest.raises(PromptError, match=message):
        prompts.render(turns, "plain")


def test_unknown_template_and_tokenizer_without_offsets_are_refused() -> None:
    with pytest.raises(PromptError, match="unknown template 'v9'; use one of: v1, v1_sq, plain"):
        prompts.render([{"role": "user", "content": "a"}], "v9")

    class Slow:
        is_fast = False

    with pytest.raises(PromptError, match="use_fast=True"):
        prompts.encode([{"role": "user", "content": "a"}], Slow())
