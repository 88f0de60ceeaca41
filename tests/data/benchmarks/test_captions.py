"""Captions of COCO and Flickr30k in Karpathy's files, of NoCaps, Conceptual Captions and Concadia."""

import copy
import json

import pytest
from examples import FUZZ, damaged
from hypothesis import given
from reader_checks import (
    evaluate,
    mark_byte_order,
    mutated,
    predictions_of,
    questions_of,
    read_all,
    read_or_refuse,
    refusal,
    write,
    write_photos,
    zip_up,
)

from hf_llava_vqa.data import get_benchmark, load_records
from hf_llava_vqa.data.benchmarks.captions import QUESTION
from hf_llava_vqa.data.benchmarks.nocaps import submit
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image

COCO, FLICKR, NOCAPS = (get_benchmark(name) for name in ("coco_captions", "flickr30k", "nocaps"))
CONCEPTUAL, CONCADIA = (get_benchmark(name) for name in ("conceptual", "concadia"))
COCO_FILE, FLICKR_FILE, NOCAPS_FILE = "dataset_coco.json", "dataset_flickr30k.json", "nocaps_val_4500_captions.json"


def image(name, split, *captions, **more):
    sentences = [{"tokens": text.split(), "raw": text, "imgid": 0, "sentid": n} for n, text in enumerate(captions)]
    return {"filename": name, "imgid": 0, "split": split, "sentences": sentences, "sentids": [0], **more}


VAL, TRAIN = {"filepath": "val2014", "cocoid": 1}, {"filepath": "train2014", "cocoid": 2}
KARPATHY_COCO = {
    "dataset": "coco",
    "images": [
        image("COCO_val2014_000000000001.jpg", "test", "A red bus.", " Bus on a road. ", **VAL),
        image("COCO_train2014_000000000002.jpg", "train", "A cat sleeps.", **TRAIN),
        image("COCO_val2014_000000000003.jpg", "restval", "A dog runs.", **VAL),
        image("COCO_val2014_000000000004.jpg", "test", "A green tree in a park.", "A tree.", **VAL),
    ],
}
KARPATHY_FLICKR = {"dataset": "flickr30k", "images": [image("1007129816.jpg", "test", "A man with a hat .", "A man .")]}
NOCAPS_VAL = {
    "licenses": [],
    "images": [
        {"id": 0, "file_name": "0013ea2087020901.jpg", "domain": "near-domain", "width": 1, "open_images_id": "0013"},
        {"id": 1, "file_name": "0040d6eae9a5a3d6.jpg", "domain": "out-domain", "width": 1, "open_images_id": "0040"},
    ],
    "annotations": [
        {"image_id": 1, "id": 0, "caption": "A blue accordion."},
        {"image_id": 0, "id": 1, "caption": "A baby on the grass."},
        {"image_id": 0, "id": 2, "caption": "A baby sits."},
    ],
}

CONCEPTUAL_FILE, CONCADIA_FILE = "Validation_GCC-1.1.0-Validation.tsv", "wiki_split.json"
CONCEPTUAL_VAL = 'a "quoted" sign above a door\thttp://a.org/1.jpg\nthe red bus .\thttp://b.org/2.jpg?x=1\n'


def article(name, split, description):
    texts = {"description": description, "caption": "The town in 1900.", "context": "The town lies at a river."}
    row = {key: {"raw": text, "tokens": text.split()} for key, text in texts.items()}
    return {"article_id": 7, "filename": name, "orig_filename": "Town.jpg", **row, "split": split}


CONCADIA_JSON = {"images": [article("3.jpg", "test", " A church. "), article("9.jpg", "train", "A bridge.")]}


def write_set(root):
    (root / "val").mkdir(parents=True)
    (root / CONCEPTUAL_FILE).write_text(CONCEPTUAL_VAL, encoding="utf-8")
    write_photos(root / "val" / "00000", "000000000.jpg", "000000001.jpg")
    write(root / CONCADIA_FILE, CONCADIA_JSON)
    write_photos(root / "resized", "3.jpg", "9.jpg")
    write(root / COCO_FILE, KARPATHY_COCO)
    write(root / FLICKR_FILE, KARPATHY_FLICKR)
    write(root / NOCAPS_FILE, NOCAPS_VAL)
    write(root / "nocaps_test_image_info.json", {"images": NOCAPS_VAL["images"]})
    for row in KARPATHY_COCO["images"]:
        write_photos(root / row["filepath"], row["filename"])
    write_photos(root / "flickr30k-images", "1007129816.jpg")
    write_photos(root / "images", *(row["file_name"] for row in NOCAPS_VAL["images"]))


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "captions")
    return tmp_path / "captions"


def captions_of(record):
    return [answer["answer"] for answer in record["dialogues"][0]["answers"]]


def test_a_photo_of_coco_is_a_record(root):
    records = read_all(COCO.read, "test", root=root)
    assert questions_of(records) == [
        ("COCO_val2014_000000000001.jpg", [("COCO_val2014_000000000001", QUESTION)]),
        ("COCO_val2014_000000000004.jpg", [("COCO_val2014_000000000004", QUESTION)]),
    ]
    assert captions_of(records[0]) == ["A red bus.", "Bus on a road."]
    train = read_all(COCO.read, "train", root=root)
    assert [captions_of(record) for record in train] == [["A cat sleeps."], ["A dog runs."]]
    assert all(open_image(record["images"][0]).mode == "RGB" for record in [*records, *train])


def test_a_photo_of_flickr30k_is_a_record(root):
    [record] = read_all(FLICKR.read, "test", root=root)
    assert (record["image_id"], captions_of(record)) == ("1007129816.jpg", ["A man with a hat .", "A man ."])
    assert record["source"] == "flickr30k"


def test_captions_of_nocaps_are_those_of_the_photo(root):
    records = read_all(NOCAPS.read, "val", root=root)
    assert [captions_of(r) for r in records] == [["A baby on the grass.", "A baby sits."], ["A blue accordion."]]
    assert [record["dialogues"][0]["answer_type"] for record in records] == ["near-domain", "out-domain"]
    assert captions_of(read_all(NOCAPS.read, "test", root=root)[0]) == []


def test_a_line_of_conceptual_captions_is_a_record(root):
    records = read_all(CONCEPTUAL.read, "val", root=root)
    assert questions_of(records) == [
        ("000000000.jpg", [("000000000", QUESTION)]),
        ("000000001.jpg", [("000000001", QUESTION)]),
    ]
    assert [captions_of(record) for record in records] == [['a "quoted" sign above a door'], ["the red bus ."]]
    assert all(open_image(record["images"][0]).mode == "RGB" for record in records)


def test_a_header_shifts_no_line_of_conceptual_captions(root):
    expected = read_all(CONCEPTUAL.read, "val", root=root)
    (root / CONCEPTUAL_FILE).write_bytes(b"caption\turl\r\n" + CONCEPTUAL_VAL.replace("\n", "\r\n").encode())
    assert read_all(CONCEPTUAL.read, "val", root=root) == expected


def test_the_ten_thousandth_picture_lies_in_the_second_folder(root):
    (root / CONCEPTUAL_FILE).write_text("a dog\thttp://a.org\n" * 10_002)
    write_photos(root / "val" / "00001", "000010001.jpg")
    [*_, last] = read_all(CONCEPTUAL.read, "val", root=root, dead_links=root / "dead.jsonl")
    assert last["images"][0]["path"].endswith("/val/00001/000010001.jpg")


def test_dead_links_are_an_error_or_named(root, caplog):
    (root / "val" / "00000" / "000000000.jpg").unlink()
    message = refusal(CONCEPTUAL.read, "val", root=root)
    assert message.startswith(
        f"{root}/{CONCEPTUAL_FILE}, line 1: image 00000/000000000.jpg is not in {root}/val (1 of 2"
    )
    [record] = read_all(CONCEPTUAL.read, "val", root=root, dead_links=root / "dead.jsonl")
    assert (record["image_id"], captions_of(record)) == ("000000001.jpg", ["the red bus ."])
    assert (root / "dead.jsonl").read_text() == '{"image": "00000/000000000.jpg", "url": "http://a.org/1.jpg"}\n'
    assert f"1 of 2 pictures are not there; {root}/dead.jsonl names them" in caplog.text
    with pytest.raises(ConfigError, match=r"dead_links: .* cannot be written"):
        list(CONCEPTUAL.read("val", root=root, dead_links=root))


def test_concadia_asks_for_the_description(root):
    [record] = read_all(CONCADIA.read, "test", root=root)
    assert questions_of([record]) == [("3.jpg", [("3", QUESTION)])]
    assert captions_of(record) == ["A church."]
    [dialogue] = record["dialogues"]
    assert dialogue["context"] == "The town lies at a river."
    metadata = {"article_id": 7, "caption": "The town in 1900.", "orig_filename": "Town.jpg"}
    assert json.loads(dialogue["metadata"]) == metadata


@pytest.mark.parametrize(
    ("benchmark", "split", "right"),
    [
        ("flickr30k", "test", {"1007129816": "A man with a hat ."}),
        ("conceptual", "val", {"000000000": 'a "quoted" sign above a door', "000000001": "the red bus ."}),
        ("concadia", "test", {"3": "A church."}),
    ],
)
def test_the_written_captions_score_best(root, tmp_path, benchmark, split, right):
    entries = []
    for answers in (right, dict.fromkeys(right, "something else")):
        records = load_records(benchmark, split=split, root=root)
        entries.append(evaluate(benchmark, records, answers, tmp_path)["metric"])
    assert entries[0]["rouge_l"] == pytest.approx(1)
    assert entries[1]["rouge_l"] == 0


def test_from_files_to_the_score(root, tmp_path):
    answers = {"COCO_val2014_000000000001": "a red bus.", "COCO_val2014_000000000004": "nothing"}
    entry = evaluate("coco_captions", load_records("coco_captions", split="test", root=root), answers, tmp_path)
    assert 0 < entry["score"] == pytest.approx(entry["metric"]["cider"] / 10)
    assert {"bleu_4", "rouge_l", "cider", "n"} <= set(entry["metric"])
    entry = evaluate("nocaps", read_all(NOCAPS.read, "val", root=root), {"0": "A baby sits.", "1": ""}, tmp_path)
    assert entry["by"] == {"near-domain": pytest.approx(2 * entry["score"]), "out-domain": 0}


def test_from_files_to_the_servers_file_of_nocaps(root, tmp_path):
    records = read_all(NOCAPS.read, "test", root=root)
    assert evaluate("nocaps", records, {"0": "A baby.", "1": "Ein Akkordeon, größer."}, tmp_path, root) == {}
    assert json.loads((tmp_path / "submission.json").read_text()) == [
        {"image_id": 0, "caption": "A baby."},
        {"image_id": 1, "caption": "Ein Akkordeon, größer."},
    ]
    with pytest.raises(RecordError, match=r"no prediction for ID 1 \(1 of 2 are missing\)"):
        submit(predictions_of({"0": "A baby."}), tmp_path / "s.json", f"{root}/nocaps_test_image_info.json")


def test_archives_as_downloaded(root):
    expected = questions_of(read_all(COCO.read, "test", root=root))
    zip_up(root / "val2014.zip", root / "val2014")
    zip_up(root / "caption_datasets.zip", root / COCO_FILE, root / FLICKR_FILE)
    zip_up(root / "flickr30k_images.zip", root / "flickr30k-images")
    records = read_all(COCO.read, "test", root=root)
    assert questions_of(records) == expected
    assert open_image(records[0]["images"][0]).mode == "RGB"
    assert open_image(read_all(FLICKR.read, "test", root=root)[0]["images"][0]).mode == "RGB"


@pytest.mark.parametrize(
    ("benchmark", "split", "file", "images"),
    [
        (COCO, "test", COCO_FILE, "."),
        (FLICKR, "test", FLICKR_FILE, "flickr30k-images"),
        (NOCAPS, "val", NOCAPS_FILE, "images"),
        (CONCEPTUAL, "val", CONCEPTUAL_FILE, "val"),
        (CONCADIA, "test", CONCADIA_FILE, "resized"),
    ],
)
def test_files_named_one_by_one(root, benchmark, split, file, images):
    expected = questions_of(read_all(benchmark.read, split, root=root))
    mark_byte_order(root / file)
    assert questions_of(read_all(benchmark.read, split, annotations=root / file, images=root / images)) == expected
    with pytest.raises(ConfigError, match="or images"):
        list(benchmark.read(split, annotations=root / file))
    (root / file).unlink()
    assert refusal(benchmark.read, split, root=root).startswith(f"{root}: no {file}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("images"), ": images must be a list, found nothing"),
        (lambda d: d.update(images=d["images"][1:2]), ": no images of the split test"),
        (lambda d: d["images"][0].pop("split"), ", images 0: split must be a string, found nothing"),
        (lambda d: d["images"][0].pop("filename"), ", images 0: filename must be a string, found nothing"),
        (lambda d: d["images"][0].pop("sentences"), ", images 0: sentences must be a list, found nothing"),
        (lambda d: d["images"][0].update(sentences=[]), ", images 0: sentences is an empty list"),
        (lambda d: d["images"][0]["sentences"][1].update(raw=" "), ", images 0, sentences 1: raw is empty"),
        (lambda d: d["images"][0]["sentences"][0].update(raw="\ud800"), ", images 0: a broken character"),
        (lambda d: d["images"].append(d["images"][0]), ", images 4: id COCO_val2014_000000000001 stands in "),
        (
            lambda d: d["images"][0].update(filepath="val2017"),
            ", images 0: image val2017/COCO_val2014_000000000001.jpg",
        ),
        (lambda d: d["images"][0].update(filepath="../x"), ", images 0: unsafe name '../x/COCO_val2014_"),
    ],
)
def test_karpathys_files_of_another_shape(root, change, message):
    document = copy.deepcopy(KARPATHY_COCO)
    change(document)
    write(root / COCO_FILE, document)
    assert refusal(COCO.read, "test", root=root).startswith(f"{root}/{COCO_FILE}{message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("annotations"), ": annotations must be a list, found nothing"),
        (lambda d: d["annotations"].pop(0), ", images 1: image 1 has no captions"),
        (lambda d: d["annotations"][0].pop("caption"), ", annotations 0: caption must be a string, found nothing"),
        (lambda d: d["annotations"][0].update(image_id=None), ", annotations 0: image_id must be a string, found null"),
        (lambda d: d["images"][0].update(id=1), ", images 1: id 1 stands in "),
        (lambda d: d["images"][0].update(file_name="x.jpg"), ", images 0: image x.jpg is not in "),
        (lambda d: d["images"][0].update(domain=3), ", images 0: domain must be a string, found a number"),
    ],
)
def test_nocaps_files_of_another_shape(root, change, message):
    document = copy.deepcopy(NOCAPS_VAL)
    change(document)
    write(root / NOCAPS_FILE, document)
    assert refusal(NOCAPS.read, "val", root=root).startswith(f"{root}/{NOCAPS_FILE}{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: expected a caption, a tab and an address"),
        ("caption\turl\n", "no caption with a picture in "),
        ("a dog\thttp://a.org\nno tab\n", "line 2: expected a caption, a tab and an address; download the file again"),
        ("a dog\thttp://a.org\tmore\n", "line 1: expected"),
        (" \thttp://a.org\n", "line 1: expected"),
    ],
)
def test_conceptual_captions_of_another_shape(root, content, message):
    (root / CONCEPTUAL_FILE).write_text(content)
    assert message in refusal(CONCEPTUAL.read, "val", root=root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("images"), ": images must be a list, found nothing"),
        (lambda d: d["images"].pop(0), ": no images of the split test; download it again"),
        (lambda d: d["images"][0].pop("description"), ', images 0: description: expected {"raw"}, found null'),
        (lambda d: d["images"][0]["caption"].pop("raw"), ", images 0: caption: raw must be a string, found nothing"),
        (lambda d: d["images"][0]["context"].update(raw=" "), ", images 0: context: raw is empty"),
        (lambda d: d["images"][0].update(filename="../x.jpg"), ", images 0: unsafe name '../x.jpg'"),
        (lambda d: d["images"][0].update(filename="4.jpg"), ", images 0: image 4.jpg is not in "),
    ],
)
def test_concadias_file_of_another_shape(root, change, message):
    document = copy.deepcopy(CONCADIA_JSON)
    change(document)
    write(root / CONCADIA_FILE, document)
    assert refusal(CONCADIA.read, "test", root=root).startswith(f"{root}/{CONCADIA_FILE}{message}")


@pytest.mark.parametrize(
    ("content", "message"), [(b"[]", "expected {"), (b'{"images": ', "broken JSON"), (b'{"\xff', "not UTF-8 at byte 2")]
)
def test_a_file_that_is_not_what_it_is_called(root, content, message):
    for file, benchmark, split in ((FLICKR_FILE, FLICKR, "test"), (NOCAPS_FILE, NOCAPS, "val")):
        write(root / file, content)
        assert refusal(benchmark.read, split, root=root).startswith(f"{root}/{file}: {message}")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


@FUZZ
@given(content=mutated(KARPATHY_COCO) | damaged(json.dumps(KARPATHY_COCO).encode()))
def test_whatever_stands_in_karpathys_file(fuzzed, content):
    write(fuzzed / COCO_FILE, content)
    read_or_refuse(COCO.read, "test", root=fuzzed)


@FUZZ
@given(content=mutated(NOCAPS_VAL) | damaged(json.dumps(NOCAPS_VAL).encode()))
def test_whatever_stands_in_nocaps_file(fuzzed, content):
    write(fuzzed / NOCAPS_FILE, content)
    read_or_refuse(NOCAPS.read, "val", root=fuzzed)


@FUZZ
@given(content=mutated(CONCADIA_JSON) | damaged(json.dumps(CONCADIA_JSON).encode()))
def test_whatever_stands_in_concadias_file(fuzzed, content):
    write(fuzzed / CONCADIA_FILE, content)
    read_or_refuse(CONCADIA.read, "test", root=fuzzed)


@FUZZ
@given(content=damaged(CONCEPTUAL_VAL.encode()))
def test_whatever_stands_in_the_lines_of_conceptual_captions(fuzzed, content):
    (fuzzed / CONCEPTUAL_FILE).write_bytes(content)
    read_or_refuse(CONCEPTUAL.read, "val", root=fuzzed)
