"""Image-once decoding gives token for token what plain `generate` gives to one question at a time."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from examples import MIXED, Loaded, build_outspoken_llava, chain, colour, question, record, stock_answer
from peft import get_peft_model
from trl import ModelConfig

from hf_llava_vqa.generation import questions
from hf_llava_vqa.generation.choosing import Sampling
from hf_llava_vqa.generation.decoding import Answer, Branches, decode
from hf_llava_vqa.generation.questions import Planted, prompt_trees
from hf_llava_vqa.models import load_model
from hf_llava_vqa.models.adapters import lora_config

MANY = record("many", [question(f"many.{k}", f"Is there a dog in box {k}?") for k in range(20)], colours=[colour(3)])
SINGLE = record("single", [question("single.0", "Why?")], colours=[colour(200)])
TALK = record("talk", [chain("talk.0", "Hello?", "Hi, " * 20, "Why?")], colours=[colour(100)])
CASES = {
    "one question": [SINGLE],
    "more than 16 questions": [MANY],
    "text only": MIXED[:1],
    "several pictures": MIXED[3:],
    "everything": [*MIXED, MANY, SINGLE, TALK],
}


def planted(loaded: Loaded, records: list[dict[str, Any]], most: int = 16) -> list[Planted]:
    return list(prompt_trees(loaded[1], records, template="v1", instruction=None, max_branches=most))


def decoded(loaded: Loaded, records: list[dict[str, Any]], max_new_tokens: int = 8, **settings: Any) -> list[Answer]:
    trees = planted(loaded, records)
    sampling = Sampling(**settings)
    return decode(*loaded, trees, sampling=sampling, max_new_tokens=max_new_tokens)


def check_against_stock(loaded: Loaded, records: list[dict[str, Any]], max_new_tokens: int) -> list[int]:
    """The lengths of the answers, which are those of plain `generate`, with their log-probabilities."""
    answers = decoded(loaded, records, max_new_tokens)
    asked = list(questions(records))
    assert len(answers) == len(asked)
    for answer, (row, dialogue) in zip(answers, asked, strict=True):
        ids, log_prob = stock_answer(*loaded, row, dialogue, max_new_tokens)
        assert answer.token_ids == ids
        assert answer.log_prob == pytest.approx(log_prob, abs=1e-4)
    return [len(answer.token_ids) for answer in answers]


@pytest.fixture
def eager_to_stop(loaded: Loaded) -> Iterator[Loaded]:
    """The model with `</s>` likelier, so that answers end after different numbers of tokens."""
    model, processor = loaded

    def favour_the_end(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., processor.tokenizer.eos_token_id] += 6
        return logits

    with model.lm_head.register_forward_hook(favour_the_end):
        yield loaded


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("max_new_tokens", [1, 12])
def test_token_ids_equal_plain_generate(loaded: Loaded, case: str, max_new_tokens: int) -> None:
    check_against_stock(loaded, CASES[case], max_new_tokens)


def test_answers_of_different_lengths(eager_to_stop: Loaded) -> None:
    lengths = check_against_stock(eager_to_stop, CASES["everything"], 30)
    assert len(set(lengths)) > 5
    assert max(lengths) > 10 * min(lengths)


@pytest.mark.parametrize("use_dora", [False, True])
def test_an_adapter_answers_too(tmp_path: Path, loaded: Loaded, use_dora: bool) -> None:
    build_outspoken_llava(tmp_path)
    model, processor = load_model(str(tmp_path))
    flags = ModelConfig(use_peft=True, lora_r=4, lora_dropout=0, use_dora=use_dora)
    adapted = get_peft_model(model, lora_config(flags)).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    check_against_stock((adapted, processor), CASES["everything"], 8)
    own = [answer.token_ids for answer in decoded((adapted, processor), MIXED)]
    assert own != [answer.token_ids for answer in decoded(loaded, MIXED)]


def test_eager_attention_gets_a_mask_it_understands(loaded: Loaded) -> None:
    model, _ = loaded
    expected = [answer.token_ids for answer in decoded(loaded, MIXED)]
    model.set_attn_implementation("eager")
    try:
        assert [answer.token_ids for answer in decoded(loaded, MIXED)] == expected
    finally:
        model.set_attn_implementation("sdpa")


def test_complete_rows_and_branches_leave_the_batch(loaded: Loaded) -> None:
    """Of rows with 2, 2, 2 and 1 questions, the middle two lose one question and the first and last all."""
    branches = Branches(loaded[0], trees := planted(loaded, MIXED))
    with torch.no_grad():
        branches.read(loaded[1], trees)
        unfinished = torch.tensor([[0, 0], [0, 1], [1, 0], [0, 0]]).bool()
        tokens = branches.keep(unfinished, torch.arange(8).view(4, 2))
    assert tokens.tolist() == [[3], [4]]
    assert branches.answer.tolist() == [[3], [4]]
    assert branches.cache.layers[0].keys.shape[0] == 2


def test_one_row_stays_for_the_steps_of_other_ranks(loaded: Loaded) -> None:
    calls = []
    flags = iter([True, True, True, False])
    with loaded[0].lm_head.register_forward_hook(lambda *_: calls.append(1)):
        trees = planted(loaded, [SINGLE])
        none_open = [replace(tree, dialogues=[], leaves=tree.leaves[:0]) for tree in trees]
        answers = decode(
            *loaded, none_open, sampling=Sampling(), max_new_tokens=9, anyone=lambda mine: next(flags) or mine
        )
    assert answers == []
    assert len(calls) == 4  # the trees, and three steps


def test_draws_depend_on_seed_and_dialogue_only(loaded: Loaded) -> None:
    settings = {"temperature": 1.0, "top_p": 0.9, "seed": 3}
    together = decoded(loaded, MIXED, **settings)
    alone = [answer for row in MIXED for answer in decoded(loaded, [row], **settings)]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    other = decoded(loaded, MIXED, **{**settings, "seed": 4})
    assert [answer.token_ids for answer in together] != [answer.token_ids for answer in other]
