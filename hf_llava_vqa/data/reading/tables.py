"""Reading CSV files with a header: columns are found by name, mistakes are placed by line."""

import csv
import io
from collections.abc import Iterator, Sequence

from hf_llava_vqa.data.reading.files import read_text
from hf_llava_vqa.errors import RecordError, in_line

Row = tuple[int, list[str]]
"""The line on which a row begins, counted from 1, and its fields."""


def read_table(file: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a CSV file whose header names at least `columns`, in any order and case.

    Yields:
        The line on which a row begins, and its fields by name: `columns` as they are spelled here, other columns as
        they are spelled in the file.

    Raises:
        RecordError: as `read_rows`; there is no row, or the header lacks a column or names one twice.
    """
    (_, header), *rows = read_rows(file)
    names = dict(enumerate(header)) | dict(zip(find_columns(header, columns, file), columns, strict=True))
    if not rows:
        raise RecordError(f"{file}: no rows under the header; download it again")
    for line, fields in rows:
        yield line, {names[number]: field for number, field in enumerate(fields)}


def read_rows(file: str) -> list[Row]:
    """Read all rows of a CSV file, the header first. A byte order mark and empty lines are skipped.

    Raises:
        RecordError: the file is missing, empty or not UTF-8; quotes are broken, or a row has more or fewer fields than
            the header. Names the line on which the row begins.
    """
    rows = list(_parse(file))
    if not rows:
        raise RecordError(f"{file}: an empty file; expected CSV with a header")
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


def _parse(file: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise RecordError(f"{file}, line {line}: broken CSV: {error}; repair or download it again") from error
        if fields:
            yield line, fields
