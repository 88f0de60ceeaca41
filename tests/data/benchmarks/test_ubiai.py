import copy
import json
import logging
import shutil
from pathlib import Path

import pytest
from examples import FUZZ, colour, damaged, png
from hypothesis import given
from hypothesis import strategies as st
from reader_checks import evaluate

from hf_llava_vqa.data import load_records
from hf_llava_vqa.data.benchmarks import ubiai
from hf_llava_vqa.data.benchmarks.ubiai import read
from hf_llava_vqa.errors import ConfigError, RecordError, VqaError
from hf_llava_vqa.images import open_image
from hf_llava_vqa.records import validate_record

REPOSITORY = Path(__file__).parents[3]
LABELS = {"Q": "QUESTION", "A": "ANSWER", "S": "SELLER"}


def document(name, labelled, links, pages=1):
    """A document as UBIAI exports it. `labelled`: `(label, text)` or `(label, text, page)`; `links`: places in it."""
    entities, words, first_words, text = [], [], [], ""
    for label, content, *page in labelled:
        start = len(text)
        first_words.append(len(words))
        boxes = []
        for word in content.split():
            place = start + content.index(word)
            words.append({"id": len(words), "text": word, "start": place, "end": place + len(word) - 1, "pageNum": 1})
            boxes.append({"word": word, "page": page[0] if page else 1, "pageSize": {"width": 8, "height": 8}})
        text += f"{content}\n"
        label = LABELS.get(label, label)
        entities.append(
            {"start": start, "end": start + len(content), "label": label, "text": content, "boundingBoxes": boxes}
        )
    return {
        "documentName": f"{name}_2024-01-31_12:00:01.txt",
        "document": text,
        "annotation": entities,
        "tokens": words,
        "objects": [],
        "relations": [
            {"head": first_words[head], "child": first_words[child], "relationLabel": "ANSWERED_BY"}
            for head, child in links
        ],
        "images": [{"name": f"{name}_image_{page}.jpg"} for page in range(pages)],
    }


def export():
    form = document(
        "form.png",
        [
            ("S", "ACME Ltd"),
            ("Q", "What is due?"),
            ("A", "12 EUR"),
            ("Q", "Until when?"),
            ("A", "31 May"),
            ("A", "May\n31"),
        ],
        [(1, 2), (3, 4), (5, 3), (0, 2)],
    )
    letter = document(
        "letter 12:30.pdf",
        [("Q", "Who signs?", 1), ("A", "Ann", 2), ("Q", "To whom?", 2), ("A", "Bob", 1)],
        [(0, 1), (2, 3)],
        pages=2,
    )
    return [form, letter]


def write_export(root, documents):
    folder = root / "train"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ocr.json").write_text(json.dumps(documents))
    names = [image["name"] for document in documents for image in document["images"]]
    for number, name in enumerate(names):
        (folder / name).write_bytes(png(colour(number)))


@pytest.fixture
def root(tmp_path):
    write_export(tmp_path / "labels", export())
    return tmp_path / "labels"


def refused(root, **paths):
    with pytest.raises(RecordError) as caught:
        list(read("train", root=root, **paths))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def asked(records):
    return {
        record["image_id"]: [
            (dialogue["turns"][0]["content"], [answer["answer"] for answer in dialogue["answers"]])
            for dialogue in record["dialogues"]
        ]
        for record in records
    }


EXPECTED = {
    "form.png_image_0.jpg": [("What is due?", ["12 EUR"]), ("Until when?", ["31 May", "May\n31"])],
    "letter 12:30.pdf_image_1.jpg": [("Who signs?", ["Ann"])],
    "letter 12:30.pdf_image_0.jpg": [("To whom?", ["Bob"])],
}

# What is read


def test_each_question_stands_with_its_answers_under_the_page_of_the_first(root):
    records = list(read("train", root=root))
    for record in records:
        validate_record(record)
        assert (record["source"], record["split"]) == ("ubiai", "train")
    assert asked(records) == EXPECTED
    assert records[0]["images"] == [{"bytes": None, "path": f"{root}/train/form.png_image_0.jpg"}]
    assert [d["id"] for d in records[0]["dialogues"]] == [f"form.png_2024-01-31_12:00:01.txt#{n}" for n in (0, 1)]
    assert json.loads(records[1]["dialogues"][0]["metadata"]) == {
        "document": "letter 12:30.pdf_2024-01-31_12:00:01.txt",
        "page": 2,
    }
    assert load_records("ubiai", split="train", root=root)["image_id"] == list(EXPECTED)


def test_the_export_may_be_a_zip_or_lie_elsewhere(root, tmp_path):
    shutil.make_archive(str(root / "val"), "zip", root / "train")
    zipped = list(read("val", root=root))
    assert asked(zipped) == EXPECTED
    assert open_image(zipped[0]["images"][0]).getpixel((0, 0)) == colour(0)
    (root / "train" / "ocr.json").rename(root / "train.json")
    assert asked(read("train", root=root)) == EXPECTED
    (root / "train").rename(tmp_path / "pages")
    assert asked(read("test", annotations=root / "train.json", images=tmp_path / "pages")) == EXPECTED


@pytest.mark.parametrize("colon", ["", "_"])
def test_colons_may_be_lost_in_unpacking(root, colon):
    for page in (0, 1):
        path = root / "train" / f"letter 12:30.pdf_image_{page}.jpg"
        path.rename(path.with_name(path.name.replace(":", colon)))
    assert asked(read("train", root=root)) == EXPECTED


def test_the_export_of_a_text_project(root):
    tokens = [
        {"text": "Who?", "start": 0, "end": 4, "token_start": 0, "token_end": 1, "entityLabel": " Question"},
        {"text": "Ann Lee", "start": 5, "end": 12, "token_start": 2, "token_end": 3, "entityLabel": "answer"},
    ]
    rows = [
        {
            "documentName": "form.png_image_0.jpg",
            "document": "Who? Ann Lee",
            "tokens": tokens,
            "relations": [{"child": 0, "head": 3, "relationLabel": "OF"}],
        }
    ]
    (root / "train" / "ocr.json").write_text(json.dumps(rows))
    assert asked(read("train", root=root)) == {"form.png_image_0.jpg": [("Who?", ["Ann Lee"])]}


@pytest.mark.parametrize("text", [ubiai.__doc__, (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")])
def test_the_documented_example_is_read(root, text):
    start = text.rindex("{", 0, text.index('"documentName": "form.png"'))
    example, _ = json.JSONDecoder().raw_decode(text, start)
    (root / "train" / "ocr.json").write_text(json.dumps([example]))
    assert asked(read("train", root=root)) == {"form.png_image_0.jpg": [("What is due?", ["12 EUR"])]}


# Gaps in the labels


def with_gaps():
    documents = export()
    documents[0]["relations"].pop(0)
    documents[1]["relations"].pop()
    documents.append(document("blank.png", [("S", "ACME Ltd")], []))
    return documents


def test_gaps_are_refused_and_the_first_are_named(root):
    write_export(root, with_gaps())
    assert refused(root) == (
        f"{root}/train/ocr.json: 5 gaps in the labels (form.png_2024-01-31_12:00:01.txt: QUESTION 'What is due?'; "
        "form.png_2024-01-31_12:00:01.txt: ANSWER '12 EUR'; letter 12:30.pdf_2024-01-31_12:00:01.txt: "
        "QUESTION 'To whom?'; …); link them and export again, or set unlinked to skip"
    )


def test_gaps_may_be_skipped_and_every_one_is_named(root, caplog):
    write_export(root, with_gaps())
    with caplog.at_level(logging.WARNING):
        records = list(read("train", root=root, unlinked="skip"))
    assert asked(records) == {
        "form.png_image_0.jpg": [("Until when?", ["31 May", "May\n31"])],
        "letter 12:30.pdf_image_1.jpg": [("Who signs?", ["Ann"])],
    }
    assert records[0]["dialogues"][0]["id"].endswith("#1"), "ids do not depend on what is skipped"
    (message,) = caplog.messages
    assert message.startswith(f"{root}/train/ocr.json: 5 gaps in the labels are skipped: ")
    for gap in ("QUESTION 'What is due?'", "ANSWER '12 EUR'", "QUESTION 'To whom?'", "ANSWER 'Bob'", "no QUESTION"):
        assert gap in message


def test_nothing_linked_at_all_is_refused(root):
    write_export(root, [document("form.png", [("Q", "Why?")], [])])
    assert refused(root, unlinked="skip").endswith("no QUESTION is linked to an ANSWER; link them and export again")
    with pytest.raises(ConfigError, match="ubiai: unlinked must be error or skip, not 'keep'"):
        list(read("train", root=root, unlinked="keep"))


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("documentName"), "documentName must be a string, found nothing"),
        (lambda d: d.pop("tokens"), "relations 0: token 0 belongs to no entity"),
        (lambda d: d.update(annotation={}), "annotation must be a list, found an object"),
        (lambda d: d["annotation"][1].pop("label"), "annotation 1: label must be a string, found nothing"),
        (lambda d: d["annotation"][1].update(text=" "), "annotation 1: text is empty"),
        (lambda d: d["annotation"][1].update(start="7"), "annotation 1: start must be an integer, found a string"),
        (lambda d: d["annotation"][1].update(boundingBoxes=[{}]), "annotation 1, boundingBoxes 0: page must be an int"),
        (lambda d: d["annotation"][1].update(boundingBoxes=[{"page": 3}]), "ANSWER 'Ann' stands on page 3 of 2 images"),
        (lambda d: d["annotation"][1].update(boundingBoxes=[{"page": 0}]), "ANSWER 'Ann' stands on page 0 of 2 images"),
        (lambda d: d["annotation"][1].pop("boundingBoxes"), "ANSWER 'Ann' has no boundingBoxes, which tell the page"),
        (lambda d: d["annotation"].append(d["annotation"][0]), "relations 0: joins several questions and answers"),
        (lambda d: d["relations"][1].pop("head"), "relations 1: head must be an integer, found nothing"),
        (lambda d: d["relations"][1].update(child=99), "relations 1: token 99 belongs to no entity; label it or"),
        (lambda d: d["images"][1].pop("name"), "images 1: name must be a string, found nothing"),
        (lambda d: d.update(images=[]), "ANSWER 'Ann' stands on page 2 of 1 images"),
        (
            lambda d: d["images"][0].update(name="form.png_image_0.jpg"),
            "image form.png_image_0.jpg belongs to form.png",
        ),
        (lambda d: d["images"][1].update(name="no.jpg"), "image no.jpg is not in "),
        (lambda d: d["images"][1].update(name="../a.jpg"), "unsafe name '../a.jpg'"),
        (lambda d: d["annotation"][0].update(text="\ud83d"), "a broken character (half a surrogate pair); remove it"),
    ],
)
def test_a_document_of_another_shape_is_named(root, change, message):
    documents = export()
    change(documents[1])
    (root / "train" / "ocr.json").write_text(json.dumps(documents))
    text = refused(root)
    assert text.startswith(f"{root}/train/ocr.json, document 1")
    assert message in text


def test_two_documents_of_one_name(root):
    documents = export()
    documents[1]["documentName"] = documents[0]["documentName"]
    (root / "train" / "ocr.json").write_text(json.dumps(documents))
    assert "document 1: id form.png_2024-01-31_12:00:01.txt#0 stands in " in refused(root)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "broken JSON at line 1, column 1"),
        (b"[]", "found an empty list"),
        (b"{}", "expected a JSON list of"),
        (b"[7]", "document 0: expected {"),
        (b'[\n{"documentName": }]', "broken JSON at line 2, column 18"),
        ('[{"documentName": "Übersicht"}]'.encode("latin-1"), "not UTF-8 at byte 19 (line 1); save it as UTF-8"),
    ],
)
def test_a_file_of_another_shape(root, data, message):
    (root / "train" / "ocr.json").write_bytes(data)
    text = refused(root)
    assert text.startswith(f"{root}/train/ocr.json")
    assert message in text


def test_a_byte_order_mark_is_skipped(root):
    path = root / "train" / "ocr.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert asked(read("train", root=root)) == EXPECTED


def test_missing_files(root, tmp_path):
    with pytest.raises(ConfigError, match="give root"):
        list(read("train"))
    assert refused(root / "no") == f"{root}/no: no such folder"
    assert refused(tmp_path).startswith(f"{tmp_path}: no train.json, train/ocr.json or train.zip holding it; ")


# Fuzz


def test_from_the_export_to_the_score(root, tmp_path):
    records = load_records("ubiai", split="train", root=root)
    right = {d["id"]: d["answers"][-1]["answer"] for record in records for d in record["dialogues"]}
    entry = evaluate("ubiai", records, right, tmp_path)
    assert (entry["n"], entry["score"]) == (len(right), entry["ceiling"])
    assert evaluate("ubiai", records, dict.fromkeys(right, "nothing"), tmp_path)["score"] == 0


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_export(root, export())
    return root


def records_or_one_line(root, unlinked):
    message = ""
    try:
        for record in read("train", root=root, unlinked=unlinked):
            validate_record(record)
    except VqaError as error:
        message = str(error)
    assert "\n" not in message


@FUZZ
@given(data=damaged(json.dumps(export(), ensure_ascii=False).encode()))
def test_any_file(fuzzed, data):
    (fuzzed / "train" / "ocr.json").write_bytes(data)
    records_or_one_line(fuzzed, "error")


scalars = st.none() | st.booleans() | st.integers(-1, 9) | st.just(10**30) | st.floats() | st.text(max_size=3)
values = scalars | st.sampled_from([[], {}, [{}], [[]], "QUESTION", "ANSWER", "form.png_image_0.jpg", "..", "\ud83d"])


def paths_in(value, path=()):
    """The path of every value below a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in entries:
        yield (*path, key)
        yield from paths_in(child, (*path, key))


PATHS = list(paths_in(export()))


@FUZZ
@given(
    changes=st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(["set", "drop", "double"]), values), max_size=4),
    unlinked=st.sampled_from(["error", "skip"]),
)
def test_any_document(fuzzed, changes, unlinked):
    documents = export()
    for path, how, value in changes:
        change_at(documents, path, how, value)
    (fuzzed / "train" / "ocr.json").write_text(json.dumps(documents))
    records_or_one_line(fuzzed, unlinked)


def change_at(value, path, how, new):
    """Set, drop or double what stands at a path, if an earlier change has not removed it."""
    *parents, last = path
    for key in parents:
        if not (isinstance(value, dict) and key in value) and not (
            isinstance(value, list) and key in range(len(value))
        ):
            return
        value = value[key]
    if isinstance(value, list) and last in range(len(value)):
        value[last : last + 1] = {"set": [new], "drop": [], "double": [value[last], copy.deepcopy(value[last])]}[how]
    elif isinstance(value, dict) and how == "set":
        value[last] = new
    elif isinstance(value, dict):
        value.pop(last, None)
