"""The HTML page of a run: what it shows, and that texts stay texts."""

import base64
import io

import pytest
from parsed_page import HOSTILE, Page
from PIL import Image

from hf_llava_vqa.errors import ImageError
from hf_llava_vqa.reports.html import THUMBNAIL
from hf_llava_vqa.reports.page import write_page


def png(size: tuple[int, int], color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, format="PNG")
    return file.getvalue()


def run(**changes) -> dict:
    return {
        "title": "A run",
        "subtitle": "LoRA on a tiny LLaVA",
        "metric": "gqa",
        "scores": [
            {"role": "base", "score": 0.1, "interval": (0.05, 0.15), "n": 1204},
            {"role": "adapter", "score": 0.8, "interval": (0.755, 0.84), "n": 1204},
        ],
        "ceiling": 0.9,
        "history": [{"loss": 2.0, "step": 1}, {"eval_loss": 1.5, "eval_vizwiz_accuracy": 0.4, "step": 1}],
        "examples": [
            {
                "image": png((1000, 500)),
                "question": "what is this?",
                "answers": ["mug", "cup", "mug"],
                "predictions": {
                    "base": {"answer": "", "score": 0.0},
                    "adapter": {"answer": "mug", "score": 0.6},
                },
            }
        ],
        **changes,
    }


@pytest.fixture
def write(tmp_path):
    def write_and_parse(**changes) -> Page:
        path = tmp_path / "reports" / "page.html"
        write_page(path, **run(**changes))
        return Page(path.read_text(encoding="utf-8"))

    return write_and_parse


def test_nothing_outside_the_page_is_needed(write):
    write().assert_self_contained()


def test_the_metric_is_named(write):
    texts = write(metric="circular accuracy").within("p")
    assert sum("circular accuracy" in text for text in texts) == 2


def test_it_follows_dark_mode_and_small_screens(write):
    page = write()
    assert any("prefers-color-scheme: dark" in style for style in page.within("style"))
    assert "width=device-width, initial-scale=1" in page.values("meta", "content")


def test_scores_carry_interval_share_of_ceiling_and_size(write):
    cells = write().within("td")
    assert cells[:4] == ["10.0", "5.0 – 15.0", "11.1 %", "1,204"]
    assert cells[4:8] == ["80.0", "75.5 – 84.0", "88.9 %", "1,204"]
    assert "90.0" in cells[8:]


@pytest.mark.parametrize("ceiling", [None, 0.0])
def test_without_a_ceiling_nothing_is_compared_with_it(write, ceiling):
    page = write(ceiling=ceiling, history=[])
    assert page.within("td") == ["10.0", "5.0 – 15.0", "1,204", "80.0", "75.5 – 84.0", "1,204"]
    assert "Ceiling" not in page.within("th")


def test_an_example_shows_counted_answers_and_marked_predictions(write):
    page = write()
    assert page.within("h3") == ["what is this?"]
    assert page.within("li") == ["mug", "cup"]
    assert [text for text in page.within("span") if text.startswith("×")] == ["× 2", "× 1"]
    assert page.within("dt") == ["Base model", "Adapter"]
    assert page.within("dd") == ["✗ 0", "mug", "◐ 60"]
    assert "nothing" in page.within("span")


@pytest.mark.parametrize(("score", "mark"), [(0.0, "✗ 0"), (0.3, "◐ 30"), (0.9, "◐ 90"), (1.0, "✓ 100")])
def test_only_full_accuracy_counts_as_right(write, score, mark):
    example = {**run()["examples"][0], "predictions": {"adapter": {"answer": "mug", "score": score}}}
    assert write(examples=[example]).within("dd") == ["mug", mark]


def test_text_from_data_is_shown_and_never_obeyed(write):
    example = {
        "image": png((8, 8)),
        "question": HOSTILE,
        "answers": [HOSTILE],
        "predictions": {HOSTILE: {"answer": HOSTILE, "score": 1.0}},
    }
    scores = [{"role": HOSTILE, "score": 0.5, "interval": (0.4, 0.6), "n": 10}]
    page = write(title=HOSTILE, subtitle=HOSTILE, scores=scores, examples=[example])
    assert "script" not in page.tags()
    assert len(page.values("img", "src")) == 1
    for tag in ("title", "h1", "p", "th", "h3", "li", "dt", "dd"):
        assert HOSTILE in page.within(tag), tag


@pytest.mark.parametrize("image", [png((1000, 500)), Image.new("RGB", (1000, 500), "red")])
def test_pictures_are_inlined_as_thumbnails(write, image):
    example = {**run()["examples"][0], "image": image}
    (source,) = write(examples=[example]).values("img", "src")
    shown = Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2])))
    assert shown.size == (THUMBNAIL, THUMBNAIL // 2)
    red, green, blue = shown.convert("RGB").getpixel((10, 10))
    assert red > 240
    assert max(green, blue) < 15


def test_a_callers_picture_keeps_its_size(write):
    image = Image.new("RGB", (1000, 500))
    write(examples=[{**run()["examples"][0], "image": image}])
    assert image.size == (1000, 500)


def test_a_damaged_picture_is_an_error_of_ours(tmp_path):
    example = {**run()["examples"][0], "image": b"no picture"}
    with pytest.raises(ImageError):
        write_page(tmp_path / "page.html", **run(examples=[example]))


def test_empty_parts_leave_no_headings(write):
    assert write(scores=[], history=[], examples=[]).within("h2") == []
    assert write().within("h2") == ["Scores", "Training", "Examples"]


def test_the_same_run_writes_the_same_bytes(tmp_path):
    for name in ("a.html", "b.html"):
        write_page(tmp_path / name, **run())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
