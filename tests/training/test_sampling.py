"""Modality grouping: the original sampler's orders, and what every order must hold."""

import json
from pathlib import Path

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from examples import MIXED, dataset
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.training.sampling import (
    ModalityGroupedSampler,
    even_batches,
    grouped_sampler,
    length_grouped,
    modality_grouped,
    words_and_pictures,
)

FILE = Path(__file__).parents[1] / "golden" / "parity" / "modality_sampler.jsonl"
GOLDEN = {row["id"]: row for row in map(json.loads, FILE.open())}
MIXED_ROWS = [name for name, row in GOLDEN.items() if row["category"].startswith("mixed")]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def arguments(row):
    """The original marks text by a negative length and counts batches over ranks and accumulation as world size."""
    return {
        "lengths": [abs(length) for length in row["lengths"]],
        "has_image": [length > 0 for length in row["lengths"]],
        "batch_size": row["batch_size"],
        "batches": row["world_size"],
    }


# The original's orders


@pytest.mark.parametrize("name", MIXED_ROWS)
def test_the_original_order_of_two_epochs(name):
    row, generator = GOLDEN[name], seeded(GOLDEN[name]["seed"])
    assert modality_grouped(**arguments(row), generator=generator) == row["group_by_modality_generator_none"]
    assert modality_grouped(**arguments(row), generator=generator) == row["second_epoch_without_reseed"]


@pytest.mark.parametrize("name", MIXED_ROWS)
def test_on_purpose_one_generator_decides_everything(name):
    """The original groups by the global generator and shuffles by the one it is given: two seeds for one order."""
    row = GOLDEN[name]
    assert row["with_generator_global_seed_7"] != row["with_generator_global_seed_8"]
    orders = []
    for seed in (7, 8):
        torch.manual_seed(seed)
        orders.append(modality_grouped(**arguments(row), generator=seeded(row["seed"])))
    assert orders[0] == orders[1] == row["group_by_modality_generator_none"]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_original_order_by_length_alone(name):
    row = GOLDEN[name]
    options = {key: value for key, value in arguments(row).items() if key != "has_image"}
    assert length_grouped(**options, generator=seeded(row["seed"])) == row["length_grouping_only_abs"]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_originals_even_batches(name):
    row = GOLDEN[name]
    lengths = [abs(length) for length in row["lengths"]]
    longest_first = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    assert even_batches(longest_first, lengths, row["world_size"]) == row["split_to_even_chunks"]


def test_on_purpose_text_alone_is_grouped_like_pictures_alone():
    """The original keeps its negative lengths there: shortest first, and the longest batch is given more."""
    row = GOLDEN["sampler-05"]
    assert row["category"] == "text_only"
    ours = modality_grouped(**arguments(row), generator=seeded(row["seed"]))
    assert ours == row["length_grouping_only_abs"] != row["group_by_modality_generator_none"]


def test_on_purpose_a_row_without_words_is_allowed():
    row = GOLDEN["sampler-11"]
    assert "zero length" in row["group_by_modality_generator_none"]["error"]
    assert sorted(modality_grouped(**arguments(row), generator=seeded(0))) == [0, 1, 2, 3]


# What always holds

rows_of_both_kinds = st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=60)


@given(rows_of_both_kinds, st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32))
def test_a_permutation_whose_steps_are_of_one_kind(rows, batch_size, batches, seed):
    lengths, has_image = [length for length, _ in rows], [kind for _, kind in rows]
    order = modality_grouped(lengths, has_image, batch_size=batch_size, batches=batches, generator=seeded(seed))
    assert sorted(order) == list(range(len(rows)))
    size = batch_size * batches
    kinds = [{has_image[row] for row in order[start : start + size]} for start in range(0, len(order), size)]
    mixed = [number for number, kind in enumerate(kinds) if len(kind) > 1]
    assert all(number >= len(kinds) - 2 for number in mixed)  # the mixed rest holds less than two steps of rows
    assert len(mixed) <= 2


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(1, 5))
def test_batches_are_of_one_size_and_of_similar_length(lengths, batches):
    rows = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    dealt = even_batches(rows, lengths, batches)
    assert sorted(row for batch in dealt for row in batch) == sorted(rows)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    if len(rows) % batches == 0:
        totals = [sum(lengths[row] for row in batch) for batch in dealt]
        assert max(totals) - min(totals) <= max(lengths) * max(map(len, dealt))


def test_the_batches_of_a_step_are_equal_work():
    lengths = torch.randint(1, 500, (512,), generator=seeded(0)).tolist()

    def spread(order):
        batches = [sum(lengths[row] for row in order[start : start + 4]) for start in range(0, 512, 4)]
        steps = [batches[start : start + 8] for start in range(0, len(batches), 8)]
        return sum(max(step) - min(step) for step in steps)

    assert spread(length_grouped(lengths, batch_size=4, batches=8, generator=seeded(1))) < 0.2 * spread(range(512))


# The sampler


def sampler(seed=0, rows=20):
    return ModalityGroupedSampler(range(rows), [row % 3 > 0 for row in range(rows)], batch_size=2, batches=2, seed=seed)


def test_each_epoch_has_an_order_of_its_own_which_comes_back():
    ours = sampler()
    orders = []
    for epoch in (0, 1, 0):
        ours.set_epoch(epoch)
        orders.append(list(ours))
    assert orders[0] == orders[2] != orders[1]
    assert list(sampler(seed=1)) != orders[0]
    assert len(ours) == 20


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = list(sampler())
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(2)
    assert list(sampler()) == first


def test_a_loader_takes_it():
    loader = DataLoader(list(range(20)), batch_size=2, sampler=sampler())
    assert [batch.tolist() for batch in loader] == list(BatchSampler(sampler(), 2, drop_last=False))


def test_every_row_needs_a_length():
    with pytest.raises(ConfigError, match="2 lengths for 3 rows"):
        ModalityGroupedSampler([1, 2], [True] * 3, batch_size=1, batches=1, seed=0)


def test_the_ranks_of_a_step_share_its_rows():
    ours = ModalityGroupedSampler(range(64), [row < 32 for row in range(64)], batch_size=2, batches=4, seed=0)
    order = list(ours)
    shards = [list(BatchSamplerShard(BatchSampler(ours, 2, drop_last=False), 2, rank)) for rank in range(2)]
    for step in range(8):  # two micro-batches on each of two ranks
        rows = [row for micro in (0, 1) for rank in (0, 1) for row in shards[rank][2 * step + micro]]
        assert rows == order[8 * step : 8 * step + 8]
        assert step == 7 or len({row < 32 for row in rows}) == 1


def test_lengths_come_from_their_column_or_are_counted():
    options = {"length_column": "length", "batch_size": 1, "batches": 2, "seed": 0}
    counted = grouped_sampler(dataset(MIXED), **options)
    assert counted.lengths == [10, 9, 8, 4]
    given_lengths = grouped_sampler(dataset(MIXED).add_column("length", [5, 6, 7, 8]), **options)
    assert given_lengths.lengths == [5, 6, 7, 8]
    assert given_lengths.has_image == counted.has_image == [False, True, True, True]
    with pytest.raises(ConfigError, match="rows must be records"):
        grouped_sampler(Dataset.from_list([{"prompt": "Why?", "completion": "so"}]), **options)


def test_words_and_pictures_of_records():
    records = dataset(MIXED)
    assert words_and_pictures(records) == ([10, 9, 8, 4], [False, True, True, True])
    assert words_and_pictures(records.select([3, 0])) == ([4, 10], [True, False])
