"""What becomes of a record whose picture does not open: an error, left out, or replaced; each case is written down."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from hf_llava_vqa.errors import ConfigError, ImageError
from hf_llava_vqa.images import open_image

ON_BAD_IMAGE = ("error", "skip", "replace")
BAD_IMAGES_FILE = "bad_images.jsonl"

Record = dict[str, Any]
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class BadImage:
    """A picture that cannot be opened: whose it is, where it lies ("" if it has no file of its own), and why not."""

    image_id: str
    path: str
    reason: str

    def error(self) -> ImageError:
        """The error that names record and picture."""
        return ImageError(f"{self.image_id}: {self.reason}")


def open_pictures(record: Record) -> list[Image.Image] | BadImage:
    """Open a record's pictures, in order, or tell of the first that cannot be opened."""
    opened = []
    for image in record["images"]:
        try:
            opened.append(open_image(image))
        except ImageError as error:
            path = image.get("path") if isinstance(image, dict) else image
            return BadImage(record["image_id"], str(path) if isinstance(path, str | Path) else "", str(error))
    return opened


class BadImagePolicy:
    """The user's choice, and the file that names every case.

    The file has one JSON object a line: `image_id`, `path`, `reason`, `action` ("skip" or "replace") and `replaced_by`
    (an image id, or null). Processes append to it at the same time. A case is written each time it is met, so once an
    epoch, and again by a run that resumes before it.

    Args:
        action: `error` stops; `skip` leaves the record out; `replace` takes another record of the batch instead.
        file: where cases are written; needed unless the action is `error`.
        seed: of the choice among the other records.

    Raises:
        ConfigError: an unknown action, or no file.
    """

    def __init__(self, action: str = "error", *, file: str | Path | None = None, seed: int = 0) -> None:
        if action not in ON_BAD_IMAGE:
            raise ConfigError(f"unknown on_bad_image {action!r}; use one of: {', '.join(ON_BAD_IMAGE)}")
        if action != "error" and file is None:
            raise ConfigError(f"on_bad_image {action!r} needs bad_images_file, where every case is written")
        self.action = action
        self.file = file
        self.seed = seed

    def settle(self, records: Sequence[Record], opened: Iterable[Opened | BadImage]) -> list[tuple[Record, Opened]]:
        """Return the records of a batch that are trained on, with what was opened of each.

        The outcome depends on the seed and the batch only. A replaced record goes with all its questions, and the one
        that stands in for it is of the same split, has pictures, and comes twice.

        Raises:
            ImageError: a bad picture while the action is `error`, or with nothing to replace it by.
        """
        pairs = list(zip(records, opened, strict=True))
        good = [(record, pictures) for record, pictures in pairs if not isinstance(pictures, BadImage)]
        settled = []
        for record, pictures in pairs:
            if not isinstance(pictures, BadImage):
                settled.append((record, pictures))
            elif self.action == "replace":
                settled.append(self._replace(record, pictures, good))
            else:
                self.leave_out(pictures)
        return settled

    def leave_out(self, bad: BadImage) -> None:
        """Write down that a record is left out; the caller does so.

        Raises:
            ImageError: the action is `error`.
        """
        if self.action == "error":
            raise bad.error()
        self._write(bad, None)

    def _replace(self, record: Record, bad: BadImage, good: Sequence[tuple[Record, Opened]]) -> tuple[Record, Opened]:
        others = [pair for pair in good if pair[0]["images"] and pair[0].get("split") == record.get("split")]
        if not others:
            raise ImageError(
                f"{bad.error()}; no other record of the batch can replace it: use larger batches, or on_bad_image skip"
            )
        chosen = min(others, key=lambda pair: self._rank(bad.image_id, pair[0]["image_id"]))
        self._write(bad, chosen[0]["image_id"])
        return chosen

    def _rank(self, image_id: str, other_id: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/{image_id}/{other_id}".encode()).digest()

    def _write(self, bad: BadImage, replaced_by: str | None) -> None:
        assert self.file is not None
        case = {"image_id": bad.image_id, "path": bad.path, "reason": bad.reason}
        line = json.dumps({**case, "action": self.action, "replaced_by": replaced_by}) + "\n"
        Path(self.file).parent.mkdir(parents=True, exist_ok=True)
        # One write to a file opened for appending is whole: loader workers of all ranks share the file.
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
