"""The page of an inspection, read back with the standard library's parser."""

import base64
import io

import pytest
from broken_set import SIDE, SKIPPED, jpeg, row, write_broken_set, write_sound_set, write_split
from parsed_page import HOSTILE, Page
from PIL import Image

from hf_llava_vqa.collate import VqaCollator
from hf_llava_vqa.data import load_folder
from hf_llava_vqa.data.reading.missing import keep_missing_images
from hf_llava_vqa.models.loading import load_processor
from hf_llava_vqa.reports.inspection.page import LISTED, write_inspection_page
from hf_llava_vqa.reports.inspection.report import inspect_set


@pytest.fixture
def page_of(tmp_path, tiny_llava):
    def inspect_and_parse(root, *, splits=("train", "val"), tokens=False, augmentation="none") -> Page:
        collator = VqaCollator(load_processor(str(tiny_llava))) if tokens else None
        with keep_missing_images():
            loaded = {split: load_folder("vizwiz", root, split=split) for split in splits}
        inspection = inspect_set(loaded, source="vizwiz", batch_size=4, collator=collator, workers=1)
        path = tmp_path / "out" / "page.html"
        write_inspection_page(path, inspection, augmentation=augmentation, side=28)
        return Page(path.read_text(encoding="utf-8"))

    return inspect_and_parse


@pytest.fixture
def broken(tmp_path):
    return write_broken_set(tmp_path / "set")


@pytest.fixture
def sound(tmp_path):
    return write_sound_set(tmp_path / "set")


def test_nothing_outside_the_page_is_needed(broken, page_of):
    page_of(broken, tokens=True, augmentation="randaugment").assert_self_contained()


def test_it_follows_dark_mode_and_small_screens(sound, page_of):
    page = page_of(sound)
    assert any("prefers-color-scheme: dark" in style for style in page.within("style"))
    assert "width=device-width, initial-scale=1" in page.values("meta", "content")


def facts(page: Page) -> dict[str, list[str]]:
    """The first table: a number for each split by the name of the fact."""
    cells = [(tag, text) for tag, text in page.texts if tag in ("th", "td")]
    found: dict[str, list[str]] = {}
    for tag, text in cells:
        if tag == "th":
            name = text
        else:
            found.setdefault(name, []).append(text)
    return found


def test_defects_are_counted_by_split(broken, page_of):
    found = facts(page_of(broken))
    assert found["Records"] == ["9", "2"]
    assert found["Steps an epoch, 4 records each"] == ["1", "1"]
    assert found["Pictures corrupt"] == ["2", "0"]
    assert found["Pictures that another split has too"] == ["1", "1"]
    assert found["Pictures that EXIF turns upright"] == ["1", "0"]
    assert found["Questions that most people call unanswerable"] == ["0 (0.0 %)", "2 (100.0 %)"]


def test_records_to_leave_out_are_named_with_reasons(broken, page_of):
    page = page_of(broken)
    found = facts(page)
    assert {name: cells[1] for name, cells in found.items() if name in SKIPPED} == SKIPPED
    assert found["leaked.jpg"][2] == "the same file as known.jpg of val"
    assert "no such image file" in found["gone.jpg"][2]
    assert "5 records are on the skip list" in page.within("div")


def test_a_sound_set_is_said_to_be_one(sound, page_of):
    page = page_of(sound, tokens=True)
    assert "Nothing has to be left out" in page.within("div")
    assert not {"To be left out", "Records that cannot be trained on", "Augmentation"} & set(page.within("h2"))


def test_a_long_list_is_cut_and_says_so(tmp_path, page_of):
    names = [f"{number}.jpg" for number in range(LISTED + 2)]
    write_split(tmp_path, "train", {"a.jpg": jpeg(0)} | dict.fromkeys(names), [row(name) for name in ["a.jpg", *names]])
    page = page_of(tmp_path, splits=["train"])
    assert page.within("td").count("missing") == LISTED
    assert any("2 more in inspection.json" in text for text in page.within("p"))


def test_supervised_text_is_marked(sound, page_of):
    page = page_of(sound, tokens=True)
    assert page.within("mark") == ["cup</s>"] * 2
    assert page.within("h2")[1] == "Rows as they are trained"
    assert "Rows as they are trained" not in page_of(sound).within("h2")


def test_records_that_cannot_be_trained_on_are_named(tmp_path, page_of):
    rows = [row("a.jpg"), row("b.jpg", answers=[" "])]
    write_split(tmp_path, "train", {"a.jpg": jpeg(0), "b.jpg": jpeg(1)}, rows)
    assert "has no answers to train on" in facts(page_of(tmp_path, splits=["train"], tokens=True))["b.jpg"][2]


def test_texts_of_the_data_stay_text(tmp_path, page_of):
    write_split(tmp_path, "train", {"a.jpg": jpeg(0)}, [row("a.jpg", HOSTILE, [HOSTILE] * 10)])
    page = page_of(tmp_path, splits=["train"], tokens=True)
    page.assert_self_contained()
    assert page.within("h3").count(HOSTILE) == 1
    assert HOSTILE in page.within("li")


def sizes(page: Page) -> list[tuple[int, int]]:
    pictures = (base64.b64decode(source.partition("base64,")[2]) for source in page.values("img", "src"))
    return [Image.open(io.BytesIO(picture)).size for picture in pictures]


def test_first_pictures_that_open_are_shown_upright(broken, page_of):
    assert sizes(page_of(broken, splits=["train"])) == [
        (SIDE, SIDE),
        (SIDE, 60),
        (SIDE, 31),
        (SIDE, SIDE),
        (SIDE, SIDE),
    ]


def test_augmented_pictures_stand_beside_the_original(sound, page_of):
    page = page_of(sound, splits=["train"], augmentation="randaugment")
    assert sizes(page) == [(SIDE, SIDE), *[(28, 28)] * 3] * 2 + [(SIDE, SIDE)] * 2
    assert page.values("img", "alt")[:4] == ["As it is", "Epoch 0", "Epoch 1", "Epoch 2"]


def test_the_same_set_writes_the_same_bytes(sound, page_of, tmp_path):
    written = []
    for _ in range(2):
        page_of(sound, tokens=True, augmentation="randaugment")
        written.append((tmp_path / "out" / "page.html").read_bytes())
    assert written[0] == written[1]
