"""Checking what a metric is given. Every function returns a list and changes nothing; a `ValueError` names the place
and what was expected there. No rules of any scorer.
"""

from collections.abc import Collection, Iterable
from numbers import Real
from typing import Any


def as_list(values: Any, place: str) -> list[Any]:
    """Return the entries of any iterable but a string or a mapping; there must be at least one."""
    if not isinstance(values, list):
        if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
            raise ValueError(f"{place}: expected a list, got {values!r:.60}")
        values = list(values)
    if not values:
        raise ValueError(f"{place}: expected at least one entry, got an empty list")
    return values


def as_strings(values: Any, place: str, expected: str = "a string") -> list[str]:
    """Return a list of strings."""
    texts = as_list(values, place)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{place}[{row}]: expected {expected}, got {text!r:.60}")
    return texts


def as_labels(values: Any, place: str, allowed: Collection[str]) -> list[str]:
    """Return a list of strings, each one of `allowed`."""
    labels = as_strings(values, place)
    for row, label in enumerate(labels):
        if label not in allowed:
            raise ValueError(f"{place}[{row}]: expected one of {', '.join(allowed)}, got {label!r:.60}")
    return labels


def as_fractions(values: Any, place: str) -> list[float]:
    """Return a list of numbers from 0 to 1."""
    numbers = as_list(values, place)
    for row, number in enumerate(numbers):
        if not (isinstance(number, Real) and 0 <= float(number) <= 1):
            raise ValueError(f"{place}[{row}]: expected a number from 0 to 1, got {number!r:.60}")
    return [float(number) for number in numbers]


def as_ids(values: Any, place: str) -> list[str]:
    """Return a list of strings in which none occurs twice; whole numbers are taken as strings."""
    ids = [str(value) if type(value) is int else value for value in as_list(values, place)]
    first_row: dict[str, int] = {}
    for row, id in enumerate(as_strings(ids, place, expected="a string or a whole number")):
        if id in first_row:
            raise ValueError(f"{place}[{row}]: expected ids that differ, got {id!r:.60} as at {first_row[id]}")
        first_row[id] = row
    return ids


def check_lengths(**lists: Collection[Any]) -> None:
    """Raise unless all lists, given under their names, are as long as the first."""
    (first, expected), *others = ((name, len(values)) for name, values in lists.items())
    for name, found in others:
        if found != expected:
            raise ValueError(f"expected as many {name} as {first}, got {found} for {expected}")
