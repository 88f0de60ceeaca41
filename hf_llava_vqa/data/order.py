"""Where row i of a training run is: pure integers, no files.

A run is endless. It walks a set pass after pass, and row i of it depends on the sets, the seed and i only: neither on
how many processes and loader workers share the work nor on where a run was resumed. So i is all there is to remember.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from math import floor
from typing import NamedTuple

from hf_llava_vqa.errors import ConfigError

SLOTS = 100
"""Blocks of a super-block, in which a mixture's proportions are exact: weights count in per cent."""


class Place(NamedTuple):
    """A row: which set of the mixture, which pass over it, which row group, which row of the group."""

    set: int
    epoch: int
    group: int
    row: int


class SetOrder:
    """The endless run over one set of N rows, which lie in row groups.

    Each pass puts the groups in an order of its own and lays their rows end to end. These N positions are cut into as
    many spans of equal length (the first N mod V are one longer) as there are virtual readers, and row o of the pass
    is the next one of reader o mod V. So neighbours in a batch come from V places of the set, each reader opens one
    group at a time, and nothing is drawn from a buffer.

    Args:
        group_sizes: rows of each row group.
        virtual_readers: V.
    """

    def __init__(self, group_sizes: Sequence[int], virtual_readers: int, seed: int) -> None:
        self.rows = sum(group_sizes)
        self._sizes = group_sizes
        self._readers = virtual_readers
        self._seed = seed
        self._passes: dict[int, tuple[list[int], list[int]]] = {}

    def locate(self, number: int) -> tuple[int, int, int]:
        """Return pass, row group and row within the group of row `number` of the run."""
        epoch, offset = divmod(number, self.rows)
        turn, reader = divmod(offset, self._readers)
        length, longer = divmod(self.rows, self._readers)
        position = reader * length + min(reader, longer) + turn
        groups, ends = self._order(epoch)
        index = bisect_right(ends, position)
        return epoch, groups[index], position - (ends[index - 1] if index else 0)

    def _order(self, epoch: int) -> tuple[list[int], list[int]]:
        """The row groups in the order of a pass, and the position at which each ends."""
        if epoch not in self._passes:
            groups = _shuffled(len(self._sizes), f"{self._seed}/{epoch}")
            if len(self._passes) > 1:  # where passes meet, rows of both are asked for in turns
                del self._passes[min(self._passes)]
            self._passes[epoch] = groups, list(accumulate(self._sizes[group] for group in groups))
        return self._passes[epoch]


class MixtureOrder:
    """The endless run over several sets at once, each in its own order and as often as its weight says.

    The run is made of super-blocks of `SLOTS` blocks of V rows. Lane l, the rows i with i mod V = l, gives each set
    its share of the slots of a super-block, in an order of its own: over a super-block the proportions are exact. The
    rows a set has in a super-block are the next ones of its own run.

    Args:
        sets: for each set the rows of its row groups.
        weights: of the sets; they need not add up to one.
        virtual_readers: V, the same for all sets.
    """

    def __init__(
        self, sets: Sequence[Sequence[int]], weights: Sequence[float], virtual_readers: int, seed: int
    ) -> None:
        self.slots = share_slots(weights)
        self._orders = [SetOrder(group_sizes, virtual_readers, seed) for group_sizes in sets]
        self._readers = virtual_readers
        self._seed = seed
        self._lanes: dict[int, tuple[int, list[tuple[int, int]]]] = {}

    def locate(self, number: int) -> Place:
        """Return where row `number` of the run is."""
        block, lane = divmod(number, self._readers)
        super_block, slot = divmod(block, SLOTS)
        index, earlier = self._turns(super_block, lane)[slot]
        own_block = super_block * self.slots[index] + earlier
        return Place(index, *self._orders[index].locate(own_block * self._readers + lane))

    def _turns(self, super_block: int, lane: int) -> list[tuple[int, int]]:
        """For each slot of a lane its set, and how many earlier slots of the super-block are of the same set."""
        known = self._lanes.get(lane)
        if known is None or known[0] != super_block:
            known = self._lanes[lane] = super_block, self._deal(super_block, lane)
        return known[1]

    def _deal(self, super_block: int, lane: int) -> list[tuple[int, int]]:
        owners = [index for index, count in enumerate(self.slots) for _ in range(count)]
        if len(self.slots) > 1:
            owners = [owners[slot] for slot in _shuffled(SLOTS, f"{self._seed}/{super_block}/{lane}")]
        dealt = [0] * len(self.slots)
        turns = []
        for owner in owners:
            turns.append((owner, dealt[owner]))
            dealt[owner] += 1
        return turns


def share_slots(weights: Sequence[float]) -> list[int]:
    """Share `SLOTS` by weight: by the largest remainders, and at least one for each.

    Raises:
        ConfigError: no weights or too many, or one that is not above zero.
    """
    if not 0 < len(weights) <= SLOTS:
        raise ConfigError(f"{len(weights)} weights: a mixture takes 1 to {SLOTS} sets")
    for weight in weights:
        if not 0 < weight < float("inf"):
            raise ConfigError(f"weight {weight}: the weights of a mixture are numbers above zero")
    total = sum(map(Fraction, weights))
    exact = [SLOTS * Fraction(weight) / total for weight in weights]
    shares = [max(1, floor(share)) for share in exact]
    lacking = [share - given for share, given in zip(exact, shares, strict=True)]
    while sum(shares) != SLOTS:
        step = 1 if sum(shares) < SLOTS else -1
        candidates = [index for index, share in enumerate(shares) if step > 0 or share > 1]
        index = max(candidates, key=lambda index: step * lacking[index])
        shares[index] += step
        lacking[index] -= step
    return shares


def worker_rows(
    *, start: int, stop: int, batch_size: int, rank: int, world_size: int, worker: int, workers: int
) -> Iterator[int]:
    """Yield the numbers of the rows start <= i < stop that one loader worker of one rank reads, in its order.

    Row i belongs to rank i mod `world_size`. A rank's rows form its micro-batches in their order, and its loader asks
    its workers for them in turns, beginning with worker 0 at `start`.

    Args:
        start, stop: multiples of `batch_size * world_size`.
        batch_size: rows of a micro-batch on one rank.
    """
    together = batch_size * world_size  # the rows of one micro-batch on all ranks
    for first in range(start + worker * together, stop, workers * together):
        yield from range(first + rank, first + together, world_size)


def _shuffled(count: int, key: str) -> list[int]:
    """The numbers below `count` in an order that depends on `key` only, not on the version of a random generator."""
    return sorted(range(count), key=lambda number: hashlib.sha256(f"{key}/{number}".encode()).digest())
