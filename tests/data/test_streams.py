"""Streams as training reads them: rows against `data.order`, loaders against each other, what is read and opened."""

import pickle
import random
import subprocess
import sys

import datasets
import pytest
import torch
from datasets import IterableDataset

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.order import SetOrder
from hf_llava_vqa.data.row_groups import TableGroups
from hf_llava_vqa.data.shards import write_shards
from hf_llava_vqa.data.streams import RecordStream, StreamLoader, mix_streams, training_stream
from hf_llava_vqa.images import open_image
from hf_llava_vqa.records import UNDECODED_FEATURES
from tests.examples import colour, dataset, question, record

ALONE = {"seed": 0, "batch_size": 1, "rank": 0, "world_size": 1, "workers": 0}


def some_records(count, prefix=""):
    return [
        record(f"{prefix}{number}", [question(f"{prefix}{number}.0")], colours=[colour(number)])
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared set of 101 rows in shards of 40, 40 and 21 rows, in row groups of 8 or less."""
    path = tmp_path_factory.mktemp("streams") / "set"
    write_shards(some_records(101), path, split="train", rows_per_shard=40, row_group_size=8)
    return path


@pytest.fixture
def stream(folder):
    return load_records("parquet", path=folder, streaming=True)


def table_stream(count, prefix="", readers=64):
    table = dataset(some_records(count, prefix)).data.table
    return RecordStream([TableGroups(table, virtual_readers=readers)])


def ids(rows):
    return [row["image_id"] for row in rows]


def loaded(stream, *, start=0, stop, world_size=1, batch_size=1, workers=0, seed=0):
    """What each rank's loader gives, batch by batch."""
    return [
        list(
            StreamLoader(
                stream,
                collate_fn=list,
                batch_size=batch_size,
                workers=workers,
                rank=rank,
                world_size=world_size,
                seed=seed,
                start=start,
                stop=stop,
            )
        )
        for rank in range(world_size)
    ]


def global_order(ranks):
    """The rows of all ranks' micro-batches, in the order of the run."""
    return [row for batches in zip(*ranks, strict=True) for rows in zip(*batches, strict=True) for row in rows]


# The order


def test_rows_come_in_the_order_of_their_numbers(stream):
    (groups,) = stream.sets
    stored = iter(list(stream))
    rows = [[next(stored) for _ in range(size)] for size in groups.sizes]
    order = SetOrder(groups.sizes, 64, seed=3)
    expected = []
    for number in range(250):
        epoch, group, row = order.locate(number)
        expected.append({**rows[group][row], "epoch": epoch})
    assert list(training_stream(stream, start=0, stop=250, **{**ALONE, "seed": 3})) == expected


@pytest.mark.parametrize(("world_size", "workers"), [(1, 2), (2, 0), (2, 2), (3, 0), (1, 3)])
def test_ranks_and_workers_change_nothing(stream, world_size, workers):
    together = 2 * world_size
    stop = 240 // together * together
    (alone,) = loaded(stream, stop=stop)
    shared = loaded(stream, stop=stop, world_size=world_size, batch_size=2, workers=workers)
    assert global_order(shared) == [row for batch in alone for row in batch]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [4, 100, 104, 204, 236, 240])
def test_a_run_goes_on_where_it_was_left(stream, start, workers):
    whole = loaded(stream, stop=240, world_size=2, batch_size=2, workers=workers)
    rest = loaded(stream, start=start, stop=240, world_size=2, batch_size=2, workers=workers)
    assert rest == [batches[start // 4 :] for batches in whole]


def test_a_pass_ends_within_a_batch(stream):
    (batches,) = loaded(stream, stop=400, batch_size=4)
    assert all(len(batch) == 4 for batch in batches)
    rows = [row for batch in batches for row in batch]
    assert [row["epoch"] for row in rows] == [0] * 101 + [1] * 101 + [2] * 101 + [3] * 97
    passes = [ids(rows[first : first + 101]) for first in (0, 101, 202)]
    assert all(len(set(names)) == 101 for names in passes)
    assert len(set(map(tuple, passes))) == 3


def test_another_seed_gives_another_order(stream):
    first, second = (loaded(stream, stop=101, seed=seed) for seed in (0, 1))
    assert first != second


def test_the_epoch_of_datasets_changes_nothing(stream):
    rows = training_stream(stream, start=0, stop=100, **{**ALONE, "workers": 2})
    before = list(rows)
    rows.set_epoch(3)
    assert list(rows) == before


def test_row_numbers_must_be_whole_batches(stream):
    for start, stop in ((3, 8), (0, 6)):
        with pytest.raises(ValueError, match="do not consist of batches of 2 rows on 2 ranks"):
            training_stream(stream, start=start, stop=stop, **{**ALONE, "batch_size": 2, "world_size": 2})


def test_rows_have_our_features_and_their_pass(stream):
    rows = training_stream(stream, start=0, stop=8, **ALONE)
    assert isinstance(rows, IterableDataset)
    assert rows.features == datasets.Features({**UNDECODED_FEATURES, "epoch": datasets.Value("int32")})
    assert open_image(next(iter(rows))["images"][0]).mode == "RGB"


# Loaders


def test_the_length_counts_from_the_beginning_of_the_run(stream):
    arguments = {"collate_fn": ids, "seed": 0, "batch_size": 2, "workers": 0, "rank": 1, "world_size": 2}
    loader = StreamLoader(stream, start=12, stop=40, **arguments)
    assert len(loader) == 10
    assert len(list(loader)) == 7


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_random_generators_alone(stream, workers):
    states = torch.get_rng_state(), random.getstate()
    loaded(stream, stop=8, workers=workers)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_streams_travel_to_spawned_workers(stream):
    mixed = mix_streams([stream, table_stream(20, "t")], [1, 1])
    again = pickle.loads(pickle.dumps(mixed))
    assert ids(again) == ids(mixed)
    assert loaded(again, stop=64) == loaded(mixed, stop=64)
    rows = training_stream(stream, start=0, stop=20, **ALONE)
    assert list(pickle.loads(pickle.dumps(rows))) == list(rows)


def test_a_stream_left_early_does_not_abort_at_exit(folder):
    code = f"""
from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.streams import StreamLoader
stream = load_records("parquet", path={str(folder)!r}, streaming=True)
share = dict(batch_size=1, workers=2, rank=0, world_size=1)
batches = iter(StreamLoader(stream, collate_fn=list, seed=0, start=0, stop=90, **share))
print(len(next(batches)), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
