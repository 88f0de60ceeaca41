"""The encoder against what LLaVA's own code produced (golden rows), and its promises on arbitrary text."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import AddedToken
from transformers import AutoTokenizer, LlavaProcessor, PreTrainedTokenizerBase
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from hf_llava_vqa import prompts
from hf_llava_vqa.errors import PromptError

GOLDEN = Path(__file__).parent / "golden" / "parity"
VARIANTS = ("legacy_false", "legacy_true")  # a Llama tokenizer's two ways of marking word boundaries
UPSTREAM_IMAGE = -200
IMAGE = 2000  # `<image>` in the golden tokenizers

EMPTY = "an empty turn is an error; LLaVA renders 'ASSISTANT:USER:' or trains on a lone blank"
NEUTRALISED = "literal special tokens in text are broken up; LLaVA lets them through as control tokens"
NOT_CUT = "nothing is truncated; LLaVA cuts text-only rows and loses the closing </s>"
BOUNDARY = "a chunk that starts with a space gets no second word boundary from a fast tokenizer"
TEXT_ONLY = "`<image>` without a picture is neutralised; LLaVA leaves it as text"
FIRST_TURN = "a dialogue that starts with an answer is an error; LLaVA drops the answer in silence"
EXCEPTIONS = {
    "v1-048": BOUNDARY,
    "v1-049": BOUNDARY,
    "v1-053": EMPTY,
    "v1-063": EMPTY,
    "v1-076": TEXT_ONLY,
    "v1-116": NEUTRALISED,
    "v1-123": NEUTRALISED,
    "v1-134": EMPTY,
    "v1-140": NOT_CUT,
    "v1-144": NOT_CUT,
    "v1-148": NOT_CUT,
    "v1-154": FIRST_TURN,
    "gen-prompt-33": NEUTRALISED,
}
MISLED = "a role word in a self-question or its answer misleads SQ-LLaVA's search for the labels"
SQ_EXCEPTIONS = {
    "sq-40": MISLED,
    "sq-44": MISLED,
    "sq-48": NEUTRALISED,
    "sq-49": NEUTRALISED,
    "sq-52": EMPTY,
    "sq-54": EMPTY,
}
GUARDED = {  # rows on which LLaVA's own label rule fails and masks the whole conversation
    "v1-062": "error",
    "v1-137": "error",
    "v1-106": "labels",
    "v1-109": "labels",
    "v1-110": "labels",
    "v1-112": "labels",
    "v1-113": "labels",
    "v1-119": "labels",
    "v1-120": "labels",
    "v1-124": "labels",
    "v1-125": "labels",
    "v1-126": "labels",
    "v1-129": "labels",
    "v1-155": "labels",
}


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()]


PLAIN_EXCEPTIONS = {
    "plain-08": "`<image>` in a caption is neutralised; LLaVA takes it for a second picture",
    "plain-20": "not a picture and one caption",
    "plain-21": "not a picture and one caption",
}

LABELS = {row["id"]: row for row in rows("labels_v1")}
SQ_LABELS = {row["id"]: row for row in rows("labels_v1_sq")}
GENERATION = {row["id"]: row for row in rows("prompts_generation")}


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


def golden_turns(row: dict[str, Any]) -> list[prompts.Turn]:
    roles = {"human": "user", "gpt": "assistant"}
    turns = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["after_preprocess_multimodal"]]
    return turns if row["image"] else prompts.question_turns(turns)


def golden_sq_turns(row: dict[str, Any]) -> list[prompts.Turn]:
    """The turns with those that SQ-LLaVA switched, or found as such with an `</s>` of their own, as `vuser`."""
    turns = []
    for number, turn in enumerate(row["after_preprocess_multimodal"]):
        role = {"human": "user", "gpt": "assistant", "vuser": "vuser"}[turn["from"]]
        content = turn["value"].removesuffix("</s>") if role == "vuser" else turn["value"]
        turns.append({"role": "vuser" if number in row["switched_turns"] else role, "content": content})
    return turns


def upstream(ids: list[int]) -> list[int]:
    return [UPSTREAM_IMAGE if token == IMAGE else token for token in ids]


def labels(ids: list[int], supervised: list[bool]) -> list[int]:
    return [token if flag else -100 for token, flag in zip(ids, supervised, strict=True)]


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


# Golden rows


def test_every_golden_row_is_equal_excepted_or_guarded() -> None:
    guarded = {row["id"] for row in LABELS.values() if any(out.get("guard") for out in row["out"].values())}
    assert guarded == set(GUARDED)
    assert EXCEPTIONS.keys() <= (LABELS.keys() | GENERATION.keys()) - guarded


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", sorted(LABELS.keys() - EXCEPTIONS.keys() - GUARDED.keys()))
def test_prompt_ids_and_labels_equal_upstream(name: str, variant: str) -> None:
    row = LABELS[name]
    turns = golden_turns(row)
    ids, supervised = prompts.encode(turns, tokenizer(variant))
    assert prompts.render(turns) == row["prompt"]
    assert upstream(ids) == row["out"][variant]["input_ids"]
    assert labels(ids, supervised) == row["out"][variant]["labels"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", sorted(LABELS.keys() & EXCEPTIONS.keys()))
def test_labels_exceptions_are_what_the_table_says(name: str, variant: str) -> None:
    row, reason = LABELS[name], EXCEPTIONS[name]
    turns = golden_turns(row)
    if reason in (EMPTY, FIRST_TURN):
        with pytest.raises(PromptError, match=r"is empty|has the role 'assistant' where 'user' is due"):
            prompts.encode(turns, tokenizer(variant))
        return
    ids, supervised = prompts.encode(turns, tokenizer(variant))
    theirs = row["out"][variant]["input_ids"]
    assert supervised_text(turns, variant) == answers_text(turns)
    if reason == NOT_CUT:
        assert upstream(ids[: len(theirs)]) == theirs
        assert labels(ids, supervised)[: len(theirs)] == row["out"][variant]["labels"]
        assert len(ids) > len(theirs) == row["model_max_length"]
    elif reason == BOUNDARY:
        assert prompts.render(turns) == row["prompt"]
        assert (upstream(ids) == theirs) == (variant == "legacy_true")
    else:
        assert prompts.render(turns).replace(" ", "") == row["prompt"].replace(" ", "")
        assert [ids.count(tokenizer(variant).convert_tokens_to_ids(token)) for token in ("<s>", "<pad>")] == [1, 0]
        assert (ids.count(IMAGE), ids.count(2)) == (int(row["image"]), len(turns) // 2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", sorted(GUARDED))
def test_guarded_rows_are_refused_or_labelled_by_construction(name: str, variant: str) -> None:
    turns = golden_turns(LABELS[name])
    if GUARDED[name] == "error":
        with pytest.raises(PromptError, match="is empty"):
            prompts.encode(turns, tokenizer(variant))
    else:
        assert supervised_text(turns, variant) == answers_text(turns) != ""


@pytest.mark.parametrize("name", sorted(SQ_LABELS.keys() - SQ_EXCEPTIONS.keys()))
def test_self_questions_equal_upstream(name: str) -> None:
    """SQ-LLaVA's own rows; with `legacy=false` its tokenizer of transformers 4.31 splits `</s>USER` in a third way."""
    row, turns = SQ_LABELS[name], golden_sq_turns(SQ_LABELS[name])
    ids, supervised = prompts.encode(turns, tokenizer("legacy_true"), "v1_sq")
    assert prompts.render(turns, "v1_sq") == row["prompt"]
    assert upstream(ids) == row["out"]["legacy_true"]["input_ids"]
    assert labels(ids, supervised) == row["out"]["legacy_true"]["labels"]
    later = row["out_transformers_4_37_legacy_false"]
    assert upstream(prompts.encode(turns, tokenizer("legacy_false"), "v1_sq")[0]) == later["input_ids"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", sorted(SQ_LABELS))
def test_self_questions_are_supervised_by_construction(name: str, variant: str) -> None:
    turns = golden_sq_turns(SQ_LABELS[name])
    if SQ_EXCEPTIONS.get(name) == EMPTY:
        with pytest.raises(PromptError, match="is empty"):
            prompts.encode(turns, tokenizer(variant), "v1_sq")
        return
    assert supervised_text(turns, variant, "v1_sq") == answers_text(turns, ("assistant", "vuser")) != ""
    ids, supervised = prompts.encode(turns, tokenizer(variant), "v1_sq")
    questions = [token for token, kind in zip(ids, supervised, strict=True) if kind == prompts.QUESTION]
    assert text_of(questions, variant) == answers_text(turns, ("vuser",))
    if SQ_EXCEPTIONS.get(name) == MISLED:
        assert labels(ids, supervised) != SQ_LABELS[name]["out"][variant]["labels"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", sorted(GENERATION))
def test_generation_prompts_equal_upstream(name: str, variant: str) -> None:
    row = GENERATION[name]
    turns = [
        {"role": ("user", "assistant")[number % 2], "content": content} for number, content in enumerate(row["turns"])
    ]
    if row["image"]:
        turns[0]["content"] = "<image>\n" + turns[0]["content"]
    ids, supervised = prompts.encode(turns, tokenizer(variant))
    equal = (prompts.render(turns), upstream(ids)) == (row["prompt"], row["input_ids"][variant])
    assert equal == (name not in EXCEPTIONS)
    assert supervised.count(True) == 0 or len(turns) > 1


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("row", rows("labels_plain"), ids=lambda row: row["id"])
def test_captions_equal_upstream(row: dict[str, Any], variant: str) -> None:
    roles = {"human": "user", "gpt": "assistant"}
    turns = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    if "error" in row["out"][variant]:
        with pytest.raises(PromptError, match="a picture and one caption"):
            prompts.encode(turns, tokenizer(variant), "plain")
        return
    ids, supervised = prompts.encode(turns, tokenizer(variant), "plain")
    ours = prompts.render(turns, "plain"), upstream(ids), labels(ids, supervised)
    theirs = row["prompt"], row["out"][variant]["input_ids"], row["out"][variant]["labels"]
    assert (ours == theirs) == (row["id"] not in PLAIN_EXCEPTIONS)
    assert ids.count(IMAGE) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_chunks_around_images_are_tokenised_as_upstream(variant: str) -> None:
    unequal = set()
    for row in rows("tokenization"):
        ids: list[int] = []
        for number, chunk in enumerate(row["text"].split("<image>")):
            encoded = tokenizer(variant)(chunk)["input_ids"]
            ids += [UPSTREAM_IMAGE, *encoded[1:]] if number else encoded
        if ids != row["upstream_chunked"][variant]:
            unequal.add(row["text"])
    starts_with_space = {text for text in unequal if any(c.startswith(" ") for c in text.split("<image>"))}
    assert unequal - starts_with_space == {"x <pad> y"}  # `<pad>` is special in the fast tokenizer only
    assert not (starts_with_space and variant == "legacy_true")


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
