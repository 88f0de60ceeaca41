"""Reading a set although images of it are missing: to look at it, or because a skip list leaves their records out.

Readers refuse a set with missing images. Within `keep_missing_images` they go on, with the path where an image should
lie; opening that is a `MissingImageError`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from hf_llava_vqa.archives import member_path
from hf_llava_vqa.data.reading.files import ImageStore

# Not an argument: it would pass through the signature of every reader, none of which does anything with it.
_kept: ContextVar[dict[str, str] | None] = ContextVar("kept", default=None)


@contextmanager
def keep_missing_images() -> Iterator[dict[str, str]]:
    """Let readers go on without images that are missing.

    Yields:
        A dictionary that they fill: the path where each missing image should lie -> file and row that ask for it.
    """
    kept: dict[str, str] = {}
    token = _kept.set(kept)
    try:
        yield kept
    finally:
        _kept.reset(token)


def place_of_missing(name: str, where: str, store: ImageStore) -> str | None:
    """The path where a missing image should lie, if it is kept; None if it is an error."""
    kept = _kept.get()
    if kept is None:
        return None
    path = os.path.join(store.place, name) if os.path.isdir(store.place) else member_path(store.place, name)
    kept[path] = where
    return path
