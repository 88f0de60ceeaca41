"""Sets of records that are read a row group at a time: from Parquet shards, or from a table in memory."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from hf_llava_vqa.data.prepared.fingerprints import BATCH_ROWS, table_fingerprint
from hf_llava_vqa.data.prepared.folders import HUB_ERRORS, first_line, is_on_hub, open_on_hub
from hf_llava_vqa.errors import RecordError

VIRTUAL_READERS = 64
"""How many readers a stream is dealt to; ranks times rows of a micro-batch times loader workers should divide it."""

ROW_GROUP_SIZE = 16
"""Rows of a row group, the last one of a shard excepted. A stream holds one group for each of its readers."""

_FOOTERS = 32  # half a megabyte each: what a process keeps, however many shards there are
_FOOTER_BYTES = 1 << 16  # more than a usual footer

ReadGroup = Callable[[int], pa.Table]


class RowGroups(Protocol):
    """A set in row groups. It travels to loader workers; what is opened there belongs to the reader it returns."""

    @property
    def sizes(self) -> Sequence[int]:
        """Rows of each group."""

    @property
    def virtual_readers(self) -> int:
        """How many readers a stream of the set is dealt to."""

    @property
    def fingerprint(self) -> str:
        """The same for the same records wherever they lie, in 64 hexadecimal digits."""

    def reader(self) -> ReadGroup:
        """Return a function that reads a group by its number."""


@dataclass(frozen=True)
class Shard:
    """A Parquet file: where it is and how many rows and bytes it has."""

    file: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class ParquetGroups:
    """The row groups of a prepared set's split, known from its manifest without opening a shard."""

    shards: tuple[Shard, ...]
    row_group_size: int
    virtual_readers: int
    fingerprint: str

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each group: all of `row_group_size`, but for the last one of a shard."""
        return [
            min(self.row_group_size, shard.rows - first)
            for shard in self.shards
            for first in range(0, shard.rows, self.row_group_size)
        ]

    def reader(self) -> ReadGroup:
        """Return a function that reads a group from its shard. It keeps no file open.

        Raises (the function):
            RecordError: a shard whose row groups are not those of the manifest, or that cannot be read.
        """
        counts = [-(-shard.rows // self.row_group_size) for shard in self.shards]
        ends = list(accumulate(counts))
        footer_of = lru_cache(_FOOTERS)(self._footer)

        def read(group: int) -> pa.Table:
            index = bisect_right(ends, group)
            return _read_group(self.shards[index], footer_of(index), group - ends[index] + counts[index])

        return read

    def _footer(self, index: int) -> pq.FileMetaData:
        shard = self.shards[index]
        with _opened(shard, ahead=_FOOTER_BYTES) as source:
            footer = pq.read_metadata(source)
        sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        full, rest = divmod(shard.rows, self.row_group_size)
        if sizes != [self.row_group_size] * full + [rest] * (rest > 0):
            raise RecordError(
                f"{shard.file}: its row groups are not those the manifest says, {shard.rows} rows in groups of "
                f"{self.row_group_size}; prepare the set again with scripts/prepare_data.py"
            )
        return footer


def _read_group(shard: Shard, footer: pq.FileMetaData, group: int) -> pa.Table:
    columns = footer.row_group(group)
    # A group lies in one piece: the first read of it asks for all.
    length = sum(columns.column(index).total_compressed_size for index in range(columns.num_columns))
    # No threads: Arrow's own can abort the process at exit when a stream is left early (apache/arrow#45214).
    with _opened(shard, ahead=length) as source, pq.ParquetFile(source, metadata=footer, pre_buffer=False) as file:
        return file.read_row_group(group, use_threads=False)


@contextmanager
def _opened(shard: Shard, *, ahead: int) -> Iterator[str | BinaryIO]:
    """What pyarrow opens. Raises RecordError for whatever goes wrong with it."""
    try:
        if is_on_hub(shard.file):
            with open_on_hub(shard.file, size=shard.bytes, ahead=ahead) as source:
                yield source
        else:
            yield shard.file
    except (*HUB_ERRORS, pa.ArrowException) as error:
        raise RecordError(f"{shard.file}: cannot be read: {first_line(error)}") from error


@dataclass(frozen=True)
class TableGroups:
    """A table of records in memory, with its images as they were: bytes or the paths of files."""

    table: pa.Table
    row_group_size: int = ROW_GROUP_SIZE
    virtual_readers: int = VIRTUAL_READERS

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each group."""
        rows = self.table.num_rows
        return [min(self.row_group_size, rows - first) for first in range(0, rows, self.row_group_size)]

    @cached_property
    def fingerprint(self) -> str:
        """Over all columns but the images, whose paths say where the files lie."""
        table = self.table.drop_columns("images")
        batches = (table.slice(first, BATCH_ROWS) for first in range(0, table.num_rows, BATCH_ROWS))
        return table_fingerprint(batches)

    def reader(self) -> ReadGroup:
        """Return a function that takes a group out of the table."""
        return lambda group: self.table.slice(group * self.row_group_size, self.row_group_size)
