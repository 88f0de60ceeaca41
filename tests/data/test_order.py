"""The order of a run against its definition, worked out in full and by other means."""

import hashlib
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hf_llava_vqa.data.order import SLOTS, MixtureOrder, SetOrder, share_slots, worker_rows
from hf_llava_vqa.errors import ConfigError

sizes = st.lists(st.integers(1, 7), min_size=1, max_size=12)
readers = st.integers(1, 10)
seeds = st.integers(0, 2**32)


def pass_by_definition(group_sizes, virtual_readers, seed, epoch):
    """The rows of a pass: lay the groups end to end, cut into spans, take from the spans in turns."""

    def key(group):
        return hashlib.sha256(f"{seed}/{epoch}/{group}".encode()).hexdigest()

    line = [(group, row) for group in sorted(range(len(group_sizes)), key=key) for row in range(group_sizes[group])]
    length, longer = divmod(len(line), virtual_readers)
    spans, begin = [], 0
    for reader in range(virtual_readers):
        end = begin + length + (reader < longer)
        spans.append(line[begin:end])
        begin = end
    return [span[turn] for turn in range(length + 1) for span in spans if turn < len(span)]


def pass_of(order, epoch):
    places = [order.locate(number) for number in range(epoch * order.rows, (epoch + 1) * order.rows)]
    assert all(place[0] == epoch for place in places)
    return [place[1:] for place in places]


@given(sizes, readers, seeds, st.integers(0, 3))
def test_a_pass_is_what_the_definition_says(group_sizes, virtual_readers, seed, epoch):
    order = SetOrder(group_sizes, virtual_readers, seed)
    assert pass_of(order, epoch) == pass_by_definition(group_sizes, virtual_readers, seed, epoch)


@given(sizes, readers, seeds, st.integers(0, 10**6))
def test_every_pass_has_every_row_once(group_sizes, virtual_readers, seed, epoch):
    every_row = {(group, row) for group, size in enumerate(group_sizes) for row in range(size)}
    rows = pass_of(SetOrder(group_sizes, virtual_readers, seed), epoch)
    assert len(rows) == len(every_row)
    assert set(rows) == every_row


@given(sizes, readers, seeds, st.data())
def test_rows_may_be_asked_for_in_any_order(group_sizes, virtual_readers, seed, data):
    known = SetOrder(group_sizes, virtual_readers, seed)
    for number in data.draw(st.lists(st.integers(0, 5 * sum(group_sizes)), max_size=20)):
        assert known.locate(number) == SetOrder(group_sizes, virtual_readers, seed).locate(number)


def test_passes_and_seeds_differ():
    order = SetOrder([16] * 20, 4, seed=0)
    passes = [pass_of(order, epoch) for epoch in range(3)]
    assert len(set(map(tuple, passes))) == 3
    assert pass_of(SetOrder([16] * 20, 4, seed=1), 0) != passes[0]


def test_the_order_is_frozen():
    """A run that was begun with one version has to go on with the next."""
    order = SetOrder([3, 3, 2], 2, seed=7)
    assert pass_of(order, 0) == [(1, 0), (2, 1), (1, 1), (0, 0), (1, 2), (0, 1), (2, 0), (0, 2)]
    mixture = MixtureOrder([[3, 3, 2], [5]], [3, 1], 2, seed=7)
    assert [mixture.locate(number).set for number in range(16)] == [1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0]


@given(sizes, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), seeds)
def test_a_reader_is_read_by_one_worker(group_sizes, world_size, batch_size, workers, multiple, seed):
    """If ranks * rows of a micro-batch * workers divides the readers, no span is cut between workers."""
    virtual_readers = world_size * batch_size * workers * multiple
    rows = sum(group_sizes)
    stop = -(-2 * rows // virtual_readers) * virtual_readers
    seen = {}
    for rank in range(world_size):
        for worker in range(workers):
            mine = {
                "batch_size": batch_size,
                "rank": rank,
                "world_size": world_size,
                "worker": worker,
                "workers": workers,
            }
            for number in worker_rows(start=0, stop=stop, **mine):
                epoch, offset = divmod(number, rows)
                assert seen.setdefault((epoch, offset % virtual_readers), (rank, worker)) == (rank, worker)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 5), st.integers(0, 9))
def test_workers_share_the_rows_of_a_rank_by_micro_batches(world_size, batch_size, workers, first, count):
    """What a loader makes of its workers' rows, one micro-batch of each in turns, is the rank's rows in order."""
    together = world_size * batch_size
    start, stop = first * together, (first + count) * together
    for rank in range(world_size):
        shared = {"start": start, "stop": stop, "batch_size": batch_size, "rank": rank, "world_size": world_size}
        parts = [list(worker_rows(**shared, worker=worker, workers=workers)) for worker in range(workers)]
        batches = [[part[begin : begin + batch_size] for begin in range(0, len(part), batch_size)] for part in parts]
        loaded = [batches[number % workers][number // workers] for number in range(count)]
        assert [number for batch in loaded for number in batch] == list(range(start + rank, stop, world_size))


# Mixtures

weights = st.lists(st.integers(1, 1000).map(lambda weight: weight / 8), min_size=1, max_size=5)


@given(weights)
def test_shares_are_within_one_of_the_weights(given_weights):
    exact = [SLOTS * Fraction(weight) / sum(map(Fraction, given_weights)) for weight in given_weights]
    assume(min(exact) >= 1)
    shares = share_slots(given_weights)
    assert sum(shares) == SLOTS
    assert all(abs(share - wanted) < 1 for share, wanted in zip(shares, exact, strict=True))


@pytest.mark.parametrize(
    ("given_weights", "shares"),
    [
        ([1], [100]),
        ([0.9, 0.1], [90, 10]),
        ([1, 1, 1], [34, 33, 33]),
        ([0.29, 0.71], [29, 71]),
        ([1000, 1], [99, 1]),
        ([1e-9, 1, 1e-9], [1, 98, 1]),
        ([1] * 100, [1] * 100),
    ],
)
def test_shares(given_weights, shares):
    assert share_slots(given_weights) == shares


@pytest.mark.parametrize(
    ("given_weights", "message"),
    [
        ([], "0 weights: a mixture takes 1 to 100 sets"),
        ([1] * 101, "101 weights: a mixture takes 1 to 100 sets"),
        ([1, 0], "weight 0: the weights of a mixture are numbers above zero"),
        ([-0.5], "weight -0.5: the weights of a mixture are numbers above zero"),
        ([float("nan"), 1], "weight nan: the weights of a mixture are numbers above zero"),
        ([float("inf"), 1], "weight inf: the weights of a mixture are numbers above zero"),
    ],
)
def test_weights_that_cannot_be_shared(given_weights, message):
    with pytest.raises(ConfigError) as caught:
        share_slots(given_weights)
    assert str(caught.value) == message


@given(st.lists(sizes, min_size=1, max_size=3), st.integers(1, 6), seeds, st.integers(0, 2), st.data())
def test_a_super_block_has_the_next_rows_of_every_set(sets, virtual_readers, seed, super_block, data):
    given_weights = data.draw(st.lists(st.integers(1, 9), min_size=len(sets), max_size=len(sets)))
    order = MixtureOrder(sets, given_weights, virtual_readers, seed)
    first = super_block * SLOTS * virtual_readers
    places = [order.locate(number) for number in range(first, first + SLOTS * virtual_readers)]
    for index, group_sizes in enumerate(sets):
        count = share_slots(given_weights)[index] * virtual_readers
        own = SetOrder(group_sizes, virtual_readers, seed)
        expected = Counter(own.locate(super_block * count + number) for number in range(count))
        assert Counter(place[1:] for place in places if place.set == index) == expected


@given(sizes, readers, seeds, st.integers(0, 10**5))
def test_a_mixture_of_one_is_the_set(group_sizes, virtual_readers, seed, number):
    alone = SetOrder(group_sizes, virtual_readers, seed)
    assert MixtureOrder([group_sizes], [0.5], virtual_readers, seed).locate(number) == (0, *alone.locate(number))


@given(seeds)
def test_lanes_and_super_blocks_mix_in_their_own_ways(seed):
    order = MixtureOrder([[4] * 9, [5] * 9], [1, 1], 3, seed)
    turns = [
        tuple(order.locate((super_block * SLOTS + slot) * 3 + lane).set for slot in range(SLOTS))
        for super_block in range(2)
        for lane in range(3)
    ]
    assert len(set(turns)) == 6


@given(st.lists(sizes, min_size=2, max_size=3), st.integers(1, 4), seeds, st.data())
def test_a_lane_goes_through_its_sets_in_order(sets, virtual_readers, seed, data):
    """Row groups are opened one after another: within a lane, a set's own rows only go forward."""
    order = MixtureOrder(sets, [1] * len(sets), virtual_readers, seed)
    lane = data.draw(st.integers(0, virtual_readers - 1))
    own = [SetOrder(group_sizes, virtual_readers, seed) for group_sizes in sets]
    met = [0] * len(sets)
    for block in range(2 * SLOTS):
        place = order.locate(block * virtual_readers + lane)
        assert place[1:] == own[place.set].locate(met[place.set] * virtual_readers + lane)
        met[place.set] += 1
