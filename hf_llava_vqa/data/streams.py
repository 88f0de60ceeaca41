"""Streams of records: a set row by row, mixtures of sets, and the exact order in which a training run reads them.

Which row comes when is decided in `data.order`; this file reads the row groups that hold the rows and no others, so
a run that goes on at row i neither reads nor decodes what came before it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol

import pyarrow as pa
import torch
from datasets import Dataset, DatasetInfo, Features, Image, IterableDataset, List, NamedSplit, Value
from datasets.iterable_dataset import ExamplesIterable
from torch.utils.data import DataLoader

from hf_llava_vqa.data.order import MixtureOrder, share_slots, worker_rows
from hf_llava_vqa.data.prepared.fingerprints import BATCH_ROWS, combined_fingerprint, table_fingerprint
from hf_llava_vqa.data.prepared.row_groups import RowGroups
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.records import UNDECODED_FEATURES

Row = dict[str, Any]
KeyedRow = tuple[int, Row]  # as `datasets` wants them


class _ArrowRows(ExamplesIterable):
    """Rows as Arrow gave them, of the features' types already: `datasets` would spend more time on casting each row
    than reading it takes."""

    is_typed = True

    def __init__(self, generate: Callable[..., Iterator[KeyedRow]], kwargs: dict[str, Any], features: Features) -> None:
        super().__init__(generate, kwargs)
        self._features = features

    @property
    def features(self) -> Features:
        return self._features


class RecordStream(IterableDataset):
    """Records of one or more sets; what `load_records(..., streaming=True)` and `mix_streams` return.

    Iterating it walks the sets once, one after another, in their stored order. Training walks them in an order of its
    own, endlessly and by weight, see `training_stream`.

    Args:
        sets: with the same number of virtual readers.
        weights: how often each set is read in training, in per cent of their sum.
    """

    def __init__(self, sets: Sequence[RowGroups], weights: Sequence[float] = (1.0,), split: str | None = None) -> None:
        self.sets = tuple(sets)
        self.weights = tuple(weights)
        parts = [(index, part) for index, groups in enumerate(sets) for part in _parts(groups)]
        super().__init__(
            _ArrowRows(_stored_rows, {"sets": self.sets, "parts": parts}, UNDECODED_FEATURES),
            info=DatasetInfo(features=UNDECODED_FEATURES),
            split=None if split is None else NamedSplit(split),
        )

    @property
    def num_rows(self) -> int:
        """Rows of all sets together: of one pass."""
        return sum(sum(groups.sizes) for groups in self.sets)

    @property
    def fingerprint(self) -> str:
        """The same for the same sets and weights, wherever they lie, in 64 hexadecimal digits."""
        shares = share_slots(self.weights)
        return combined_fingerprint(
            [
                (groups.fingerprint, groups.virtual_readers, share)
                for groups, share in zip(self.sets, shares, strict=True)
            ]
        )


def _parts(groups: RowGroups) -> Iterator[range]:
    """Cut a set into ranges of row groups, which workers of a plain loader share."""
    total = len(groups.sizes)
    parts = min(total, groups.virtual_readers)
    for part in range(parts):
        yield range(part * total // parts, (part + 1) * total // parts)


def _stored_rows(sets: Sequence[RowGroups], parts: list[tuple[int, range]]) -> Iterator[KeyedRow]:
    number = count()
    for index, part in parts:
        read = sets[index].reader()
        for table in map(read, part):
            for row in range(table.num_rows):
                yield next(number), _row(table, row)


def _row(table: pa.Table, row: int) -> Row:
    # One at a time: the group's images stay in Arrow's memory, and only those in use are copied.
    return table.slice(row, 1).to_pylist()[0]


def mix_streams(streams: Sequence[RecordStream], weights: Sequence[float]) -> RecordStream:
    """Mix streams so that training reads each as often as its weight says, however large it is.

    Weights count in per cent of their sum, at least one each. In 100 blocks of as many rows as there are virtual
    readers the shares are exact; a set that is through begins its next pass while others are in their first.

    Raises:
        ConfigError: weights that are not above zero or not one for each stream, sets with different numbers of virtual
            readers, or something else than the streams of `load_records`.
    """
    if len(weights) != len(streams):
        raise ConfigError(f"a mixture needs one weight for each stream: {len(streams)} streams, {len(weights)} weights")
    share_slots(weights)
    for stream in streams:
        if not isinstance(stream, RecordStream):
            raise ConfigError(
                f"a mixture takes streams of load_records(..., streaming=True), not {type(stream).__name__}"
            )
    sets = [groups for stream in streams for groups in stream.sets]
    readers = sorted({groups.virtual_readers for groups in sets})
    if len(readers) > 1:
        raise ConfigError(
            f"sets with {' and '.join(map(str, readers))} virtual readers cannot be mixed; prepare them with one number"
        )
    inner = [
        weight * part / sum(stream.weights)
        for stream, weight in zip(streams, weights, strict=True)
        for part in stream.weights
    ]
    return RecordStream(sets, inner)


class _TrainingStream(IterableDataset):
    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the rows know their passes, and `datasets` would deal the parts to other workers."""


def training_stream(
    stream: IterableDataset,
    *,
    seed: int,
    batch_size: int,
    rank: int,
    world_size: int,
    workers: int,
    start: int,
    stop: int,
) -> IterableDataset:
    """The rows start <= i < stop of a training run that one rank reads, dealt to its loader's workers.

    Each row has a field more, `epoch`: the pass over its set that it belongs to, from 0. A `RecordStream` is read in
    the order of `data.order`, which opens only the row groups that hold these rows. Any other stream is read in the
    order it gives, pass after pass, by every worker in full, and rows before `start` are skipped one by one: the time
    to resume grows with `start`. Images are left undecoded, if the stream's features say where they are.

    Args:
        seed: of the order of a `RecordStream`.
        batch_size: rows of a micro-batch on one rank.
        workers: of the loader; 0 for reading in the process itself.
        start, stop: row numbers over all ranks; multiples of `batch_size * world_size`.

    Raises:
        ValueError: a row number that is no such multiple.
        RecordError (when read): another stream without any rows.
    """
    together = batch_size * world_size
    if start % together or stop % together:
        raise ValueError(f"rows {start} to {stop} do not consist of batches of {batch_size} rows on {world_size} ranks")
    numbers = partial(
        worker_rows,
        start=start,
        stop=stop,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        workers=max(1, workers),
    )
    # `datasets` gives each worker one element of the list.
    share = {"numbers": numbers, "workers": list(range(max(1, workers)))}
    if isinstance(stream, RecordStream):
        features = Features({**stream.features, "epoch": Value("int32")})
        ordered = {"sets": stream.sets, "weights": stream.weights, "seed": seed}
        return _TrainingStream(
            _ArrowRows(_ordered_rows, ordered | share, features), info=DatasetInfo(features=features)
        )
    stream = _undecoded(stream)
    features = stream.features and Features({**stream.features, "epoch": Value("int32")})
    rows = ExamplesIterable(_rows_as_given, {"stream": stream, **share})
    return _TrainingStream(rows, info=DatasetInfo(features=features))


class _Numbers(Protocol):
    def __call__(self, *, worker: int) -> Iterator[int]: ...


def _ordered_rows(
    sets: Sequence[RowGroups], weights: Sequence[float], seed: int, numbers: _Numbers, workers: list[int]
) -> Iterator[KeyedRow]:
    lanes = sets[0].virtual_readers
    order = MixtureOrder([groups.sizes for groups in sets], weights, lanes, seed)
    readers = [groups.reader() for groups in sets]
    open_groups: dict[tuple[int, int], tuple[int, pa.Table]] = {}
    for worker in workers:
        for number in numbers(worker=worker):
            index, epoch, group, row = order.locate(number)
            lane = index, number % lanes
            if lane not in open_groups or open_groups[lane][0] != group:
                open_groups[lane] = group, readers[index](group)
            yield number, {**_row(open_groups[lane][1], row), "epoch": epoch}


def _rows_as_given(stream: IterableDataset, numbers: _Numbers, workers: list[int]) -> Iterator[KeyedRow]:
    for worker in workers:
        rows = enumerate(_passes(stream))
        for number in numbers(worker=worker):
            yield number, next(row for position, row in rows if position == number)


def _passes(stream: IterableDataset) -> Iterator[Row]:
    for epoch in count():
        # By `iter` and not in a loop: in a loader's worker, a loop gives only the worker's share of the rows.
        batches = stream.iter(batch_size=1)
        first = next(batches, None)
        if first is None:
            raise RecordError("the training stream has no rows; check its filters and its split")
        yield _only_row(first, epoch)
        for batch in batches:
            yield _only_row(batch, epoch)


def _only_row(batch: dict[str, Sequence[Any]], epoch: int) -> Row:
    return {**{name: values[0] for name, values in batch.items()}, "epoch": epoch}


def _undecoded(stream: IterableDataset) -> IterableDataset:
    for name, feature in (stream.features or {}).items():
        if isinstance(feature, Image):
            stream = stream.cast_column(name, Image(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            stream = stream.cast_column(name, List(Image(decode=False)))
    return stream


class StreamLoader(DataLoader):
    """Batches of one rank's share of a training stream, from row `start` on.

    Its length is counted from the beginning of the run: `stop // (batch_size * world_size)` micro-batches, of which
    those before `start` are not loaded. It draws nothing from the global random generator.

    Args:
        stream, batch_size, workers, rank, world_size, seed, start, stop: as in `training_stream`.
        collate_fn: makes a batch of a list of rows.
        **loader_kwargs: for `DataLoader`.
    """

    def __init__(
        self,
        stream: IterableDataset,
        *,
        collate_fn: Any,
        batch_size: int,
        workers: int,
        rank: int,
        world_size: int,
        seed: int,
        start: int,
        stop: int,
        **loader_kwargs: Any,
    ) -> None:
        rows = training_stream(
            stream,
            seed=seed,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            workers=workers,
            start=start,
            stop=stop,
        )
        self._length = stop // (batch_size * world_size)
        super().__init__(
            rows,
            batch_size=batch_size,
            collate_fn=collate_fn,
            num_workers=workers,
            generator=torch.Generator().manual_seed(seed),
            **loader_kwargs,
        )

    def __len__(self) -> int:
        return self._length


def fingerprint(dataset: Dataset | IterableDataset) -> str | None:
    """Return what tells a training set from others, in 64 hexadecimal digits; None for a stream that is not ours.

    A data set is hashed over all columns but those with images, so that it does not matter where the files lie. Of a
    prepared set its manifest says what is in it.
    """
    if isinstance(dataset, RecordStream):
        return dataset.fingerprint
    if isinstance(dataset, IterableDataset):
        return None
    columns = [name for name, feature in dataset.features.items() if not _holds_images(feature)]
    return table_fingerprint(dataset.select_columns(columns).with_format("arrow").iter(batch_size=BATCH_ROWS))


def _holds_images(feature: Any) -> bool:
    return isinstance(feature, Image) or (isinstance(feature, List) and isinstance(feature.feature, Image))
