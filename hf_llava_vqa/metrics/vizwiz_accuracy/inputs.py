"""Checking what a metric is given. Every function returns a list and changes nothing; a `ValueError` names the place
and what was expected there. No rules of any scorer.
"""

from collections.abc import Collection, Iterable
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
    if not all_strings(texts):
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"{place}[{row}]: expected {expected}, got {text!r:.60}")
    return texts


def all_strings(values: list[Any]) -> bool:
    """Return whether all are plain strings: a quick look before a slow one, for lists of millions."""
    return set(map(type, values)) == {str}


def as_labels(values: Any, place: str, allowed: Collection[str]) -> list[str]:
    """Return a list of strings, each one of `allowed`."""
    labels = as_strings(values, place)
    for row, label in enumerate(labels):
        if label not in allowed:
            raise ValueError(f"{place}[{row}]: expected one of {', '.join(allowed)}, got {label!r:.60}")
    return labels


def check_lengths(**lists: Collection[Any]) -> None:
    """Raise unless all lists, given under their names, are as long as the first."""
    (first, expected), *others = ((name, len(values)) for name, values in lists.items())
    for name, found in others:
        if found != expected:
            raise ValueError(f"expected as many {name} as {first}, got {found} for {expected}")
