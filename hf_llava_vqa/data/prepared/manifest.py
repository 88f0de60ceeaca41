"""The manifest of a prepared set: what is in the folder. Whatever it lists is whole."""

import json
import os
from pathlib import Path
from typing import Any

from hf_llava_vqa.data.prepared.folders import Folder
from hf_llava_vqa.errors import RecordError
from hf_llava_vqa.records import SCHEMA_VERSION

MANIFEST = "manifest.json"
AGAIN = "copy the folder again, or prepare it again with scripts/prepare_data.py"
_KEYS = ("schema_version", "source", "splits", "virtual_readers", "row_group_size", "seed")


def read_manifest(folder: Folder) -> dict[str, Any]:
    """Read and check the manifest of a folder.

    Raises:
        RecordError: there is none, it is not ours, or of another schema version.
    """
    if folder.find(MANIFEST) is None:
        raise RecordError(
            f"{folder}: no {MANIFEST}, so this is no prepared set; prepare it with scripts/prepare_data.py"
        )
    manifest = folder.read_json(MANIFEST)
    missing = [key for key in _KEYS if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise RecordError(f"{folder}/{MANIFEST}: not the manifest of a prepared set (no {missing[0]}); {AGAIN}")
    for key in ("virtual_readers", "row_group_size"):
        if type(manifest[key]) is not int or manifest[key] < 1:
            raise RecordError(f"{folder}/{MANIFEST}: {key} is {manifest[key]!r}, not a positive number; {AGAIN}")
    version = manifest["schema_version"]
    if version != SCHEMA_VERSION:
        remedy = "upgrade hf-llava-vqa" if version > SCHEMA_VERSION else "prepare the data again"
        found = f"schema_version is {version}, this version reads {SCHEMA_VERSION}"
        raise RecordError(f"{folder}/{MANIFEST}: {found}: {remedy}")
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Put a manifest into a folder, in the place of an earlier one: it is there as a whole or not at all."""
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a text file that gets its name when it is complete and on the disk."""
    unfinished = path.with_name(path.name + ".incomplete")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
