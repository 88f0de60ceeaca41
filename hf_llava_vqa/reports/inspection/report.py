"""A set as a whole: its splits, what they share, and which records training should do without.

`inspection.json` holds what was found. Ids are image ids where nothing else is said.

    schema_version   1
    source           what was asked for
    batch_size       records a step
    splits           by name, in the order asked for:
        records          how many there are
        left_out         how many of them are on the skip list
        steps_per_epoch  without those
        pictures         count, bytes, formats {name: count}
            bad              [{image_id, path, problem: missing | corrupt | oversized, reason}]
            turned           ids: upright only because EXIF says how
            tiny             ids: the shorter side is under 32 pixels
            duplicates       [ids that hold the same file]
            width, height, aspect   distributions, of upright pictures; aspect is width / height
        answers          answers and questions: how many
            questions_per_image, answers_per_question   {number: count}
            distinct, top    different answers, and the most frequent as [text, count], as VizWiz reads them
            without_answers  ids of dialogues that end with a question nobody answers
            unanswerable     questions: where most say so; rate of those with answers; labelled: answerable is 0
            variant          the scorer of the benchmark, "" if it has none
            unreachable      by scorer: questions it scores, questions_lost (the most frequent answer loses),
                             answers_lost (given answers that lose), examples [[text, as it is read, count]]
            unreachable_everywhere   [[text, questions]] that lose with every scorer
        tokens           null if no tokenizer was given; images count in full
            paths, rows      distributions of lengths
            total, supervised   tokens of all rows; those that are trained on
            untrainable      [{image_id, reason}]
            marked           the first rows: [{image_id, tokens, lines}], a line for each stretch that does not branch,
                             [{level, spans: [{text, supervised, weight}]}]; level counts the branchings above
    leaks            [{sha256, records: {split: [ids]}}] of files in more than one split
    skip_list        [{image_id, reason, split}]

A distribution is {count, min, median, mean, p95, max, bars: [[from, to, count]]}, or null without numbers. An answer
*loses* with a scorer if the scorer reads it as nothing when it is predicted, or gives it less than if it read people's
answers as it reads predictions.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from hf_llava_vqa.collate import VqaCollator, as_record
from hf_llava_vqa.data import BENCHMARKS, get_benchmark
from hf_llava_vqa.data.skip_list import Skipped, write_skip_list
from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import VARIANTS
from hf_llava_vqa.records import Record
from hf_llava_vqa.reports.inspection.answers import AnswerTally
from hf_llava_vqa.reports.inspection.pictures import Picture, by_hash, check_pictures, picture_findings
from hf_llava_vqa.reports.inspection.tokens import TokenTally

SCHEMA_VERSION = 1
REPORT_FILE, SKIP_LIST_FILE = "inspection.json", "skip_list.txt"
SAMPLES = 12  # records of each split that are kept to be shown


@dataclass(frozen=True)
class Inspection:
    """What was found, as `inspection.json` has it, and what else the page shows."""

    report: dict[str, Any]
    samples: dict[str, list[Record]]  # by split: the first records all of whose pictures open

    @property
    def skipped(self) -> list[Skipped]:
        """The lines of the skip list."""
        return [Skipped(**line) for line in self.report["skip_list"]]

    def write(self, folder: Path) -> None:
        """Write `inspection.json` and `skip_list.txt` into a folder that is there."""
        text = json.dumps(self.report, ensure_ascii=False, indent=1)
        (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
        write_skip_list(folder / SKIP_LIST_FILE, self.skipped)


def make_folder(folder: Path) -> None:
    """Make the folder for what will be found, or raise ConfigError: better before the inspection than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be made: {error.strerror}; name another folder") from error


def inspect_set(
    splits: Mapping[str, Dataset], *, source: str, batch_size: int, collator: VqaCollator | None, workers: int
) -> Inspection:
    """Look at every record of some splits, with a bar on terminals.

    A picture that lies in several splits is listed for all but the last of them: name training splits first.

    Args:
        splits: by name, as `load_folder` returns them; images may be missing.
        source: what the report calls the set.
        batch_size: records a training step.
        collator: counts tokens as training will; None to do without.
        workers: processes that decode pictures.

    Raises:
        ImageError: a process died over a picture.
    """
    looks = {name: _Look(collator) for name in splits}
    for name, records in splits.items():
        looks[name].take(name, records, workers)
    leaks = _leaks({name: look.pictures for name, look in looks.items()})
    skipped = _skip_list({name: look.pictures for name, look in looks.items()}, leaks)
    left_out = Counter(line.split for line in skipped)
    report = {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "batch_size": batch_size,
        "splits": {
            name: {
                "records": len(splits[name]),
                "left_out": left_out[name],
                "steps_per_epoch": math.ceil((len(splits[name]) - left_out[name]) / batch_size),
                **look.findings(),
            }
            for name, look in looks.items()
        },
        "leaks": leaks,
        "skip_list": [line._asdict() for line in skipped],
    }
    return Inspection(report, {name: look.samples() for name, look in looks.items()})


class _Look:
    """One split while it is looked at: every record is read once."""

    def __init__(self, collator: VqaCollator | None) -> None:
        self.pictures: list[Picture] = []
        self.answers = AnswerTally()
        self.tokens = None if collator is None else TokenTally(collator)
        self.first: list[Record] = []
        self.source = ""

    def take(self, name: str, records: Dataset, workers: int) -> None:
        bar = tqdm(records, desc=f"inspecting {name}", unit="record", disable=None)
        self.pictures = list(check_pictures(self._seen(map(as_record, bar)), workers=workers))

    def _seen(self, records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            self.source = record["source"]
            self.answers.add(record)
            if self.tokens is not None:
                self.tokens.add(record)
            if len(self.first) < 2 * SAMPLES and record["images"]:
                self.first.append(record)
            yield record

    def findings(self) -> dict[str, Any]:
        variant = get_benchmark(self.source).metric_variant if self.source in BENCHMARKS else ""
        variant = variant if variant in VARIANTS else ""  # other metrics do not compare with people
        return {
            "pictures": picture_findings(self.pictures),
            "answers": self.answers.findings(variant),
            "tokens": None if self.tokens is None else self.tokens.findings(),
        }

    def samples(self) -> list[Record]:
        bad = {picture.image_id for picture in self.pictures if picture.problem}
        return [record for record in self.first if record["image_id"] not in bad][:SAMPLES]


def _leaks(pictures: Mapping[str, Sequence[Picture]]) -> list[dict[str, Any]]:
    """The files that lie in several splits, with the records that hold them."""
    holders: dict[str, dict[str, list[str]]] = {}
    for split, found in pictures.items():
        for sha256, ids in by_hash(found).items():
            holders.setdefault(sha256, {})[split] = ids
    return [{"sha256": sha256, "records": by_split} for sha256, by_split in holders.items() if len(by_split) > 1]


def _skip_list(pictures: Mapping[str, Sequence[Picture]], leaks: Sequence[Mapping[str, Any]]) -> list[Skipped]:
    """One line a record, by split: what is wrong with its first bad picture, or that one of them leaks."""
    reasons: dict[tuple[str, str], str] = {}
    for split, found in pictures.items():
        for picture in found:
            if picture.problem:
                reasons.setdefault((split, picture.image_id), picture.problem)
    for leak in leaks:
        *earlier, _ = leak["records"]
        for split in earlier:
            for image_id in leak["records"][split]:
                reasons.setdefault((split, image_id), "leaked")
    return [Skipped(image_id, reason, split) for (split, image_id), reason in reasons.items()]
