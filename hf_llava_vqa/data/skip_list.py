"""Skip lists: which records a set is used without, and why.

A skip list is a text file with a record a line: its image id, and after tabs a reason and the split it belongs to. Both
may be left out; without a split, the id is left out of every one. `scripts/inspect_data.py` writes such a list.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, IterableDataset

from hf_llava_vqa.data import load_folder
from hf_llava_vqa.data.reading.files import read_text
from hf_llava_vqa.data.reading.missing import keep_missing_images
from hf_llava_vqa.errors import ConfigError, RecordError, in_line

_LINE = "an image id, and after tabs a reason and a split"

logger = logging.getLogger(__name__)


class Skipped(NamedTuple):
    """A line of a skip list."""

    image_id: str
    reason: str
    split: str  # "" for all


def write_skip_list(path: str | Path, skipped: Iterable[Skipped]) -> None:
    """Write a skip list. An id that would break its line is quoted, as in CSV."""
    text = io.StringIO()
    plain = csv.writer(text, delimiter="\t", lineterminator="\n")
    quoted = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
    for line in skipped:
        # A lone carriage return is not quoted by itself, though it ends a line when it is read.
        (plain if all(map(str.isprintable, line)) else quoted).writerow(line)
    Path(path).write_text(text.getvalue(), encoding="utf-8", newline="")


def read_skip_list(path: str | Path, *, split: str | None = None) -> dict[str, str]:
    """Read a skip list.

    Args:
        split: leave out what is listed for other splits; None reads all lines.

    Returns:
        The reason ("" if none is given) by image id.

    Raises:
        RecordError: the file is missing, not UTF-8, or has a line of another shape.
    """
    skip: dict[str, str] = {}
    lines = csv.reader(io.StringIO(read_text(str(path)), newline=""), delimiter="\t", strict=True)
    try:
        for cells in lines:
            skipped = _skipped(cells, f"{path}, line {lines.line_num}")
            if skipped is not None and (split is None or skipped.split in ("", split)):
                skip.setdefault(skipped.image_id, skipped.reason)
    except csv.Error as error:
        raise RecordError(f"{path}, line {lines.line_num}: {error}; write {_LINE}") from error
    return skip


def _skipped(cells: list[str], where: str) -> Skipped | None:
    if not any(cells):
        return None
    if len(cells) > 3 or not cells[0].strip():
        raise RecordError(f"{where}: {in_line(' '.join(cells))} is not {_LINE}")
    return Skipped(*cells, *[""] * (3 - len(cells)))


def leave_out(records: Dataset, skip: Mapping[str, str]) -> Dataset:
    """Return the records without those on the list, and say in a line how many are left out.

    Ids that are not there are none of this split's: no mistake.

    Raises:
        ConfigError: the records are a stream, whose order stands on whole sets.
        RecordError: no record is left.
    """
    if not isinstance(records, Dataset):
        raise ConfigError(
            "a stream cannot leave records out; prepare the set without them: prepare_data.py --skip_list"
        )
    column = "image_id" if "image_id" in records.column_names else "id"  # rows with TRL's columns have the second
    ids = list(map(str, records[column]))
    left = [row for row, image_id in enumerate(ids) if image_id not in skip]
    reasons = Counter(skip[image_id] or "no reason given" for image_id in ids if image_id in skip)
    named = f" ({', '.join(f'{count:,} {reason}' for reason, count in reasons.most_common())})" if reasons else ""
    count = f"{len(records) - len(left):,} of {len(records):,} records{named}"
    if not left:
        raise RecordError(f"split {records.split}: the skip list leaves out {count}; nothing is left")
    logger.warning(f"split {records.split}: the skip list leaves out {count}")
    return records.select(left)


def load_folder_without(
    skip: Mapping[str, str],
    source: str,
    folder: str | Path | None,
    *,
    split: str | None,
    follow_symlinks: bool = False,
) -> Dataset:
    """Load a split as `load_folder` does, without the records on the list; see `load_without`."""
    return load_without(skip, partial(load_folder, source, folder, split=split, follow_symlinks=follow_symlinks))


def load_without(skip: Mapping[str, str], load: Callable[[], Dataset | IterableDataset]) -> Dataset:
    """Load records without those on the list; their images may be missing.

    Raises:
        RecordError: another image is missing: the first, and how many; and as `load` and `leave_out`.
    """
    with keep_missing_images() as missing:
        records = leave_out(load(), skip)
    if missing:
        paths = [image["path"] for images in records["images"] for image in images]
        needed = [path for path in paths if path in missing]
        if needed:
            count = f"{len(needed):,} of {len(paths):,} images are missing and not on the skip list"
            raise RecordError(f"{missing[needed[0]]}: no {needed[0]} ({count}); inspect the data again")
    return records
