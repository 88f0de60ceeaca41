"""`scores.json`: whose answers lie in a folder and how they came about, from before the first one; then their scores.

    {"model", "role", "benchmarks": {NAME: scores}, "settings": {..., "benchmarks": {NAME: settings}}, "versions"}

A folder with one benchmark holds its predictions itself; with several, each has a folder of its name.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hf_llava_vqa.data.prepared.manifest import write_whole
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.reports.predictions import PREDICTIONS_FILE
from hf_llava_vqa.training.training_recipe import differences, versions

SCORES_FILE = "scores.json"

Settings = Mapping[str, Any]


def read_scores(folder: Path) -> dict[str, Any]:
    """The content of an evaluation's `scores.json`; raises `RecordError` if it is missing or something else."""
    path = folder / SCORES_FILE
    if not path.is_file():
        raise RecordError(f"{path} is missing; write it with scripts/evaluate.py --out {folder}")
    try:
        content = json.loads(path.read_bytes())
        whole = {"model", "role", "versions"} <= content.keys()
        whole = whole and content["benchmarks"].keys() <= content["settings"]["benchmarks"].keys()
    except (ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise RecordError(f"{path} is not as this version of scripts/evaluate.py writes it; choose another --out")
    return content


def benchmark_folder(folder: Path, benchmarks: Collection[str], name: str) -> Path:
    """Where the predictions of one of an evaluation's benchmarks lie."""
    return folder / name if len(benchmarks) > 1 else folder


class Scores:
    """The `scores.json` of an evaluation that is under way; the file is written anew with every change.

    Args:
        folder: of the evaluation. It may have been begun before, also with other benchmarks.
        model, role: who answers.
        settings: of all benchmarks: whatever can change an answer. `weights` tells models apart.
        benchmarks: the settings of each.

    Attributes:
        content: what stands in the file.

    Raises:
        ConfigError: the folder holds predictions that came about differently; says what differs.
        RecordError: the file in the folder is not ours.
    """

    def __init__(
        self, folder: Path, *, model: str, role: str, settings: Settings, benchmarks: Mapping[str, Settings]
    ) -> None:
        self.folder = folder
        self.content: dict[str, Any] = {
            "model": model,
            "role": role,
            "benchmarks": {},
            "settings": {**settings, "benchmarks": dict(benchmarks)},
            "versions": versions(),
        }
        begun = self._join(read_scores(folder)) if (folder / SCORES_FILE).is_file() else []
        for name in benchmarks:
            if name not in begun and _has_predictions(self.folder_of(name)):
                raise ConfigError(
                    f"{self.folder_of(name) / PREDICTIONS_FILE}: no {SCORES_FILE} says how these answers came about; "
                    "delete them, or choose another --out"
                )
        folder.mkdir(parents=True, exist_ok=True)
        self._write()

    def folder_of(self, name: str) -> Path:
        """Where the predictions of a benchmark go."""
        return benchmark_folder(self.folder, self.content["settings"]["benchmarks"], name)

    def add(self, name: str, scores: dict[str, Any]) -> None:
        """Put a benchmark's scores into the file."""
        self.content["benchmarks"][name] = scores
        self._write()

    def _join(self, earlier: dict[str, Any]) -> list[str]:
        """Go on with an evaluation whose file was found; returns its benchmarks that have predictions.

        Without any, it is as if it had never been begun.
        """
        present, asked = earlier["settings"]["benchmarks"], self.content["settings"]["benchmarks"]
        begun = [name for name in present if _has_predictions(benchmark_folder(self.folder, present, name))]
        if not begun:
            return []
        further = ", ".join(name for name in asked if name not in present)
        if further and len(present) == 1:
            raise ConfigError(f"{self.folder} holds an evaluation of {begun[0]}; choose another --out for {further}")
        for name in begun:
            self._check_same(earlier, name)
        self.content["benchmarks"] = earlier["benchmarks"]
        self.content["settings"]["benchmarks"] = {**present, **asked}
        return begun

    def _check_same(self, earlier: dict[str, Any], name: str) -> None:
        before, now = _conditions(earlier, name), _conditions(self.content, name)
        if before.get("weights") == now.get("weights"):
            del now["model"]  # the same under another path
        differing = "; ".join(differences(before, now))
        if differing:
            raise ConfigError(
                f"{self.folder} holds answers to {name} that came about differently: {differing}; use the same to go "
                "on, or choose another --out"
            )

    def _write(self) -> None:
        write_whole(self.folder / SCORES_FILE, json.dumps(self.content, indent=2) + "\n")


def _conditions(content: dict[str, Any], name: str) -> dict[str, str]:
    """How a benchmark's answers come about, in words."""
    settings, own = content["settings"], content["settings"]["benchmarks"].get(name, {})
    conditions = {"model": content["model"], **settings, **own, **content["versions"]}
    return {key: str(value) for key, value in conditions.items() if key != "benchmarks"}


def _has_predictions(folder: Path) -> bool:
    path = folder / PREDICTIONS_FILE
    return path.is_file() and path.stat().st_size > 0
