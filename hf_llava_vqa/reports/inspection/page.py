"""An inspection as one self-contained HTML page. The layout is `inspection.html.jinja`; every text is escaped there."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from hf_llava_vqa.augmentation import augment
from hf_llava_vqa.images import open_image
from hf_llava_vqa.records import Record
from hf_llava_vqa.reports.html import inline_picture, load_template, write_html
from hf_llava_vqa.reports.inspection.figures import figures_of
from hf_llava_vqa.reports.inspection.pictures import PROBLEMS, TINY
from hf_llava_vqa.reports.inspection.report import Inspection

PAGE_FILE = "inspection.html"
LISTED = 100  # lines of a list that the page shows; the JSON file has all
QUESTIONS_SHOWN, ANSWERS_SHOWN = 3, 4  # of a picture, of a question
AUGMENTED_PICTURES, EPOCHS = 4, 3


class Fact(NamedTuple):
    """A line of the table: a number for each split ("" for none), and whether a number above 0 is `bad` or a `hint`."""

    name: str
    values: list[str]
    tone: str = ""


class Entry(NamedTuple):
    """A record with something wrong."""

    image_id: str
    split: str
    problem: str
    reason: str


def write_inspection_page(path: str | Path, inspection: Inspection, *, augmentation: str, side: int) -> None:
    """Write the page, with its folder if need be.

    Args:
        augmentation: `none`, or what to show beside the first pictures.
        side: of augmented pictures, in pixels.
    """
    report = inspection.report
    splits = report["splits"]
    tokens = next(iter(splits.values()))["tokens"]
    write_html(
        path,
        load_template("inspection/inspection.html.jinja"),
        title=f"What is in {report['source']}",
        subtitle=_subtitle(splits),
        split_names=list(splits),
        facts=list(_facts(report)),
        left_out=_left_out(report),
        untrainable=[entry for name, split in splits.items() for entry in _untrainable(name, split)],
        listed=LISTED,
        marked=tokens["marked"] if tokens is not None else [],
        splits=[
            {
                "name": name,
                "figures": list(figures_of(split)),
                "answers": split["answers"],
                "cards": list(map(_card, inspection.samples[name])),
            }
            for name, split in splits.items()
        ],
        augmented=_augmented(inspection, side) if augmentation != "none" else [],
    )


def _subtitle(splits: Mapping[str, Any]) -> str:
    records = sum(split["records"] for split in splits.values())
    questions = sum(split["answers"]["questions"] for split in splits.values())
    return f"{' and '.join(splits)}: {records:,} records, {questions:,} questions"


def _facts(report: Mapping[str, Any]) -> Iterator[Fact]:
    splits = list(report["splits"].items())

    def fact(name: str, value: Any, tone: str = "") -> Fact:
        return Fact(name, [_number(value(split)) for _, split in splits], tone)

    yield fact("Records", lambda split: split["records"])
    yield fact("Questions", lambda split: split["answers"]["questions"])
    yield fact("Human answers", lambda split: split["answers"]["answers"])
    yield fact(f"Steps an epoch, {report['batch_size']:,} records each", lambda split: split["steps_per_epoch"])
    for problem in PROBLEMS:
        yield fact(f"Pictures {problem}", lambda split, kind=problem: _with_problem(split, kind), "bad")
    leaked = {name: sum(len(leak["records"].get(name, ())) for leak in report["leaks"]) for name, _ in splits}
    yield Fact("Pictures that another split has too", [_number(leaked[name]) for name, _ in splits], "bad")
    yield fact("Pictures that occur several times", lambda split: len(split["pictures"]["duplicates"]), "hint")
    yield fact("Pictures that EXIF turns upright", lambda split: len(split["pictures"]["turned"]), "hint")
    yield fact(f"Pictures with a side under {TINY} pixels", lambda split: len(split["pictures"]["tiny"]), "hint")
    yield fact("Questions without an answer", lambda split: len(split["answers"]["without_answers"]), "hint")
    rates = [_rate(split["answers"]["unanswerable"]) for _, split in splits]
    yield Fact("Questions that most people call unanswerable", rates)
    if all(split["tokens"] is not None for _, split in splits):
        yield fact("Records that cannot be trained on", lambda split: len(split["tokens"]["untrainable"]), "bad")
        yield fact("Longest path in tokens", lambda split: (split["tokens"]["paths"] or {}).get("max"))
        yield fact("Tokens an epoch", lambda split: split["tokens"]["total"])


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _rate(unanswerable: Mapping[str, Any]) -> str:
    if unanswerable["rate"] is None:
        return ""
    return f"{unanswerable['questions']:,} ({100 * unanswerable['rate']:.1f} %)"


def _with_problem(split: Mapping[str, Any], problem: str) -> int:
    return sum(bad["problem"] == problem for bad in split["pictures"]["bad"])


def _left_out(report: Mapping[str, Any]) -> list[Entry]:
    """The skip list, with what is wrong with each record in full."""
    reasons = {
        (name, bad["image_id"]): bad["reason"]
        for name, split in report["splits"].items()
        for bad in reversed(split["pictures"]["bad"])  # of several bad pictures the first counts
    }
    for leak in report["leaks"]:
        for name, ids in leak["records"].items():
            twins = [f"{', '.join(others)} of {other}" for other, others in leak["records"].items() if other != name]
            for image_id in ids:
                reasons.setdefault((name, image_id), f"the same file as {' and '.join(twins)}")
    return [
        Entry(line["image_id"], line["split"], line["reason"], reasons[line["split"], line["image_id"]])
        for line in report["skip_list"]
    ]


def _untrainable(name: str, split: Mapping[str, Any]) -> list[Entry]:
    entries = split["tokens"]["untrainable"] if split["tokens"] is not None else []
    return [Entry(entry["image_id"], name, "not trainable", entry["reason"]) for entry in entries]


def _card(record: Record) -> dict[str, Any]:
    shown = [_asked(dialogue) for dialogue in record["dialogues"][:QUESTIONS_SHOWN]]
    return {
        "id": record["image_id"],
        "image": inline_picture(open_image(record["images"][0])),
        "questions": shown,
        "more": len(record["dialogues"]) - len(shown),
    }


def _asked(dialogue: Mapping[str, Any]) -> dict[str, Any]:
    """A dialogue's first question, and its human answers or else what the assistant says."""
    given = [answer["answer"] for answer in dialogue["answers"]]
    said = given or [turn["content"] for turn in dialogue["turns"][1:2]]
    common = Counter(said).most_common(ANSWERS_SHOWN)
    return {"text": dialogue["turns"][0]["content"], "answers": common, "of": len(said)}


def _augmented(inspection: Inspection, side: int) -> list[dict[str, Any]]:
    """The first pictures, and how they look in the first epochs."""
    records = next(iter(inspection.samples.values()))
    return [
        {"id": record["image_id"], "pictures": list(map(inline_picture, _epochs(record, side)))}
        for record in islice(records, AUGMENTED_PICTURES)
    ]


def _epochs(record: Record, side: int) -> Iterator[Image.Image]:
    image = open_image(record["images"][0])
    yield image
    for epoch in range(EPOCHS):
        yield augment(image, seed=0, epoch=epoch, key=f"{record['image_id']}/0", side=side)
