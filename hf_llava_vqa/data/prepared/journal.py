"""The journal of a preparation under way: which shards are complete, so that an interrupted run can go on."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from hf_llava_vqa.bad_images import BadImage
from hf_llava_vqa.data.prepared.manifest import write_whole
from hf_llava_vqa.data.prepared.shard_writing import WrittenShard
from hf_llava_vqa.errors import ConfigError


class Journal:
    """A file with the settings of the run in its first line and a complete shard in each further one.

    Attributes:
        known: shards that earlier runs completed, by name.

    Raises:
        ConfigError: the file is of a run with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        # A line without an end is of a run that was killed while it wrote it.
        header, *lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else [""]
        if header:
            self._check(json.loads(header), settings)
        shards = [_parse(line) for line in lines]
        self.known = {shard.file: shard for shard in shards}
        kept = [json.dumps(settings), *(json.dumps(asdict(shard)) for shard in self.known.values())]
        write_whole(path, "\n".join(kept) + "\n")
        self._file = path.open("a", encoding="utf-8")

    def _check(self, begun: dict[str, Any], settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            if begun.get(name) != value:
                raise ConfigError(
                    f"{self.path.parent} holds a part that was prepared with {name} {begun.get(name)}, not {value}; "
                    f"use the same to go on, or delete {self.path} to begin again"
                )

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, shard: WrittenShard) -> None:
        """Note a complete shard."""
        if self.known.get(shard.file) != shard:
            self._file.write(json.dumps(asdict(shard)) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())


def _parse(line: str) -> WrittenShard:
    fields = json.loads(line)
    return WrittenShard(**{**fields, "left_out": [BadImage(**bad) for bad in fields["left_out"]]})
