"""Streams as training reads them: rows against `data.order`, loaders against each other, what is read and opened."""

import pickle
import random
import shutil
import subprocess
import sys
from operator import itemgetter

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, IterableDataset, List

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.order import SLOTS, SetOrder
from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.data.prepared.row_groups import TableGroups
from hf_llava_vqa.data.streams import RecordStream, StreamLoader, fingerprint, mix_streams, training_stream
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.records import FEATURES, UNDECODED_FEATURES
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


# What is read


@pytest.fixture
def opened(monkeypatch):
    """The row groups that are read, as (number of rows, group of the file), in order."""
    groups = []
    read = pq.ParquetFile.read_row_group

    def counting(file, group, **kwargs):
        groups.append((file.metadata.num_rows, group))
        return read(file, group, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    return groups


@pytest.mark.parametrize("start", [0, 64, 1003, 101 * 10**6 + 50])
def test_a_resumed_run_opens_the_groups_of_its_rows_and_no_others(stream, opened, start):
    list(training_stream(stream, start=start, stop=start + 3, **ALONE))
    (groups,) = stream.sets
    order = SetOrder(groups.sizes, 64, seed=0)
    wanted = [order.locate(number)[1] for number in range(start, start + 3)]
    shards = [(40, 0), (40, 1), (40, 2), (40, 3), (40, 4)] * 2 + [(21, 0), (21, 1), (21, 2)]
    assert opened == [shards[group] for group in wanted]


def test_a_resumed_run_decodes_no_image_that_was_seen(stream, monkeypatch):
    decoded = []

    def decode(rows):
        decoded.extend((row["image_id"], open_image(row["images"][0]).size) for row in rows)
        return ids(rows)

    def run(start):
        decoded.clear()
        share = {"workers": 0, "rank": 0, "world_size": 1, "batch_size": 2}
        list(StreamLoader(stream, collate_fn=decode, seed=0, start=start, stop=120, **share))
        return list(decoded)

    whole = run(0)
    assert len(whole) == 120
    assert run(70) == whole[70:]


def test_a_reader_opens_each_of_its_groups_once(tmp_path, opened):
    """Groups are as long as spans are cut: a pass costs no more groups than there are."""
    write_shards(some_records(64), tmp_path / "set", split="train", row_group_size=1)
    stream = load_records("parquet", path=tmp_path / "set", streaming=True)
    for rank in range(2):
        list(training_stream(stream, start=0, stop=64, **{**ALONE, "world_size": 2, "rank": rank}))
    assert sorted(opened) == [(64, group) for group in range(64)]


def test_a_shard_with_other_row_groups_than_listed_is_refused(tmp_path):
    write_shards(some_records(8), tmp_path, split="train", row_group_size=4)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"row_group_size": 4', '"row_group_size": 2'))
    stream = load_records("parquet", path=tmp_path, streaming=True)
    with pytest.raises(RecordError, match="are not those the manifest says, 8 rows in groups of 2; prepare the set"):
        next(iter(stream))


# Mixtures


def test_a_mixture_reads_its_sets_by_weight(stream):
    small = table_stream(7, "small ")
    mixed = mix_streams([stream, small], [0.9, 0.1])
    rows = list(training_stream(mixed, start=0, stop=SLOTS * 64, **ALONE))
    from_small = [row for row in rows if row["image_id"].startswith("small")]
    assert len(from_small) == 10 * 64
    # Each set goes its own way: passes of its own, in the order that it has when it is read alone.
    assert max(row["epoch"] for row in from_small) == 10 * 64 // 7
    assert max(row["epoch"] for row in rows if row not in from_small) == 90 * 64 // 101
    alone = list(training_stream(small, start=0, stop=10 * 64, **ALONE))
    key = itemgetter("epoch", "image_id")
    assert sorted(map(key, from_small)) == sorted(map(key, alone))


def test_mixtures_are_dealt_and_resumed_as_single_sets_are(stream):
    mixed = mix_streams([stream, table_stream(30, "t"), table_stream(5, "u")], [3, 2, 1])
    (alone,) = loaded(mixed, stop=7000)
    start = 6600
    shared = loaded(mixed, start=start, stop=7000, world_size=2, batch_size=2, workers=2)
    assert global_order(shared) == [row for batch in alone[start:] for row in batch]


def test_a_mixture_of_mixtures(stream):
    one, two, three = stream, table_stream(30, "t"), table_stream(5, "u")
    nested = mix_streams([mix_streams([one, two], [3, 1]), three], [4, 1])
    assert nested.weights == (3.0, 1.0, 1.0)
    assert nested.fingerprint == mix_streams([one, two, three], [3, 1, 1]).fingerprint


def test_a_mixture_is_iterated_set_by_set(stream):
    small = table_stream(7, "small ")
    mixed = mix_streams([small, stream], [1, 1])
    assert mixed.num_rows == 108
    assert ids(mixed) == ids(small) + ids(stream)


@pytest.mark.parametrize(
    ("streams", "weights", "message"),
    [
        ([5, 6], [1], "a mixture needs one weight for each stream: 2 streams, 1 weights"),
        ([5, 6], [1, 0], "weight 0: the weights of a mixture are numbers above zero"),
        ([5, 6], [1, -1], "weight -1: the weights of a mixture are numbers above zero"),
        ([], [], "0 weights: a mixture takes 1 to 100 sets"),
        ([5, 32], [1, 1], "sets with 32 and 64 virtual readers cannot be mixed; prepare them with one number"),
    ],
)
def test_mixtures_that_cannot_be(streams, weights, message):
    streams = [table_stream(3, readers=32 if number == 32 else 64) for number in streams]
    with pytest.raises(ConfigError) as caught:
        mix_streams(streams, weights)
    assert str(caught.value) == message


def test_other_streams_cannot_be_mixed(stream):
    with pytest.raises(ConfigError) as caught:
        mix_streams([stream, stream.skip(1)], [1, 1])
    assert str(caught.value) == "a mixture takes streams of load_records(..., streaming=True), not IterableDataset"


# Other streams


def test_other_streams_are_read_in_the_order_they_give(stream):
    given = stream.map(lambda row: {"source": "mapped"}).filter(lambda row: row["image_id"] != "5")
    names = [name for name in ids(stream) if name != "5"]
    rows = list(training_stream(given, start=0, stop=250, **ALONE))
    assert ids(rows) == (names * 3)[:250]
    assert [row["epoch"] for row in rows] == [0] * 100 + [1] * 100 + [2] * 50
    assert {row["source"] for row in rows} == {"mapped"}


@pytest.mark.parametrize("workers", [0, 2])
def test_other_streams_are_dealt_and_resumed_alike(stream, workers):
    """Its workers share no parts of it: they would end at different times and in another order."""
    given = stream.filter(lambda row: row["image_id"] != "5")
    (alone,) = loaded(given, stop=240)
    shared = loaded(given, start=120, stop=240, world_size=2, batch_size=2, workers=workers)
    assert global_order(shared) == [row for batch in alone[120:] for row in batch]


@pytest.mark.parametrize("column", ["image", "images"])
def test_pictures_of_other_streams_are_not_decoded(column):
    picture = {"bytes": b"no picture at all", "path": None}
    feature = datasets.Image() if column == "image" else List(datasets.Image())
    value = picture if column == "image" else [picture]
    features = datasets.Features({column: feature, "prompt": datasets.Value("string")})
    given = Dataset.from_list([{column: value, "prompt": "Why?"}], features=features).to_iterable_dataset()
    rows = list(training_stream(given, start=0, stop=2, **ALONE))
    assert rows == [{column: value, "prompt": "Why?", "epoch": epoch} for epoch in (0, 1)]


def test_streams_without_features():
    given = IterableDataset.from_generator(lambda: iter([{"prompt": "a"}, {"prompt": "b"}]))
    assert [row["prompt"] for row in training_stream(given, start=0, stop=5, **ALONE)] == list("ababa")


def test_a_stream_without_rows_ends_the_run(stream):
    empty = stream.filter(lambda row: False)
    with pytest.raises(RecordError, match="the training stream has no rows; check its filters and its split"):
        next(iter(training_stream(empty, start=0, stop=2, **ALONE)))


# Fingerprints


def test_a_prepared_set_is_known_by_what_is_in_it(folder, stream, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert len(fingerprint(stream)) == 64
    assert fingerprint(load_records("parquet", path=moved, streaming=True)) == fingerprint(stream)
    others = [some_records(100), some_records(101, "other ")]
    found = {fingerprint(stream)}
    for number, records in enumerate(others):
        write_shards(records, tmp_path / str(number), split="train", rows_per_shard=40, row_group_size=8)
        found.add(fingerprint(load_records("parquet", path=tmp_path / str(number), streaming=True)))
    write_shards(some_records(101), tmp_path / "groups", split="train", rows_per_shard=40, row_group_size=4)
    found.add(fingerprint(load_records("parquet", path=tmp_path / "groups", streaming=True)))
    assert len(found) == 4


def test_a_mixture_is_known_by_its_sets_and_shares(stream):
    other = table_stream(9)
    mixtures = [
        ([stream, other], [1, 1]),
        ([other, stream], [1, 1]),
        ([stream, other], [1, 3]),
        ([stream, stream], [1, 1]),
    ]
    assert len({fingerprint(mix_streams(*mixture)) for mixture in mixtures}) == 4
    assert fingerprint(mix_streams([stream, other], [25, 75])) == fingerprint(mix_streams([stream, other], [1, 3]))


def test_a_table_is_known_by_its_values_and_not_by_its_files(vizwiz_root, tmp_path):
    shutil.copytree(vizwiz_root, tmp_path / "moved")
    tables = [load_records("vizwiz", split="train", root=root) for root in (vizwiz_root, tmp_path / "moved")]
    assert fingerprint(tables[0]) == fingerprint(tables[1])
    streams = [
        load_records("vizwiz", split="train", root=root, streaming=True) for root in (vizwiz_root, tmp_path / "moved")
    ]
    assert fingerprint(streams[0]) == fingerprint(streams[1])
    assert fingerprint(load_records("vizwiz", split="val", root=vizwiz_root)) != fingerprint(tables[0])


def test_how_arrow_holds_a_table_does_not_matter():
    rows = dataset(some_records(10))
    known = fingerprint(rows)
    assert fingerprint(datasets.concatenate_datasets([rows.select(range(3)), rows.select(range(3, 10))])) == known
    assert fingerprint(rows.select([*range(5), *range(5, 10)])) == known
    assert fingerprint(rows.cast_column("images", FEATURES["images"])) == known
    assert fingerprint(dataset(some_records(12)).select(range(10))) == known


@pytest.mark.parametrize(
    "other",
    [
        lambda rows: rows.select(range(9)),
        lambda rows: rows.select(range(9, -1, -1)),
        lambda rows: rows.rename_column("source", "origin"),
        lambda rows: rows.map(lambda row: {"source": "x" * (row["image_id"] == "3")}),
        lambda rows: rows.map(lambda row: {"dialogues": row["dialogues"] * (1 + (row["image_id"] == "3"))}),
        lambda rows: rows.map(lambda row: {"image_sha256": [""] * (row["image_id"] == "3")}),
    ],
)
def test_another_table_is_another(other):
    rows = dataset(some_records(10))
    assert fingerprint(other(rows)) != fingerprint(rows)


def test_nulls_and_empty_lists_are_told_apart():
    values = [[{"a": None}], [None], [], None, [{"a": ["", ""]}], [{"a": [""]}, {"a": [""]}]]
    features = datasets.Features({"x": List({"a": List(datasets.Value("string"))})})
    tables = [Dataset.from_list([{"x": value}], features=features) for value in values]
    assert len(set(map(fingerprint, tables))) == len(values)


def test_other_streams_cannot_be_known(stream):
    assert fingerprint(stream.skip(1)) is None
