"""The pictures of a set: every file read, hashed and decoded, by several processes."""

import hashlib
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_llava_vqa.errors import ImageError, MissingImageError, OversizedImageError
from hf_llava_vqa.images import open_with_header, read_image_bytes
from hf_llava_vqa.records import Record
from hf_llava_vqa.reports.inspection.numbers import distribution

PROBLEMS = ("missing", "corrupt", "oversized")
TINY = 32  # pixels: a picture whose shorter side is below has next to nothing to see
_AHEAD = 4  # pictures a process that are read and not yet asked for


@dataclass(frozen=True)
class Picture:
    """What became of one picture of a record. Sizes are of the upright picture."""

    image_id: str
    path: str = ""  # "" if it has no file of its own
    problem: str = ""  # one of `PROBLEMS`, "" if it opens
    reason: str = ""
    sha256: str = ""  # of the file; "" if that cannot be read
    bytes: int = 0
    format: str = ""
    width: int = 0
    height: int = 0
    turned: bool = False  # upright only because EXIF says how


def check_pictures(records: Iterable[Record], *, workers: int) -> Iterator[Picture]:
    """Read and decode the pictures of records, in order, a few ahead of what is asked for.

    Args:
        workers: processes that do it; with one, it is this process.

    Raises:
        ImageError: a process died over a picture.
    """
    tasks = ((record["image_id"], image) for record in records for image in record["images"])
    if workers == 1:
        yield from (check_picture(*task) for task in tasks)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from _in_order(pool, check_picture, tasks, ahead=_AHEAD * workers)


def _in_order(
    pool: ProcessPoolExecutor, check: Callable[..., Picture], tasks: Iterable[tuple[str, Any]], ahead: int
) -> Iterator[Picture]:
    pending: deque[tuple[str, Future[Picture]]] = deque()
    for task in tasks:
        pending.append((task[0], _submit(pool, check, task)))
        if len(pending) > ahead:
            yield _result(*pending.popleft())
    while pending:
        yield _result(*pending.popleft())


def _submit(pool: ProcessPoolExecutor, check: Callable[..., Picture], task: tuple[str, Any]) -> Future[Picture]:
    try:
        return pool.submit(check, *task)
    except BrokenProcessPool as error:
        broken: Future[Picture] = Future()  # those before it name the picture
        broken.set_exception(error)
        return broken


def _result(image_id: str, picture: Future[Picture]) -> Picture:
    try:
        return picture.result()
    except BrokenProcessPool as error:
        raise ImageError(
            f"a process died while it decoded {image_id} or one of the pictures after it; look for a picture that "
            "takes too much memory, or use fewer --workers"
        ) from error


def check_picture(image_id: str, image: Any) -> Picture:
    """Read, hash and decode one picture. `image` is a path, or `{"bytes", "path"}`, or a PIL image."""
    path = image.get("path") if isinstance(image, dict) else image
    picture = Picture(image_id, str(path) if isinstance(path, str | Path) else "")
    try:
        data = read_image_bytes(image)
        picture = replace(picture, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow: what matters is an error, and stands in the report
            decoded, header = open_with_header({"bytes": data, "path": path})
    except ImageError as error:
        return replace(picture, problem=_problem(error), reason=str(error))
    return replace(picture, format=header.format, width=decoded.width, height=decoded.height, turned=header.turned)


def _problem(error: ImageError) -> str:
    if isinstance(error, MissingImageError):
        return "missing"
    return "oversized" if isinstance(error, OversizedImageError) else "corrupt"


def picture_findings(pictures: Sequence[Picture]) -> dict[str, Any]:
    """What a split's pictures are like, as `pictures` of the report."""
    good = [picture for picture in pictures if not picture.problem]
    bad = [picture for picture in pictures if picture.problem]
    return {
        "count": len(pictures),
        "bytes": sum(picture.bytes for picture in pictures),
        "formats": dict(Counter(picture.format for picture in good).most_common()),
        "bad": [
            {"image_id": picture.image_id, "path": picture.path, "problem": picture.problem, "reason": picture.reason}
            for picture in bad
        ],
        "turned": _ids(picture for picture in good if picture.turned),
        "tiny": _ids(picture for picture in good if min(picture.width, picture.height) < TINY),
        "duplicates": [ids for ids in by_hash(pictures).values() if len(ids) > 1],
        "width": distribution([picture.width for picture in good]),
        "height": distribution([picture.height for picture in good]),
        "aspect": distribution([picture.width / picture.height for picture in good]),
    }


def _ids(pictures: Iterable[Picture]) -> list[str]:
    return list(dict.fromkeys(picture.image_id for picture in pictures))


def by_hash(pictures: Iterable[Picture]) -> dict[str, list[str]]:
    """The records that hold each file, by its SHA-256, in order."""
    holders: dict[str, dict[str, None]] = {}
    for picture in pictures:
        if picture.sha256:
            holders.setdefault(picture.sha256, {})[picture.image_id] = None
    return {sha256: list(ids) for sha256, ids in holders.items()}
