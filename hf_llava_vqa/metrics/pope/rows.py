"""Rows of a metric: reading them, with every mistake named by its place; pairing them by id; averaging them.

A reader takes a value and its place and returns the plain value, or raises `ValueError`. Nothing in here knows a
benchmark.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

Reader = Callable[[Any, str], Any]
Row = dict[str, Any]


def expected(what: str, value: Any, place: str) -> ValueError:
    """Return the error that a place holds something else than it should."""
    return ValueError(f"{place}: expected {what}, got {value!r:.60}")


def text(value: Any, place: str) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise expected("a string", value, place)
    return value


def integer(value: Any, place: str) -> int:
    """Read a whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise expected("an integer", value, place)
    return int(value)


def number(value: Any, place: str) -> float:
    """Read a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise expected("a finite number", value, place)
    return float(value)


def flag(value: Any, place: str) -> bool:
    """Read a truth value."""
    if not isinstance(value, bool):
        raise expected("True or False", value, place)
    return value


def identifier(value: Any, place: str) -> str:
    """Read an id: a string, or an integer, which becomes one."""
    if isinstance(value, bool) or not isinstance(value, str | Integral):
        raise expected("a string or an integer", value, place)
    return str(value)


def one_of(*allowed: str) -> Reader:
    """Return a reader of these strings only."""

    def read(value: Any, place: str) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise expected(" or ".join(map(repr, allowed)), value, place)
        return value

    return read


def list_of(read: Reader, at_least: int = 0) -> Reader:
    """Return a reader of lists (tuples, arrays, columns) of what `read` reads."""

    def read_list(values: Any, place: str) -> list[Any]:
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise expected("a list", values, place)
        items = [read(value, f"{place}[{index}]") for index, value in enumerate(values)]
        if len(items) < at_least:
            raise ValueError(f"{place}: expected {at_least} or more entries, got {len(items)}")
        return items

    return read_list


def row_of(required: Mapping[str, Reader], optional: Mapping[str, Reader]) -> Reader:
    """Return a reader of dicts with these fields and an optional `id`.

    The plain row has every field, None for one that is not given; other fields are left out. Where one field is
    required, its bare value stands for the row.
    """
    optional = {"id": identifier, **optional}

    def read(value: Any, place: str) -> Row:
        if not isinstance(value, Mapping):
            if len(required) > 1:
                raise expected(f"a dict with {', '.join(required)}", value, place)
            value = dict.fromkeys(required, value)
        missing = [name for name in required if value.get(name) is None]
        if missing:
            raise ValueError(f"{place}: expected a value under {missing[0]!r}, got {dict(value)!r:.60}")
        readers = {**required, **optional}
        present = {name: read(value[name], f"{place}.{name}") for name, read in readers.items() if _given(value, name)}
        return {name: present.get(name) for name in readers}

    return read


def _given(row: Mapping[str, Any], name: str) -> bool:
    return row.get(name) is not None


def named(table: Mapping[str, Any], name: Any, kind: str) -> Any:
    """Return the entry of a table by its name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"no {kind} named {name!r:.60}; there is: {', '.join(table)}")
    return table[name]


def pair(
    predictions: Any, references: Any, read_reference: Reader, read_prediction: Reader = text
) -> tuple[list[Any], list[Row]]:
    """Return the predictions, in the references' order, and the references as plain rows.

    Args:
        predictions: what `read_prediction` reads, in the references' order; or dicts `{"id", "prediction"}` in any
            order, which are paired by id.
        references: what `read_reference`, a reader of rows, reads.

    Raises:
        ValueError: an entry has another form, the lists are empty or differ in length, an id occurs twice or has
            no counterpart; the message names the place.
    """
    rows = list_of(read_reference, at_least=1)(references, "references")
    place_of = _places([row["id"] for row in rows], "references")
    given = list_of(lambda value, place: value, at_least=1)(predictions, "predictions")
    if len(given) != len(rows):
        raise ValueError(f"expected one prediction for each reference, got {len(given)} for {len(rows)}")
    if isinstance(given[0], Mapping):
        given, places = _in_order(given, place_of, rows)
    else:
        places = [f"predictions[{index}]" for index in range(len(given))]
    return [read_prediction(value, place) for value, place in zip(given, places, strict=True)], rows


def _in_order(given: Sequence[Any], place_of: Mapping[str, int], rows: Sequence[Row]) -> tuple[list[Any], list[str]]:
    """Return the predictions of dicts with ids in the references' order, and where each stood."""
    ids = [_prediction_id(value, f"predictions[{index}]") for index, value in enumerate(given)]
    place = _places(ids, "predictions")
    for index, name in enumerate(ids):
        if name not in place_of:
            raise ValueError(f"predictions[{index}]: no reference has the id {name!r}")
    order = [place[row["id"]] for row in rows]
    return [given[index].get("prediction") for index in order], [f"predictions[{index}].prediction" for index in order]


def _prediction_id(value: Any, place: str) -> str:
    if not isinstance(value, Mapping) or not _given(value, "id"):
        raise expected("a dict with id and prediction", value, place)
    return identifier(value["id"], f"{place}.id")


def _places(ids: Sequence[str | None], name: str) -> dict[str, int]:
    """Return the index of each id; ids that are not given are left out."""
    places: dict[str, int] = {}
    for index, row_id in enumerate(ids):
        if row_id is None:
            continue
        if row_id in places:
            raise ValueError(f"{name}[{index}]: the id {row_id!r} is that of {name}[{places[row_id]}] too")
        places[row_id] = index
    return places


def mean(values: Sequence[float]) -> float:
    """Return the average of at least one number."""
    return math.fsum(values) / len(values)


def mean_by(values: Sequence[float], labels: Sequence[Any]) -> dict[Any, float]:
    """Return the average for each label, sorted by label; values labelled None are left out."""
    groups: defaultdict[Any, list[float]] = defaultdict(list)
    for value, label in zip(values, labels, strict=True):
        if label is not None:
            groups[label].append(value)
    return {label: mean(groups[label]) for label in sorted(groups)}
