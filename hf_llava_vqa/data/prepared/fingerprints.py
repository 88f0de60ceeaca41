"""What tells one set of records from another: a hash of its values, or of the hashes that a manifest lists."""

import hashlib
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

BATCH_ROWS = 10_000


def table_fingerprint(batches: Iterable[pa.Table]) -> str:
    """SHA-256 over the values of a table that comes in batches of `BATCH_ROWS` rows, the last one shorter.

    It depends on the names and types of the columns and on the values, not on how Arrow holds them.
    """
    digest = hashlib.sha256()
    for batch in batches:
        for name in batch.column_names:
            column = batch[name].combine_chunks()
            digest.update(f"{name}: {column.type}, {len(column)} rows\n".encode())
            _update(digest, column)
    return digest.hexdigest()


def combined_fingerprint(parts: Sequence[object]) -> str:
    """SHA-256 over what several parts say of themselves: numbers, strings and tuples of them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _update(digest: "hashlib._Hash", values: pa.Array) -> None:
    """Hash the leaves of nested values column by column, which is much faster than row by row."""
    if pa.types.is_struct(values.type):
        digest.update(repr(values.is_valid().to_pylist()).encode())
        for child in values.flatten():
            _update(digest, child)
    elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        digest.update(repr(pc.list_value_length(values).to_pylist()).encode())
        _update(digest, values.flatten())
    else:
        digest.update(repr(values.to_pylist()).encode())
