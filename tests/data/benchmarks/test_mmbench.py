import base64
import csv
import io
import json

import pytest
from examples import FUZZ, damaged, png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from reader_checks import (
    GOLDEN,
    evaluate,
    golden_answers,
    golden_json,
    mark_byte_order,
    mutated,
    predictions_of,
    questions_of,
    read_all,
    read_or_refuse,
    refusal,
    write,
)

from hf_llava_vqa.collate import prompt_turns
from hf_llava_vqa.data import get_benchmark, load_records
from hf_llava_vqa.data.benchmarks.mmbench import submit
from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.errors import ConfigError, RecordError
from hf_llava_vqa.images import open_image

COLUMNS = [
    *("index", "question", "hint", "A", "B", "C", "D", "answer"),
    *("category", "image", "source", "l2-category", "comment", "split"),
]
FILE = "mmbench_dev_20230712.tsv"
read = get_benchmark("mmbench").read


def picture(shade):
    return base64.b64encode(png((shade, 50, 60))).decode()


PICTURE = picture(1)


def row(index, question, options, answer, *, hint="", image=PICTURE, category="object_localization"):
    options = [*options, "", "", ""][:4]
    return [str(index), question, hint, *options, answer, category, image, "web", "perception", "", "dev"]


TEN = ["one", "two", "ten\tin all"]
ROWS = [
    row(241, "How many?", TEN, "B"),
    row(252, "Is it wet?", ["yes", "no", "None", "maybe"], "A", hint='It "rains".', image=picture(2)),
    row(300, "Which?", ["this"], "A", image="241", category="ocr"),
    row(1000241, "How many?", [*TEN[1:], TEN[0]], "A"),
    row(1000252, "Is it wet?", ["no", "yes", "none"], "B", hint='It "rains".', image=picture(2)),
    row(2000241, "How many?", [TEN[2], *TEN[:2]], "C"),
]


def table(rows, columns=COLUMNS):
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode(errors="surrogatepass")


def write_set(root):
    write(root / FILE, table(ROWS))
    without_answers = [[*line[:7], *line[8:]] for line in ROWS]
    write(root / "MMBench_TEST_EN.tsv", table(without_answers, [*COLUMNS[:7], *COLUMNS[8:]]))


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path / "mmbench")
    return tmp_path / "mmbench"


def test_a_picture_is_a_record_with_all_passes_of_its_questions(root):
    records = read_all(read, "dev", root=root)
    assert questions_of(records) == [
        (
            "241",
            [
                ("241", "How many?\nA. one\nB. two\nC. ten\tin all"),
                ("300", "Which?\nA. this"),
                ("1000241", "How many?\nA. two\nB. ten\tin all\nC. one"),
                ("2000241", "How many?\nA. ten\tin all\nB. one\nC. two"),
            ],
        ),
        (
            "252",
            [
                ("252", 'It "rains".\nIs it wet?\nA. yes\nB. no'),
                ("1000252", 'It "rains".\nIs it wet?\nA. no\nB. yes'),
            ],
        ),
    ]
    assert open_image(records[1]["images"][0]).getpixel((0, 0)) == (2, 50, 60)
    dialogue = records[1]["dialogues"][0]
    assert (dialogue["choices"], dialogue["context"]) == (["yes", "no"], 'It "rains".')
    assert (dialogue["answers"][0]["answer"], dialogue["answer_type"]) == ("A", "object_localization")
    assert json.loads(dialogue["metadata"])["l2-category"] == "perception"


def test_the_letter_is_asked_for_in_the_language_of_the_questions(root):
    (root / FILE).rename(root / "mmbench_dev_cn_20231003.tsv")
    rows = load_records("mmbench_cn", split="dev", root=root)
    turns = prompt_turns(rows[0], rows[0]["dialogues"][1])
    assert turns[0]["content"] == "<image>\nWhich?\nA. this\n请直接回答选项字母。"
    assert rows[0]["source"] == "mmbench_cn"


def test_a_question_counts_if_every_pass_is_right(root, tmp_path):
    right = {line[0]: line[7] for line in ROWS}
    entry = evaluate("mmbench", read_all(read, "dev", root=root), right, tmp_path / "all")
    assert entry["score"] == entry["metric"]["accuracy"] == 1
    answers = {**right, "2000241": "A", "300": "The answer is A.", "1000252": "yes"}
    entry = evaluate("mmbench", read_all(read, "dev", root=root), answers, tmp_path / "some")
    assert entry["score"] == entry["metric"]["accuracy"] == pytest.approx(2 / 3)
    assert entry["metric"]["first_pass_accuracy"] == 1
    assert entry["by"] == {"object_localization": 0.5, "ocr": 1}


def test_prepared_sets_hold_the_pictures(root, tmp_path):
    write_shards(read("dev", root=root), tmp_path / "shards", split="dev")
    rows = load_records("parquet", split="dev", path=tmp_path / "shards")
    assert {row["image_id"]: open_image(row["images"][0]).getpixel((0, 0))[0] for row in rows} == {"241": 1, "252": 2}


def test_a_file_named_by_itself(root):
    assert read_all(read, "dev", annotations=root / FILE) == read_all(read, "dev", root=root)
    with pytest.raises(ConfigError, match="or annotations"):
        list(read("dev"))


def test_a_byte_order_mark_is_skipped(root):
    mark_byte_order(root / FILE)
    assert len(read_all(read, "dev", root=root)) == 2


def test_pictures_larger_than_a_field_of_text(root):
    noisy = io.BytesIO()
    Image.effect_noise((600, 600), 90).save(noisy, "PNG")
    assert len(noisy.getvalue()) > 131_072
    write(root / FILE, table([row(1, "What?", ["a", "b"], "A", image=base64.b64encode(noisy.getvalue()).decode())]))
    assert open_image(read_all(read, "dev", root=root)[0]["images"][0]).size == (600, 600)


BROKEN = base64.b64encode(b"GIF, but no picture" * 5).decode()
TOO_MANY_PIXELS = base64.b64encode(png((0, 0, 0))[:16] + b"\xff\xff\x00\x00" * 2 + png((0, 0, 0))[24:]).decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": an empty file; expected TSV with a header"),
        (table([]), ": no rows under the header"),
        (table(ROWS, ["id", *COLUMNS[1:]]), ", line 1: no column index; expected index, question, A, B, C, D, image"),
        (table([ROWS[0][:-1]]), ", line 2: 13 fields under a header of 14"),
        (table([ROWS[0], ROWS[0]]), ", line 3: id 241 stands in "),
        (table([row("x", "Q", TEN, "A")]), ", line 2: index is x; it must be a whole number"),
        (table([row("", "Q", TEN, "A")]), ", line 2: index is empty"),
        (table([row(1, " ", TEN, "A")]), ", line 2: question is empty"),
        (table([row(1, "Q", TEN, "D")]), ", line 2: answer D is not the letter of one of 3 options"),
        (table([row(1, "Q", TEN, "")]), ", line 2: answer is empty"),
        (table([row(1, "Q", ["", "b"], "B")]), ", line 2: no options"),
        (table([row(1, "Q", TEN, "A", image="")]), ", line 2: image is empty"),
        (table([row(1, "Q", TEN, "A", image="7")]), ", line 2: image in base64: "),
        (table([row(1, "Q", TEN, "A", image=picture(1) + "*")]), ", line 2: image in base64: "),
        (table([row(1, "Q", TEN, "A", image=BROKEN)]), ", line 2: image in memory: not an image of a known format"),
        (table([row(1, "Q", TEN, "A", image=TOO_MANY_PIXELS)]), ", line 2: image in memory: "),
        (table(ROWS)[:-1] + b'\t"', ", line "),
        (b"index\t\xff", ": not UTF-8 at byte 6 (line 1)"),
    ],
)
def test_files_of_another_shape(root, content, message):
    write(root / FILE, content)
    assert refusal(read, "dev", root=root).startswith(f"{root}/{FILE}{message}")


def test_nothing_where_the_file_should_be(root):
    (root / FILE).unlink()
    assert refusal(read, "dev", root=root).startswith(f"{root}: no mmbench_dev_20230712.tsv or mmbench_dev_en_20231003")


def answered(rows, answer="A"):
    return predictions_of({line[0]: answer for line in rows})


def sheet(path):
    openpyxl = pytest.importorskip("openpyxl")
    header, *rows = [[cell.value for cell in line] for line in openpyxl.load_workbook(path).active.rows]
    return header, rows


@pytest.mark.parametrize("name", ["mmbench_dev", "mmbench_test_no_answer"])
def test_the_servers_file_is_that_of_llava(name, tmp_path):
    """LLaVA ignores answers to unknown questions and leaves gaps; here they are errors."""
    pytest.importorskip("openpyxl")
    answers, expected = golden_answers(name), golden_json(f"{name}_expected.json")
    answers = {str(line[0]): answers.get(str(line[0]), "") for line in expected["rows"]}
    submit(predictions_of(answers), tmp_path / "s.xlsx", str(GOLDEN / f"{name}.tsv"))
    assert sheet(tmp_path / "s.xlsx") == (expected["columns"], expected["rows"])


def test_from_files_to_the_servers_file(root, tmp_path):
    pytest.importorskip("openpyxl")
    answers = {line[0]: f"={line[0]}" for line in ROWS}
    assert evaluate("mmbench", read_all(read, "test", root=root), answers, tmp_path, root) == {}
    header, rows = sheet(tmp_path / "submission.xlsx")
    assert header == ["index", "question", "A", "B", "C", "D", "prediction", "split"]
    assert [(line[0], line[6]) for line in rows] == [(int(line[0]), f"={line[0]}") for line in ROWS]


def test_from_chinese_files_to_the_score_and_the_servers_file(root, tmp_path):
    (root / FILE).rename(root / "MMBench_DEV_CN.tsv")
    (root / "MMBench_TEST_EN.tsv").rename(root / "MMBench_TEST_CN.tsv")
    right = {line[0]: line[7] for line in ROWS}
    entry = evaluate("mmbench_cn", load_records("mmbench_cn", split="dev", root=root), right, tmp_path / "dev")
    assert entry["score"] == 1
    records = load_records("mmbench_cn", split="test", root=root)
    assert evaluate("mmbench_cn", records, right, tmp_path / "test", root) == {}
    header, rows = sheet(tmp_path / "test" / "submission.xlsx")
    assert [row[header.index("prediction")] for row in rows] == list(right.values())


def test_a_split_with_answers_is_submitted_if_its_file_is_named(root, tmp_path):
    pytest.importorskip("openpyxl")
    answers = {line[0]: "A" for line in ROWS}
    records = read_all(read, "dev", root=root)
    assert evaluate("mmbench", records, answers, tmp_path, template=root / FILE)["score"] == pytest.approx(1 / 3)
    assert sheet(tmp_path / "submission.xlsx")[0][6:8] == ["prediction", "answer"]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (answered(ROWS[1:]), "no prediction for ID 241 (1 of 6 are missing); answer all"),
        (answered([*ROWS, row(7, "", [], "")]), "no ID 7, which was predicted"),
        (answered(ROWS) * 2, "two predictions for 241"),
        (answered(ROWS, "\x00"), "row 2: '\\x00' holds characters that Excel cannot store"),
    ],
)
def test_what_the_server_would_not_take(root, tmp_path, predictions, message):
    pytest.importorskip("openpyxl")
    with pytest.raises(RecordError) as caught:
        submit(predictions, tmp_path / "s.xlsx", str(root / FILE))
    assert message in str(caught.value)
    assert not (tmp_path / "s.xlsx").exists()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzzed")
    write_set(root)
    return root


def cells(rows):
    """A table of whatever stands in a mutated list of rows."""
    return table([[json.dumps(cell) if not isinstance(cell, str) else cell for cell in line] for line in rows])


@FUZZ
@given(
    content=mutated(ROWS[:3]).filter(lambda rows: all(isinstance(line, list) for line in rows)).map(cells)
    | damaged(table(ROWS[:2]))
    | st.just(b"\x00")
)
def test_whatever_stands_in_the_file(fuzzed, content):
    write(fuzzed / FILE, content)
    read_or_refuse(read, "dev", root=fuzzed)
