"""Records to batches: what a batch holds, that pictures stay with their questions, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import QUESTIONS, chain, colour, png, question, record, records
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hf_llava_vqa import prompts
from hf_llava_vqa.augmentation import augment
from hf_llava_vqa.collate import VqaCollator, as_record, image_tokens
from hf_llava_vqa.errors import ConfigError, ImageError, PromptError, VqaError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.models import load_model
from hf_llava_vqa.reports.inspection.tokens import marked_text

WIDTH = 4  # tokens of one image in the tiny model


@pytest.fixture(scope="module")
def loaded(tiny_llava: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    return load_model(str(tiny_llava))


@pytest.fixture(scope="module")
def processor(loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor]) -> LlavaProcessor:
    return loaded[1]


@pytest.fixture(scope="module")
def collator(processor: LlavaProcessor) -> Callable[..., VqaCollator]:
    return lambda **options: VqaCollator(processor, **{"answer_target": "votes", **options})


def colour_of(pixels: torch.Tensor, processor: LlavaProcessor) -> tuple[int, ...]:
    """The one colour of a processed picture [3, H, W], in 8 bits."""
    stock = processor.image_processor
    value = pixels.flatten(1).mean(1) * torch.tensor(stock.image_std) + torch.tensor(stock.image_mean)
    assert pixels.flatten(1).std(1).max() < 1e-4
    return tuple((value * 255).round().int().tolist())


# Contents


def test_a_question_with_several_answers_is_one_row(collator: Callable[..., VqaCollator], processor: Any) -> None:
    row = record("r", [question("q", answers=["yes", "yes", "no"])], colours=[(255, 0, 0)])
    batch = collator()([row])
    assert batch.keys() == {"input_ids", "position_ids", "labels", "weights", "pixel_values", "attention_mask"}
    length = batch["input_ids"].shape[1]
    assert batch["attention_mask"].shape == (1, 1, length, length)
    assert batch["attention_mask"].dtype == torch.bool
    assert batch["pixel_values"].shape == (1, 3, 28, 28)
    assert (batch["input_ids"] == processor.image_token_id).sum() == WIDTH == image_tokens(processor)
    supervised = batch["labels"] != -100
    assert processor.tokenizer.decode(batch["labels"][supervised]) == "yes</s> no</s>"
    assert (batch["weights"] > 0).equal(supervised)
    assert batch["weights"].unique().tolist() == pytest.approx([0, 1 / 3, 2 / 3])


def test_compact_rows_are_the_dense_ones_without_leaves_that_nothing_reads(
    collator: Callable[..., VqaCollator], processor: Any
) -> None:
    rows = [record("r", [question("a"), question("b", "Why?")], colours=[(9, 9, 9)])]
    dense, compact = collator()(rows), collator(mask="compact")(rows)
    (end_of_a, _) = torch.nonzero(dense["input_ids"][0] == processor.tokenizer.eos_token_id)[:, 0].tolist()
    kept = [i for i in range(dense["input_ids"].shape[1]) if i != end_of_a]
    index = torch.arange(len(kept))
    mask = (index <= index[:, None]) & (index[:, None] < compact["subtree_end"][0])
    assert dense["attention_mask"][0, 0][kept][:, kept].equal(mask)
    for name in ("input_ids", "position_ids"):
        assert dense[name][0, kept].equal(compact[name][0])
    for name in ("labels", "weights"):
        assert dense[name][dense["weights"] > 0].equal(compact[name][compact["weights"] > 0])
    assert compact["dialogue_ids"] == [["a", "b"]]
    assert "attention_mask" not in compact


@pytest.mark.parametrize(
    ("target", "texts"),
    [("majority", "red</s>"), ("votes", "Blue.</s> red</s>"), ("credit", "Blue.</s> red</s>"), ("sample", "red</s>")],
)
def test_answer_target_decides_the_branches(
    collator: Callable[..., VqaCollator], processor: Any, target: str, texts: str
) -> None:
    batch = collator(answer_target=target)([record("r", [question("q", answers=["Blue.", "red", "red"])])])
    assert processor.tokenizer.decode(batch["labels"][batch["labels"] != -100]) == texts
    assert batch["weights"][batch["labels"] == 2].sum() == pytest.approx(1)


def test_confidence_weights_the_answers(collator: Callable[..., VqaCollator], processor: Any) -> None:
    answers = [{"answer": "red", "answer_confidence": said} for said in ("no", "maybe", "")]
    answers.append({"answer": "blue", "answer_confidence": "yes"})
    row = record("r", [question("q", answers=answers)])
    batch = collator(answer_confidence_weights=[1.0, 0.5, 0.0])([row])
    assert batch["weights"][batch["labels"] == 2].tolist() == pytest.approx([0.6, 0.4])
    surest = collator(answer_target="majority", answer_confidence_weights=[1.0, 0.0, 0.0])
    row["dialogues"][0]["answers"][2]["answer_confidence"] = "maybe"
    labels = surest([row])["labels"]
    assert processor.tokenizer.decode(labels[labels != -100]) == "blue</s>"


def test_sample_is_drawn_anew_each_epoch(collator: Callable[..., VqaCollator]) -> None:
    sampling = collator(answer_target="sample")
    row = record("r", [question("q", answers=QUESTIONS)])
    drawn = set()
    for sampling.epoch in range(20):
        drawn.add(tuple(sampling([row])["labels"].flatten().tolist()))
    assert len(drawn) == len(QUESTIONS)


def test_a_row_that_says_its_epoch_is_believed(collator: Callable[..., VqaCollator]) -> None:
    sampling = collator(answer_target="sample")
    row = record("r", [question("q", answers=QUESTIONS)])
    by_attribute, by_row = [], []
    for sampling.epoch in range(8):
        by_attribute.append(sampling([row])["labels"].tolist())
    for epoch in range(8):
        by_row.append(sampling([{**row, "epoch": epoch}])["labels"].tolist())
    assert by_row == by_attribute
    assert len({str(labels) for labels in by_row}) > 1
    trl = {"prompt": "Why?", "completion": "so"}
    assert as_record({**trl, "epoch": 3})["epoch"] == 3
    assert "epoch" not in as_record({**trl, "epoch": None})


def test_instruction_comes_from_the_benchmark_unless_given(
    collator: Callable[..., VqaCollator], processor: Any
) -> None:
    row = record("r", [question("q")], source="vizwiz", colours=[(1, 2, 3)])
    by_source, by_hand = (collator(instruction=text)([row])["input_ids"][0] for text in (None, "Be brief."))
    assert "What is this?\nWhen the provided information is insufficient" in processor.tokenizer.decode(by_source)
    assert "What is this?\nBe brief. ASSISTANT: yes</s>" in processor.tokenizer.decode(by_hand)


def test_count_tokens_is_the_size_of_the_rows(collator: Callable[..., VqaCollator]) -> None:
    row = record("r", [question(str(n), f"Question {n}?") for n in range(5)], colours=[(1, 1, 1), (2, 2, 2)])
    splitting = collator(max_questions_per_row=2)
    batch = splitting([row])
    assert splitting.count_tokens(row) == int((batch["position_ids"] > 0).sum()) + 3  # position 0: the roots


# Pictures


@settings(max_examples=25)
@given(rows=records(max_questions=6, max_answers=3))
def test_every_image_slot_receives_its_own_image(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor], rows: list[dict[str, Any]]
) -> None:
    model, processor = loaded
    batch = VqaCollator(processor, mask="compact", max_questions_per_row=2)(rows)
    by_dialogue = {dialogue["id"]: row for row in rows for dialogue in row["dialogues"]}
    embeddings = _embeddings(model, batch)
    for number, names in enumerate(batch["dialogue_ids"]):
        if not names:  # the padding tree
            continue
        (image_id,) = {by_dialogue[name]["image_id"] for name in names}  # no row mixes records
        own = [open_image(image) for image in rows[int(image_id)]["images"]]
        slots = embeddings[number][batch["input_ids"][number] == processor.image_token_id]
        for slot, image in zip(slots.view(-1, WIDTH, slots.shape[-1]), own, strict=True):
            pixels = processor.image_processor(image, return_tensors="pt")["pixel_values"]
            torch.testing.assert_close(slot, model.get_image_features(pixel_values=pixels).pooler_output[0])


@torch.no_grad()
def _embeddings(model: LlavaForConditionalGeneration, batch: dict[str, Any]) -> torch.Tensor:
    """What the language model reads, with the image features in place: [R, L, D]."""
    seen = {}
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with hook:
        model(**{name: batch[name] for name in ("input_ids", "position_ids", "pixel_values")})
    return seen["inputs_embeds"]


@pytest.mark.parametrize("most", [1, 2, 16])
def test_a_record_with_many_questions_is_split(collator: Callable[..., VqaCollator], processor: Any, most: int) -> None:
    rows = [
        record("a", [question(f"a{n}", f"Question {n}?") for n in range(5)], colours=[colour(1), colour(2)]),
        record("b", [question("b0")], colours=[colour(3)]),
    ]
    batch = collator(mask="compact", max_questions_per_row=most)(rows)
    assert [name for names in batch["dialogue_ids"] for name in names] == ["a0", "a1", "a2", "a3", "a4", "b0"]
    assert max(map(len, batch["dialogue_ids"])) == min(most, 5)
    pieces = len(batch["dialogue_ids"]) - 1
    expected = [colour(1), colour(2)] * pieces + [colour(3)]
    assert [colour_of(pixels, processor) for pixels in batch["pixel_values"]] == expected


def test_a_batch_of_text_gets_a_padding_tree(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor], collator: Callable[..., VqaCollator]
) -> None:
    model, processor = loaded
    text_only = [record("r", [question("q")]), record("s", [chain("c", "Hello?", "Hi.")])]
    batch = collator(mask="compact")(text_only)
    assert batch["dialogue_ids"] == [["q"], ["c"], []]
    assert batch["input_ids"][2, : 1 + WIDTH].tolist() == [1] + [processor.image_token_id] * WIDTH
    assert (batch["labels"][2] == -100).all()
    assert not batch["weights"][2].any()
    assert not batch["pixel_values"].any()
    dense = collator()(text_only)
    weights = dense.pop("weights")
    assert model(**dense).loss.isfinite()
    assert weights.sum() > 0
    mixed = collator(mask="compact")([*text_only, record("t", [question("p")], colours=[colour(5)])])
    assert mixed["dialogue_ids"] == [["q"], ["c"], ["p"]]


@pytest.mark.parametrize("mask", ["block", "varlen"])
def test_all_trees_of_a_packed_batch_share_a_row(
    collator: Callable[..., VqaCollator], processor: Any, mask: str
) -> None:
    rows = [
        record("a", [question("a0"), question("a1")], colours=[colour(1), colour(2)]),
        record("b", [question("b0")]),
        record("c", [chain("c0", "Hello?", "Hi.")], colours=[colour(3)]),
    ]
    options = {"max_questions_per_row": 1, "answer_target": "majority"}
    single, packed = (collator(mask=name, **options)(rows) for name in ("compact", mask))
    assert packed["dialogue_ids"] == [["a0", "a1", "b0", "c0"]]
    pixels = packed.pop("pixel_values")
    assert [colour_of(picture, processor) for picture in pixels] == [colour(n) for n in (1, 2, 1, 2, 3)]
    lengths = [int((row > 0).sum()) + 1 for row in single["position_ids"]]
    for name in ("input_ids", "position_ids", "labels", "weights"):
        tokens = [row[:length] for row, length in zip(single[name], lengths, strict=True)]
        assert packed[name][0, : sum(lengths)].equal(torch.cat(tokens))
    assert "chain" not in packed
    if mask == "block":
        assert packed["subtree_end"].shape == packed["input_ids"].shape == (1, -(-sum(lengths) // 128) * 128)
    else:
        assert packed["cu_seq_lens_q"].equal(packed["cu_seq_lens_k"])
        assert packed["cu_seq_lens_q"].diff().tolist() == lengths
        assert packed["max_length_q"] == packed["max_length_k"] == max(lengths)
        assert not {"subtree_end", "attention_mask"} & packed.keys()


@pytest.mark.parametrize("mask", ["dense", "compact", "block", "varlen"])
def test_rows_are_padded_to_a_multiple(collator: Callable[..., VqaCollator], mask: str) -> None:
    rows = [record("r", [question("q")], colours=[colour(1)])]
    plain, padded = (collator(mask=mask, pad_to_multiple_of=step)(rows) for step in (1, 50))
    length, longer = plain["input_ids"].shape[1], padded["input_ids"].shape[1]
    assert length < longer == -(-length // 50) * 50
    assert (padded["labels"][:, length:] == -100).all()
    if mask == "varlen":
        assert padded["cu_seq_lens_q"].tolist() == [0, length, longer]


def test_a_batch_of_text_may_have_no_pictures(collator: Callable[..., VqaCollator]) -> None:
    plain = collator(mask="compact")
    plain.picture_in_every_batch = False
    text = record("r", [question("q")])
    batch = plain([text])
    assert batch["dialogue_ids"] == [["q"]]
    assert "pixel_values" not in batch
    assert len(plain([text, record("t", [question("p")], colours=[colour(5)])])["pixel_values"]) == 1


def test_augmented_pictures_are_those_of_seed_epoch_and_record(
    collator: Callable[..., VqaCollator], processor: Any
) -> None:
    noise = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    row = {**record("r", [question("q")]), "images": [Image.fromarray(noise.numpy())] * 2}
    augmenting = collator(augmentation="randaugment", seed=3)
    views = [augmenting([{**row, "epoch": epoch}])["pixel_values"] for epoch in (0, 1, 0)]
    assert views[0].equal(views[2])
    assert not views[0].equal(views[1])
    assert not views[0][0].equal(views[0][1])  # two pictures of a record are augmented on their own
    own = [augment(open_image(image), seed=3, epoch=1, key=f"r/{n}", side=28) for n, image in enumerate(row["images"])]
    assert processor.image_processor(own, return_tensors="pt")["pixel_values"].equal(views[1])
    with pytest.raises(ConfigError, match="unknown augmentation 'flip'; use one of: none, randaugment"):
        collator(augmentation="flip")


# Questions of the model's own


@settings(max_examples=25)
@given(rows=records(max_questions=4, max_answers=3), epoch=st.integers(0, 3))
def test_self_questions_are_added_to_the_answers(
    collator: Callable[..., VqaCollator], processor: Any, rows: list[dict[str, Any]], epoch: int
) -> None:
    asking = {"mask": "compact", "template": "v1_sq"}
    none, some, every = (collator(**asking, self_question_ratio=ratio) for ratio in (0.0, 0.5, 1.0))
    for each in (none, some, every):
        each.epoch = epoch
    batches = [each(rows) for each in (none, some, every)]
    answers = [spelt(processor, batch, ~batch["own_questions"]) for batch in batches]
    assert answers[0] == answers[1] == answers[2]
    seen = [dialogue for row in rows if row["images"] for dialogue in row["dialogues"]]
    own = [turn["content"] for dialogue in seen for turn in dialogue["turns"][2::2] + first_of_one(dialogue)]
    assert set(spelt(processor, batches[2], batches[2]["own_questions"])) == set(own)
    assert not batches[0]["own_questions"].any()
    assert (batches[0]["pixel_values"]).equal(batches[2]["pixel_values"])  # no picture is read for a question alone
    ends = (batches[2]["labels"] == processor.tokenizer.eos_token_id) & batches[2]["own_questions"]
    assert batches[2]["weights"][ends].sum() == pytest.approx(len(own))  # a question counts once, whatever its answers
    assert every.for_evaluation()(rows).keys() == batches[0].keys()
    for name, values in every.for_evaluation()(rows).items():
        assert torch.equal(values, batches[0][name]) if torch.is_tensor(values) else values == batches[0][name]


def spelt(processor: LlavaProcessor, batch: dict[str, Any], which: torch.Tensor) -> list[str]:
    """The supervised texts of a batch, sorted."""
    ids = batch["labels"][which & (batch["labels"] != -100)]
    return sorted(text.strip() for text in processor.tokenizer.decode(ids).split("</s>"))[1:]


def first_of_one(dialogue: dict[str, Any]) -> list[prompts.Turn]:
    """The question of a dialogue that has no other turn."""
    return dialogue["turns"] if len(dialogue["turns"]) == 1 else []


def test_a_single_question_is_asked_from_the_picture(collator: Callable[..., VqaCollator], processor: Any) -> None:
    row = record("r", [question("q", answers=["red", "blue"])], source="vizwiz", colours=[(1, 2, 3)])
    tree = collator(template="v1_sq", self_question_ratio=1.0).tree(row, row["dialogues"])
    asked = tree.input_ids[tree.supervised == prompts.QUESTION]
    assert processor.tokenizer.decode(asked) == "What is this?</s>"  # without the benchmark's instruction
    assert (tree.input_ids == processor.image_token_id).sum() == 1
    lines = marked_text(tree, processor.tokenizer)
    assert [span["text"] for span in lines[-1]["spans"]] == [" VUSER:", " What is this?</s>"]


def test_questions_may_weigh_less_than_answers(collator: Callable[..., VqaCollator]) -> None:
    rows = [record("r", [question("q"), chain("c", "Hello?", "Hi.", "Why?", "so")], colours=[(1, 2, 3)])]
    asking = {"template": "v1_sq", "self_question_ratio": 1.0, "mask": "compact"}
    plain, light = collator(**asking)(rows), collator(**asking, self_question_weight=0.25)(rows)
    own = plain.pop("own_questions")
    assert own.any()
    torch.testing.assert_close(light["weights"], torch.where(own, 0.25, 1.0) * plain["weights"])
    assert light["input_ids"].equal(plain["input_ids"])


def test_without_a_picture_nothing_is_asked(collator: Callable[..., VqaCollator]) -> None:
    rows = [record("r", [question("q"), chain("c", "Hello?", "Hi.", "Why?", "so")])]
    asking = collator(template="v1_sq", self_question_ratio=1.0, mask="compact")
    assert not asking(rows)["own_questions"].any()


def test_the_batch_of_a_template_without_self_questions_is_as_it_was(collator: Callable[..., VqaCollator]) -> None:
    batch = collator(mask="compact")([record("r", [question("q")], colours=[(1, 2, 3)])])
    tensors = {"input_ids", "position_ids", "subtree_end", "labels", "weights", "pixel_values"}
    assert batch.keys() == tensors | {"chain", "dialogue_ids"}


# TRL's rows


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [{"role": "user", "content": "Why?"}], "completion": [{"role": "assistant", "content": "so"}]},
        {"prompt": "Why?", "completion": "so"},
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "so"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "so"}]},
            ]
        },
    ],
)
@pytest.mark.parametrize("images", [{"image": 0}, {"images": 1}, {}])
def test_trl_rows_are_trees_with_one_branch(
    collator: Callable[..., VqaCollator], row: dict[str, Any], images: dict[str, int]
) -> None:
    picture = Image.new("RGB", (28, 28), colour(7))
    pictures = {name: [picture] if several else picture for name, several in images.items()}
    ours = record("r", [chain("c", "Why?", "so")], colours=[colour(7)] * len(images))
    theirs, expected = collator()([{**row, **pictures}]), collator()([ours])
    assert theirs.keys() == expected.keys()
    for name, values in expected.items():
        assert theirs[name].equal(values), name


def test_empty_answers_are_not_trained_on(collator: Callable[..., VqaCollator]) -> None:
    given = collator(answer_target="votes")([record("r", [question("q", answers=["", "red", " ", "blue"])])])
    expected = collator(answer_target="votes")([record("r", [question("q", answers=["red", "blue"])])])
    assert given["input_ids"].equal(expected["input_ids"])
    assert given["weights"].equal(expected["weights"])


def test_our_records_are_left_alone() -> None:
    ours = record("r", [question("q")])
    assert as_record(ours) is ours


# What is refused


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (record("r", [question("q", answers=[])]), PromptError, "has no answers to train on"),
        (record("r", [question("q", answers=["", " "])]), PromptError, "has no answers to train on"),
        (record("r", [chain("q", "a", "b", "c", "", "d", answers=["e"])]), PromptError, "turn 3"),
        (record("r", [question("q")], source="vqa9"), ConfigError, "unknown benchmark 'vqa9'"),
    ],
)
def test_dialogues_that_cannot_be_trained_are_named(
    collator: Callable[..., VqaCollator], row: dict[str, Any], error: type[VqaError], message: str
) -> None:
    with pytest.raises(error, match=f"r, dialogue q: {message}"):
        collator()([record("fine", [question("f")]), row])


def test_max_length_counts_images_in_full(collator: Callable[..., VqaCollator], processor: Any) -> None:
    row = record("r", [question("q")], colours=[colour(1), colour(2)])
    turns = [*prompts.question_turns(row["dialogues"][0]["turns"], images=2), {"role": "assistant", "content": "yes"}]
    length = len(prompts.encode(turns, processor.tokenizer)[0]) + 2 * (WIDTH - 1)
    assert collator(max_length=length)([row])["input_ids"].shape[1] == length
    with pytest.raises(
        PromptError, match=f"r, dialogue q: is {length} tokens long .* over max_length={length - 1}; raise"
    ):
        collator(max_length=length - 1)([row])


def test_a_broken_picture_is_named(collator: Callable[..., VqaCollator], tmp_path: Path) -> None:
    row = record("r", [question("q")], colours=[colour(1)])
    row["images"] = [{"bytes": None, "path": str(tmp_path / "missing.jpg")}]
    with pytest.raises(ImageError, match=r"^r: .*missing\.jpg"):
        collator()([row])
    row["images"] = [{"bytes": png(colour(1))[:40], "path": None}]
    with pytest.raises(ImageError, match=r"^r: image in memory"):
        collator()([row])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "sparse"}, "unknown mask 'sparse'; use one of: dense, compact"),
        ({"answer_target": "best"}, "unknown answer_target 'best'"),
        ({"answer_confidence_weights": [1.0]}, "answer_confidence_weights is 1.0; give three numbers"),
        ({"template": "v9"}, "unknown template 'v9'"),
        ({"max_questions_per_row": 0}, "max_questions_per_row is 0; it must be at least 1"),
        ({"self_question_ratio": 0.5}, "use the template v1_sq"),
    ],
)
def test_options_are_checked_at_construction(
    collator: Callable[..., VqaCollator], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(VqaError, match=message):
        collator(**options)
