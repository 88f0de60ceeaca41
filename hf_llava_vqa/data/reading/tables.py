"""Reading CSV and TSV files with a header: columns are found by name, mistakes are placed by line."""

import csv
import io
from collections.abc import Iterator, Sequence

from hf_llava_vqa.data.reading.files import read_text
from hf_llava_vqa.errors import RecordError, in_line

LONGEST_FIELD = 131_072
"""Characters allowed in a field of text: the parser's own default."""

Row = tuple[int, list[str]]
"""The line on which a row begins, counted from 1, and its fields."""


def read_table(
    file: str, columns: Sequence[str], *, delimiter: str = ",", longest_field: int = LONGEST_FIELD
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table whose header names at least `columns`, in any order and case.

    Args:
        delimiter, longest_field: as in `read_rows`.

    Yields:
        The line on which a row begins, and its fields by name: `columns` as they are spelled here, other columns as
        they are spelled in the file.

    Raises:
        RecordError: as `read_rows`; there is no row, or the header lacks a column or names one twice.
    """
    (_, header), *rows = read_rows(file, delimiter=delimiter, longest_field=longest_field)
    names = dict(enumerate(header)) | dict(zip(find_columns(header, columns, file), columns, strict=True))
    if not rows:
        raise RecordError(f"{file}: no rows under the header; download it again")
    for line, fields in rows:
        yield line, {names[number]: field for number, field in enumerate(fields)}


def read_rows(file: str, *, delimiter: str = ",", longest_field: int = LONGEST_FIELD) -> list[Row]:
    """Read all rows of a table, the header first. A byte order mark and empty lines are skipped.

    Args:
        delimiter: what stands between fields; a tab for TSV.
        longest_field: characters allowed in a field.

    Raises:
        RecordError: the file is missing, empty or not UTF-8; quotes are broken, or a row has more or fewer fields than
            the header. Names the line on which the row begins.
    """
    limit = csv.field_size_limit(longest_field)  # the parser's only way to be told
    try:
        rows = list(_parse(file, delimiter))
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise RecordError(f"{file}: an empty file; expected {_kind(delimiter)} with a header")
    width = len(rows[0][1])
    for line, fields in rows:
        if len(fields) != width:
            raise RecordError(
                f"{file}, line {line}: {len(fields)} fields under a header of {width}; quote fields that hold commas"
            )
    return rows


def find_columns(header: Sequence[str], columns: Sequence[str], file: str) -> list[int]:
    """Return where each of `columns` stands in a header, whatever its case.

    Raises:
        RecordError: a column is missing, or two have one name.
    """
    places: dict[str, int] = {}
    for number, name in enumerate(header):
        other = places.setdefault(name.strip().lower(), number)
        if other != number:
            raise RecordError(f"{file}, line 1: two columns are called {in_line(name.strip())}; rename or remove one")
    for column in columns:
        if column.lower() not in places:
            raise RecordError(
                f"{file}, line 1: no column {column}; expected {', '.join(columns)}, found {in_line(', '.join(header))}"
            )
    return [places[column.lower()] for column in columns]


def _parse(file: str, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(read_text(file), newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            broken = f"broken {_kind(delimiter)}: {error}"
            raise RecordError(f"{file}, line {line}: {broken}; repair or download it again") from error
        if fields:
            yield line, fields


def _kind(delimiter: str) -> str:
    return "TSV" if delimiter == "\t" else "CSV"
